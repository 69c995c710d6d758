package main

import (
	"fmt"
	"io"
	"log/slog"
	"reflect"
)

// newLogger makes the logger that the configuration asks for.
func newLogger(cfg Config, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.Level(cfg.Log.Level)}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// LogValue implements slog.LogValuer: a Config that is logged shows every
// setting as it is in force, and no password.
func (c Config) LogValue() slog.Value { return slog.GroupValue(c.Attrs()...) }

// Attrs lists every setting as it is in force, without passwords.
func (c Config) Attrs() []slog.Attr {
	c.Store.URL = redactStoreURL(c.Store.URL)
	c.Policy.GlobalKeys = c.describeGlobalKeys()
	return structAttrs(reflect.ValueOf(c))
}

// structAttrs follows the toml tags, so that no setting can be forgotten.
func structAttrs(v reflect.Value) []slog.Attr {
	var attrs []slog.Attr
	for field, value := range v.Fields() {
		tag := field.Tag.Get("toml")
		if tag == "" || tag == "-" {
			continue
		}
		if value.Kind() == reflect.Struct {
			attrs = append(attrs, slog.Attr{Key: tag, Value: slog.GroupValue(structAttrs(value)...)})
			continue
		}
		attrs = append(attrs, slog.Any(tag, logged(value.Interface())))
	}
	return attrs
}

// logged writes a setting as the configuration file would, in both formats.
func logged(value any) any {
	switch value := value.(type) {
	case fmt.Stringer:
		return value.String()
	case []RuleConfig:
		rules := make([]string, len(value))
		for i, rule := range value {
			rules[i] = rule.String()
		}
		return rules
	}
	return value
}

// redactStoreURL writes a store URL as it was given, without its password.
func redactStoreURL(url string) string {
	name, err := parseStoreURL(url)
	switch {
	case url == "":
		return ""
	case err != nil:
		return hidden
	case name.kind == kindSQLite:
		return url
	}
	return redactDSN(url)
}
