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
// keys, tables with their struct type, lists of tables as a slice of it.
func configFields(t reflect.Type, prefix string) map[string]reflect.Type {
	fields := make(map[string]reflect.Type)
	for field := range t.Fields() {
		tag := field.Tag.Get("toml")
		if tag == "" || tag == "-" {
			continue
		}
		fields[prefix+tag] = field.Type
		table := field.Type
		if isTableList(table) {
			table = table.Elem()
		}
		if table.Kind() == reflect.Struct {
			for key, below := range configFields(table, prefix+tag+".") {
				fields[key] = below
			}
		}
	}
	return fields
}

// isTableList says whether a field is written as [[tables]], one after the
// other.
func isTableList(field reflect.Type) bool {
	return field.Kind() == reflect.Slice && field.Elem().Kind() == reflect.Struct
}

// fileWalk is the first reading of one file.
type fileWalk struct {
	name    string
	fields  map[string]reflect.Type
	origins map[string]string
	counts  map[string]int // of the tables in each list, so far
	parser  unstable.Parser
}

// document walks until the end or the first error of syntax, which it leaves
// to the decoder.
func (w *fileWalk) document(data []byte) error {
	w.parser.Reset(data)
	w.counts = make(map[string]int)
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
	case isTableList(field) && !list:
		return w.wrong(place, "%s is written as one table, expected a list of them, each under [[%s]]", key, key)
	case isTableList(field):
		w.nextTable(key, place)
		return nil
	case field.Kind() != reflect.Struct:
		return w.wrong(place, "%s is written as a table, expected %s", key, expected(field))
	case list:
		return w.wrong(place, "%s is written as a list of tables, expected one table [%s]", key, key)
	}
	return nil
}

// nextTable notes where the next table of a list stands.
func (w *fileWalk) nextTable(list string, place unstable.Range) {
	w.counts[list]++
	w.origins[tableKey(list, w.counts[list])] = w.place(place)
}

// tableKey is what origins calls a table of a list, which count from 1.
func tableKey(list string, number int) string { return fmt.Sprintf("%s[%d]", list, number) }

// numbered is what origins calls a key: below a list of tables it has the
// number of its table.
func (w *fileWalk) numbered(key string) string {
	for list, count := range w.counts {
		if below, is := strings.CutPrefix(key, list+"."); is {
			return tableKey(list, count) + "." + below
		}
	}
	return key
}

func (w *fileWalk) keyValue(table string, node *unstable.Node) error {
	key, place := joinKey(table, node)
	value := node.Value()
	field, known := w.fields[key]
	if !known {
		return w.wrong(place, "there is no key %s%s", key, suggest(key, w.fields))
	}
	if parent, _ := splitKey(key); parent != table && isTableList(w.typeOf(parent)) {
		return w.wrong(place, "%s is written as one table, expected a list of them, each under [[%s]]", parent, parent)
	}
	w.origins[w.numbered(key)] = w.place(place)
	if isTableList(field) {
		return w.inlineTables(key, place, value)
	}
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

// typeOf is the type of a key that is known, and that of a setting otherwise.
func (w *fileWalk) typeOf(key string) reflect.Type {
	if field, known := w.fields[key]; known {
		return field
	}
	return reflect.TypeFor[string]()
}

// inlineTables takes a list of tables that is written as [{…}, {…}].
func (w *fileWalk) inlineTables(key string, place unstable.Range, value *unstable.Node) error {
	if value.Kind != unstable.Array {
		return w.wrong(place, "%s is %s, expected a list of tables, each under [[%s]]", key, w.describe(key, value), key)
	}
	for it := value.Children(); it.Next(); {
		if it.Node().Kind != unstable.InlineTable {
			return w.wrong(place, "%s has %s in its list, expected tables", key, w.describe(key, it.Node()))
		}
		w.nextTable(key, place)
		for below := it.Node().Children(); below.Next(); {
			if err := w.keyValue(key, below.Node()); err != nil {
				return err
			}
		}
	}
	return nil
}

// value checks the type of a value. The decoder would take the integer 60 for
// a duration of 60 nanoseconds.
func (w *fileWalk) value(key string, place unstable.Range, field reflect.Type, value *unstable.Node) error {
	fits := false
	switch field {
	case reflect.TypeFor[listenList](), reflect.TypeFor[textList]():
		fits = value.Kind == unstable.String || value.Kind == unstable.Array
		for it := value.Children(); value.Kind == unstable.Array && it.Next(); {
			if element := it.Node(); element.Kind != unstable.String {
				return w.wrong(place, "%s has %s in its list, expected %s", key, w.describe(key, element), expected(field))
			}
		}
	case reflect.TypeFor[size]():
		fits = value.Kind == unstable.String || value.Kind == unstable.Integer && value.Data[0] != '-'
	case reflect.TypeFor[bool](), reflect.TypeFor[*bool]():
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
	case reflect.Bool, reflect.Pointer: // a setting that may be neither
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
