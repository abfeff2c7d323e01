package when

import (
	"errors"
	"strings"
	"testing"
)

// failure stands for an evaluation that ends in an error.
const failure = "failure"

func TestHolds(t *testing.T) {
	header := map[string][]string{"Type": {"new", "old"}, "type": {"lower"}, "None": {}}
	for _, tc := range []struct {
		when, data string
		want       string // true, false or failure
	}{
		{`subject startsWith "orders.eu." && json.total > 100 && header["Type"] == "new"`, `{"total": 100.5}`, "true"},
		{`subject == "orders.eu.1"`, ``, "true"},
		{`size == 3`, `abc`, "true"},
		{`size > 0 ? true : false`, ``, "false"},
		{`subject matches "^orders\\.(eu|us)\\." and upper(split(subject, ".")[1]) == "EU"`, ``, "true"},

		// Headers: the first value, by the exact key.
		{`header["Type"] == "new"`, ``, "true"},
		{`header["type"] == "lower"`, ``, "true"},
		{`header["TYPE"] == ""`, ``, "true"},
		{`"None" in header`, ``, "false"},
		{`"Type" in header`, ``, "true"},

		// What is not there is nil, and more than comparing it is an error.
		{`json.total == nil`, `{}`, "true"},
		{`json.total != nil`, `{"total": null}`, "false"},
		{`json.total > 100`, `{}`, failure},
		{`json.total > 100`, `{"total": "200"}`, failure},
		{`(json.total ?? 0) > 100`, `{}`, "false"},
		{`json.a.b == 1`, `{}`, failure},
		{`json.a?.b == nil`, `{}`, "true"},
		{`json.list[3] == 1`, `{"list": []}`, failure},
		{`json.ok`, `{"ok": true}`, "true"},
		{`json.ok`, `{"ok": "yes"}`, failure},
		{`json.ok`, `{}`, "false"},
		{`json == nil`, `null`, "true"},
		{`json["a b"] == 1 and json.json == 2`, `{"a b": 1, "json": 2}`, "true"},
		{`any(json, # == 2)`, `[1, 2]`, "true"},

		// The payload is parsed only when the evaluation comes to it.
		{`json == nil`, ``, failure},
		{`json == nil`, `{"a": 1} x`, failure},
		{`json == nil`, `{"a": 1}{}`, failure},
		{`json == nil`, "\xff", failure},
		{`subject startsWith "other." && json.total > 100`, `not JSON`, "false"},

		// Numbers.
		{`json.id == 9007199254740993`, `{"id": 9007199254740993}`, "true"},
		{`json.id == 9007199254740993`, `{"id": 9007199254740992}`, "false"},
		{`json.n > 100`, `{"n": 1e999}`, "true"},
		{`json.n < 0`, `{"n": -1e999}`, "true"},
		{`json.n > 100`, `{"n": ` + strings.Repeat("9", 5000) + `}`, "true"},
		{`json.n == 0`, `{"n": 1e-999}`, "true"},
		{`json.n == 1`, `{"n": 1.0}`, "true"},
		{`json.n % 0 == 1`, `{"n": 1}`, failure},

		// Hostile payloads.
		{`json == nil`, strings.Repeat("[", 1_000_000), failure},
		{`json == nil`, strings.Repeat(`{"a":`, 9_000) + "1" + strings.Repeat("}", 9_000), "false"},
		{`json == json`, strings.Repeat(`[`, 9_000) + "1" + strings.Repeat("]", 9_000), "true"},
		{`json.a == 2`, `{"a": 1, "a": 2}`, "true"},
		{`json.s == "\u0000\ufffd"`, "{\"s\": \"\\u0000\\ud800\"}", "true"},
		{`len(filter(1..json.n, true)) > 0`, `{"n": 100000000000}`, failure}, // the library's memory budget
	} {
		c, err := Compile(tc.when)
		if err != nil {
			t.Errorf("%s: %v", tc.when, err)
			continue
		}
		for range 2 { // the second time in a used evaluation
			got := failure
			holds, err := c.Holds("orders.eu.1", header, &Document{Data: []byte(tc.data)})
			if err == nil {
				got = map[bool]string{true: "true", false: "false"}[holds]
			}
			if got != tc.want {
				t.Errorf("%s of %.60q: %s (%v), want %s", tc.when, tc.data, got, err, tc.want)
			}
			if err != nil && (len(err.Error()) > 400 || strings.Contains(err.Error(), "\n")) {
				t.Errorf("%s: the error is not one short line: %q", tc.when, err)
			}
		}
	}
}

