package config

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/natsrelay/natsrelay"
)

// FuzzParse: no input panics the loader, every problem lies inside the file, and every key that package toml
// finds is found by locate as well, at a place that can be its own.
func FuzzParse(f *testing.F) {
	f.Add(string(natsrelay.ExampleConfig))
	f.Add(minimal)
	archive, err := txtar.ParseFile("testdata/bad.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for pair := range slices.Chunk(archive.Files, 2) {
		f.Add(string(pair[0].Data))
	}
	env := testMachine().env()
	f.Fuzz(func(t *testing.T, src string) {
		c, err := Parse("relay.toml", []byte(src), env)
		if err == nil {
			if len(c.Routes) == 0 {
				t.Error("accepted without a route")
			}
			return
		}
		problems, ok := errors.AsType[Errors](err)
		if !ok || len(problems) == 0 {
			t.Fatalf("error is %#v", err)
		}
		src = strings.TrimPrefix(src, "\ufeff")
		lines := strings.Split(src, "\n")
		for _, p := range problems {
			if p.Line < 1 || p.Line > len(lines) || p.Col < 1 || p.Col > utf8.RuneCountInString(lines[p.Line-1])+1 {
				t.Errorf("outside the file: %s", p)
			}
			if p.Msg == "" || strings.ContainsAny(p.String(), "\n\r\x1b") {
				t.Errorf("not one line of text: %q", p.String())
			}
		}
		var raw map[string]any
		if _, err := toml.Decode(src, &raw); err == nil {
			checkPlaces(t, src, value{at: locate(src), raw: raw})
		}
	})
}

// checkPlaces checks that all below v has a place of its own, and that the name of each key stands there.
func checkPlaces(t *testing.T, src string, v value) {
	for name := range v.table() {
		below, _ := v.get(name)
		if below.at == v.at {
			t.Errorf("no place for %s", below.key)
			continue
		}
		if at := src[below.at.off:]; !strings.HasPrefix(at, name) && !strings.HasPrefix(at, `"`) && !strings.HasPrefix(at, "'") {
			t.Errorf("%s is said to be at %s", below.key, strconv.Quote(at[:min(20, len(at))]))
		}
		checkPlaces(t, src, below)
	}
	switch array := v.raw.(type) {
	case []any:
		for i, e := range array {
			checkElem(t, src, v, i, e)
		}
	case []map[string]any:
		for i, e := range array {
			checkElem(t, src, v, i, e)
		}
	}
}

func checkElem(t *testing.T, src string, v value, i int, raw any) {
	at := v.at.elem(i)
	if at == v.at {
		t.Errorf("no place for %s[%d]", v.key, i)
		return
	}
	checkPlaces(t, src, value{key: v.key + "[" + strconv.Itoa(i) + "]", at: at, raw: raw})
}
