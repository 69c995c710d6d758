package main

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// The file is read twice. The first reading walks over its key-values and
// holds each against the fields of Config: there an unknown key or a value of
// the wrong type is found, with its place and in a person's words, which the
// decoder has not. The second is the decoder's, as strict as it can be, and
// judges what is left: syntax, keys given twice, values out of range.

// parse reads the configuration's text into c.
func (c *Config) parse(name string, data []byte) error {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // an editor's mark, which TOML does not have
	walk := fileWalk{name: name, fields: configFields(reflect.TypeFor[Config](), ""), origins: c.origins}
	if err := walk.document(data); err != nil {
		return err
	}
	err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(c)
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &wrong):
		line, column := wrong.Position()
		key := strings.Join(wrong.Key(), ".")
		if key != "" {
			key += ": "
		}
		return configError("%s:%d:%d: %s%s", name, line, column, key, strings.TrimPrefix(wrong.Error(), "toml: "))
	case err != nil:
		return configError("%s: %w", name, err)
	}
	return nil
}

// configFields lists the tables and settings below a struct by their dotted
// keys, tables with their struct type.
func configFields(t reflect.Type, prefix string) map[string]reflect.Type {
	fields := make(map[string]reflect.Type)
	for field := range t.Fields() {
		tag := field.Tag.Get("toml")
		if tag == "" || tag == "-" {
			continue
		}
		fields[prefix+tag] = field.Type
		if field.Type.Kind() == reflect.Struct {
			for key, below := range configFields(field.Type, prefix+tag+".") {
				fields[key] = below
			}
		}
	}
	return fields
}

// fileWalk is the first reading of one file.
type fileWalk struct {
	name    string
	fields  map[string]reflect.Type
	origins map[string]string
	parser  unstable.Parser
}

// document walks until the end or the first error of syntax, which it leaves
// to the decoder.
func (w *fileWalk) document(data []byte) error {
	w.parser.Reset(data)
	table := ""
	for w.parser.NextExpression() {
		node := w.parser.Expression()
		var err error
		switch node.Kind {
		case unstable.Table, unstable.ArrayTable:
			var place unstable.Range
			table, place = joinKey("", node)
			err = w.table(table, place, node.Kind == unstable.ArrayTable)
		case unstable.KeyValue:
			err = w.keyValue(table, node)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// joinKey is the dotted key of a table or key-value below prefix, and where it
// stands.
func joinKey(prefix string, node *unstable.Node) (string, unstable.Range) {
	var parts []string
	var place unstable.Range
	if prefix != "" {
		parts = append(parts, prefix)
	}
	for it := node.Key(); it.Next(); {
		if place.Length == 0 {
			place = it.Node().Raw
		}
		parts = append(parts, string(it.Node().Data))
	}
	return strings.Join(parts, "."), place
}

func (w *fileWalk) table(key string, place unstable.Range, list bool) error {
	field, known := w.fields[key]
	switch {
	case !known:
		return w.wrong(place, "there is no table [%s]%s", key, suggest(key, w.fields))
	case field.Kind() != reflect.Struct:
		return w.wrong(place, "%s is written as a table, expected %s", key, expected(field))
	case list:
		return w.wrong(place, "%s is written as a list of tables, expected one table [%s]", key, key)
	}
	return nil
}

func (w *fileWalk) keyValue(table string, node *unstable.Node) error {
	key, place := joinKey(table, node)
	value := node.Value()
	field, known := w.fields[key]
	if !known {
		return w.wrong(place, "there is no key %s%s", key, suggest(key, w.fields))
	}
	w.origins[key] = w.place(place)
	if field.Kind() != reflect.Struct {
		return w.value(key, place, field, value)
	}
	if value.Kind != unstable.InlineTable {
		return w.wrong(place, "%s is %s, expected a table [%s]", key, w.describe(key, value), key)
	}
	for it := value.Children(); it.Next(); {
		if err := w.keyValue(key, it.Node()); err != nil {
			return err
		}
	}
	return nil
}

// value checks the type of a value. The decoder would take the integer 60 for
// a duration of 60 nanoseconds.
func (w *fileWalk) value(key string, place unstable.Range, field reflect.Type, value *unstable.Node) error {
	fits := false
	switch field {
	case reflect.TypeFor[listenList]():
		fits = value.Kind == unstable.String || value.Kind == unstable.Array
		for it := value.Children(); value.Kind == unstable.Array && it.Next(); {
			if element := it.Node(); element.Kind != unstable.String {
				return w.wrong(place, "%s has %s in its list, expected %s", key, w.describe(key, element), expected(field))
			}
		}
	case reflect.TypeFor[size]():
		fits = value.Kind == unstable.String || value.Kind == unstable.Integer && value.Data[0] != '-'
	case reflect.TypeFor[bool]():
		fits = value.Kind == unstable.Bool
	case reflect.TypeFor[int]():
		fits = value.Kind == unstable.Integer
	default:
		fits = value.Kind == unstable.String
	}
	if !fits {
		return w.wrong(place, "%s is %s, expected %s", key, w.describe(key, value), expected(field))
	}
	return nil
}

// expected says in words what a setting of a type wants.
func expected(field reflect.Type) string {
	if s, ok := reflect.Zero(field).Interface().(setting); ok {
		return s.expects()
	}
	switch field.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	}
	return "a text in quotes"
}

// describe says what a value is: its kind, and its text where that is short
// and cannot hold a password.
func (w *fileWalk) describe(key string, value *unstable.Node) string {
	kinds := map[unstable.Kind]string{
		unstable.String:      "the text",
		unstable.Bool:        "the truth value",
		unstable.Integer:     "the number",
		unstable.Float:       "the number",
		unstable.Array:       "a list",
		unstable.InlineTable: "a table",
	}
	kind, ok := kinds[value.Kind]
	if !ok {
		kind = "the date or time"
	}
	if raw := string(w.parser.Raw(value.Raw)); key != keyStoreURL && strings.HasPrefix(kind, "the ") && len(raw) <= 40 && !strings.Contains(raw, "\n") {
		return kind + " " + raw
	}
	return strings.Replace(kind, "the ", "a ", 1)
}

// place writes a range's beginning as FILE:LINE:COL.
func (w *fileWalk) place(r unstable.Range) string {
	start := w.parser.Shape(r).Start
	return fmt.Sprintf("%s:%d:%d", w.name, start.Line, start.Column)
}

func (w *fileWalk) wrong(r unstable.Range, format string, args ...any) error {
	return configError("%s: "+format, append([]any{w.place(r)}, args...)...)
}