// Nothing of one message is left for the next.
func TestHoldsForgets(t *testing.T) {
	c, err := Compile(`"A" in header || json != nil`)
	if err != nil {
		t.Fatal(err)
	}
	if holds, err := c.Holds("s", map[string][]string{"A": {"1"}}, &Document{Data: []byte("1")}); !holds || err != nil {
		t.Errorf("first: %v, %v", holds, err)
	}
	if holds, err := c.Holds("s", nil, &Document{Data: []byte("null")}); holds || err != nil {
		t.Errorf("second: %v, %v; want false", holds, err)
	}
}

func TestCompileErrors(t *testing.T) {
	for src, want := range map[string]string{
		``:                           "at character 1: unexpected token EOF",
		`subject`:                    "expected bool, but got string",
		`size`:                       "expected bool, but got int",
		`sbject == "a"`:              "at character 1: unknown name sbject",
		`size > 0 && sise < 5`:       "at character 13: unknown name sise",
		`subject > 5`:                "at character 9: invalid operation: > (mismatched types string and int)",
		"size > 0 &&\n  subject + 1": "at line 2, character 11: invalid operation: + (mismatched types string and int)",
		`header.Type == 1`:           "at character 13: invalid operation: == (mismatched types string and int)",
		`subject == "a`:              "at character 14: literal not terminated",
		`nosuch(subject)`:            "at character 1: unknown name nosuch",
		`$env.json == nil`:           "unknown name $env",
		`__payload(1) == nil`:        "unknown name __payload",
		`let json = 1; json == 1`:    "at character 5: cannot redeclare json",
		`subject matches "("`:        "at character 9: error parsing regexp: missing closing ): `(`",
	} {
		_, err := Compile(src)
		if err == nil {
			t.Errorf("%s: compiled", src)
			continue
		}
		if _, ok := errors.AsType[*SyntaxError](err); !ok || err.Error() != want {
			t.Errorf("%s: %T %q, want %q", src, err, err, want)
		}
	}
}

// FuzzHolds: no message makes a condition panic or hang, and the same message is judged the same again.
func FuzzHolds(f *testing.F) {
	var conditions []*Condition
	for _, src := range []string{
		`subject startsWith "a" && json.total > 100 && header["Type"] == "new"`,
		`any(json.list, .n == size) or json.a?.b in ["x", 1, nil]`,
		`string(json) contains subject or toJSON(json) matches "[0-9]+$" or len(json) > 2`,
	} {
		c, err := Compile(src)
		if err != nil {
			f.Fatal(err)
		}
		conditions = append(conditions, c)
	}
	f.Add("a.b", "Type", "new", []byte(`{"total": 1e99, "list": [{"n": 1}, null]}`))
	f.Add("", "", "", []byte(`[[[[{}]]]]`))
	f.Add("x", "Type", "", []byte(`{"a": {"b": -0}}`))
	f.Fuzz(func(t *testing.T, subject, key, value string, data []byte) {
		for _, c := range conditions {
			header := map[string][]string{key: {value}}
			first, err1 := c.Holds(subject, header, &Document{Data: data})
			again, err2 := c.Holds(subject, header, &Document{Data: data})
			if first != again || (err1 == nil) != (err2 == nil) {
				t.Errorf("%v, %v; then %v, %v", first, err1, again, err2)
			}
		}
	})
}
