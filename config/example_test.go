package config

import (
	"iter"
	"regexp"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"github.com/natsrelay/natsrelay"
)

// schemaPaths returns the full key of everything that this version supports, and whether it is a table.
// NAME stands for names of the user's choice.
func schemaPaths() iter.Seq2[string, bool] {
	return func(yield func(string, bool) bool) {
		root := new(binder).schema(new(Config))
		walk(root, "", yield)
	}
}

func walk(t table, prefix string, yield func(string, bool) bool) bool {
	for _, k := range t.keys {
		path := prefix + k.name
		switch {
		case k.read == nil:
			continue
		case k.inside != nil && !walk(k.inside(), path+".", yield):
			return false
		case k.each != nil && !walk(k.each("NAME"), path+".NAME.", yield):
			return false
		}
		if !yield(path, k.inside != nil || k.each != nil) {
			return false
		}
	}
	return true
}

var (
	commentedDefault = regexp.MustCompile(`^( *)#([a-z0-9_]+ *= .*)$`)
	commentedExample = regexp.MustCompile(`^( *)# ( *(?:[a-z0-9_]+ *= .*|\[.*\].*))$`)
)

// TestExampleRuns: relay.toml is right as it stands, and everything it leaves out in favour of a default is that default.
func TestExampleRuns(t *testing.T) {
	example := string(natsrelay.ExampleConfig)
	want := mustParse(t, example)
	if len(want.Routes) != 1 || want.Routes[0].Name != "orders" {
		t.Fatalf("routes: %+v", want.Routes)
	}
	lines := strings.Split(example, "\n")
	defaults := 0
	for i, line := range lines {
		m := commentedDefault.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		defaults++
		lines[i] = m[1] + m[2]
		if d := diff(want, mustParse(t, strings.Join(lines, "\n"))); d != "" {
			t.Errorf("line %d is not the default: %s\n%s", i+1, line, d)
		}
		lines[i] = line
	}
	if defaults < 20 {
		t.Errorf("relay.toml shows only %d defaults", defaults)
	}
}

// TestExampleIsComplete: relay.toml shows every key that is supported, in a comment at least, and none that is not.
func TestExampleIsComplete(t *testing.T) {
	var all []string
	for line := range strings.Lines(string(natsrelay.ExampleConfig)) {
		line = strings.TrimSuffix(line, "\n")
		line = commentedDefault.ReplaceAllString(line, "$1$2")
		line = commentedExample.ReplaceAllString(line, "$1$2")
		all = append(all, line)
	}
	src := strings.Join(all, "\n")

	var raw map[string]any
	if _, err := toml.Decode(src, &raw); err != nil {
		t.Fatalf("with all comments removed: %v", err)
	}
	for path := range schemaPaths() {
		if !hasPath(raw, strings.Split(path, ".")) {
			t.Errorf("relay.toml does not mention %s", path)
		}
	}
	_, err := Parse("relay.toml", []byte(src), testMachine().env())
	for line := range strings.Lines(err.Error()) { // the ways to log in are all in there, so there are errors
		if strings.Contains(line, "unknown key") || strings.Contains(line, "not supported") || strings.Contains(line, "must be") {
			t.Error(line)
		}
	}
}

// hasPath reports whether the table has the path, in which NAME is any key.
func hasPath(in any, path []string) bool {
	if len(path) == 0 {
		return true
	}
	table, _ := in.(map[string]any)
	for name, below := range table {
		if (name == path[0] || path[0] == "NAME") && hasPath(below, path[1:]) {
			return true
		}
	}
	return false
}
