package config

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// A value is one value of the file: its full key, its place, and what package toml made of it.
type value struct {
	key string
	at  *place
	raw any
}

// get returns the value of a key in the table v.
func (v value) get(name string) (value, bool) {
	raw, ok := v.table()[name]
	return value{key: joinKey(v.key, name), at: v.at.key(name), raw: raw}, ok
}

// table returns what v holds if it is a table, else nil.
func (v value) table() map[string]any {
	t, _ := v.raw.(map[string]any)
	return t
}

// elems returns the values of the array v.
func (v value) elems() ([]value, bool) {
	array, ok := v.raw.([]any)
	if !ok {
		return nil, false
	}
	list := make([]value, len(array))
	for i, raw := range array {
		list[i] = value{key: fmt.Sprintf("%s[%d]", v.key, i), at: v.at.elem(i), raw: raw}
	}
	return list, true
}

// quote returns the value for an error text as the file has it, so with each ${…} unexpanded.
func (v value) quote() string {
	if s, ok := v.raw.(string); ok {
		return strconv.Quote(s)
	}
	return fmt.Sprint(v.raw)
}

// kind names the type of v, with its article.
func (v value) kind() string {
	switch v.raw.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a float"
	case bool:
		return "a boolean"
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "an array of tables"
	}
	return "an array"
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// joinKey returns the full key of name in a table, in quotes where TOML wants them.
func joinKey(table, name string) string {
	if !bareKey.MatchString(name) {
		name = strconv.Quote(name)
	}
	if table == "" {
		return name
	}
	return table + "." + name
}
