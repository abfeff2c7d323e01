package when

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Document is a payload that is parsed as JSON when somebody asks for it, once. It is for one goroutine.
type Document struct {
	Data []byte

	parsed bool
	value  any
	err    error
}

// Value returns the payload as nil, bool, int, float64, string, []any or map[string]any. Of keys that come twice in an object
// the last one counts. JSON that is nested more than 10,000 deep is an error (encoding/json).
func (d *Document) Value() (any, error) {
	if !d.parsed {
		d.parsed = true
		d.value, d.err = parse(d.Data)
	}
	return d.value, d.err
}

// Field returns the field at a path of names, nil if it is not there.
func (d *Document) Field(path []string) (any, error) {
	v, err := d.Value()
	if err != nil {
		return nil, err
	}
	for _, name := range path {
		object, _ := v.(map[string]any)
		v = object[name]
	}
	return v, nil
}

func parse(data []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber() // a float64 would take 9007199254740993 for 9007199254740992
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, notJSON(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("the payload is not JSON: something follows its first value")
	}
	return numbers(v), nil
}

func notJSON(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the payload is not JSON: it is empty")
	}
	return fmt.Errorf("the payload is not JSON: %w", err)
}

// numbers turns all numbers below v into int or float64, in place. Parse has bounded the depth.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		return number(string(v))
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

// number returns what the text of a JSON number stands for. Beyond the range of float64 it is infinite, so that it still
// compares as it should: ParseFloat's error can only be that.
func number(text string) any {
	if !strings.ContainsAny(text, ".eE") {
		if n, err := strconv.Atoi(text); err == nil {
			return n
		}
	}
	f, _ := strconv.ParseFloat(text, 64)
	return f
}
