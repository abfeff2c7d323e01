package config

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// Load reads the file at path and what it refers to. The error is [Errors] if the file could be read but is wrong;
// otherwise it wraps the error of reading it, so that a caller with several paths can tell that there is no such file.
func Load(path string, env Env) (*Config, error) {
	data, err := env.read(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, env)
}

// LoadAdmin reads nothing but the [admin] table of the file at path, for those who want to ask the relay that runs with it: it works while the rest
// of the file is wrong, or names secrets that only the relay can read. The error is as Load's.
func LoadAdmin(path string, env Env) (Admin, error) {
	var a Admin
	data, err := env.read(path)
	if err != nil {
		return a, fmt.Errorf("read configuration: %w", err)
	}
	b, root, err := decode(path, data, env)
	if err != nil {
		return a, err
	}
	t := adminTable(&a)
	if at, ok := root.get("admin"); ok {
		b.table(at, t)
	}
	return a, b.found()
}

// Parse turns the text of a configuration into a Config with all defaults filled in. The name is for errors only.
// The error is always [Errors] and holds every problem, not only the first.
func Parse(name string, data []byte, env Env) (*Config, error) {
	b, root, err := decode(name, data, env)
	if err != nil {
		return nil, err
	}
	connections, _ := root.get("nats")
	b.connections = slices.Sorted(maps.Keys(connections.table()))

	c := new(Config)
	b.table(root, b.schema(c))
	if err := b.found(); err != nil {
		return nil, err
	}
	return c, nil
}

// decode turns the text of a configuration into what is in it, and a binder for that.
func decode(name string, data []byte, env Env) (*binder, value, error) {
	// An editor on Windows may have put a byte order mark in front. Package toml skips it; positions do not count it.
	src := strings.TrimPrefix(string(data), "\ufeff")
	b := &binder{file: name, src: src, env: env}
	var raw map[string]any
	if _, err := toml.Decode(src, &raw); err != nil {
		return nil, value{}, b.syntaxError(err)
	}
	return b, value{at: locate(src), raw: raw}, nil
}

// found returns the problems, in order, as an error; nil if there are none.
func (b *binder) found() error {
	if len(b.problems) == 0 {
		return nil
	}
	b.problems.sort()
	return b.problems
}

// syntaxError turns the one error that package toml stops at into a problem.
func (b *binder) syntaxError(err error) Errors {
	pe, ok := errors.AsType[toml.ParseError](err)
	if !ok {
		return Errors{{File: b.file, Line: 1, Col: 1, Msg: "is not TOML"}}
	}
	line, col := position(b.src, pe.Position.Start)
	p := Problem{File: b.file, Line: line, Col: col, Msg: withoutText(pe.Message)}
	if m := definedTwice.FindStringSubmatch(pe.Message); m != nil {
		p.Key, p.Msg = m[1], "is in the file already"
	}
	return Errors{p}
}

// The messages of package toml that name a key, and those parts of the others that show a piece of the file.
var (
	definedTwice = regexp.MustCompile(`(?s)^Key '(.*)' (?:has|was) already`)
	whatItFound  = regexp.MustCompile(`(?s),? but (?:got|found) .*`)
	quotedText   = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*"|'[^']*'`)
	outOfRange   = regexp.MustCompile(`^\S+ is out of`)
)

// withoutText removes the pieces of the file that package toml quotes: one may be a password whose quotes were forgotten.
func withoutText(msg string) string {
	msg = whatItFound.ReplaceAllString(msg, "")
	msg = quotedText.ReplaceAllStringFunc(msg, func(quoted string) string {
		if utf8.RuneCountInString(quoted) > len(`'x'`) {
			return "…"
		}
		return quoted
	})
	msg = outOfRange.ReplaceAllString(msg, "number is out of")
	switch {
	case msg == "expected value":
		return "expected a value; text and durations need quotes around them"
	case strings.HasPrefix(msg, "expected a top-level item to end"):
		return "expected the line to end here; text and durations need quotes around them"
	}
	return msg
}
