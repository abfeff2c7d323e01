package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// The help of every command ends in an example, and its lines fit a terminal: descriptions and flags 80 columns, what one copies 100.
func TestHelpFits(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		var out bytes.Buffer
		cmd.SetOut(&out)
		help(cmd, nil)
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(line); n > 100 {
				t.Errorf("%s --help: %d columns: %s", cmd.CommandPath(), n, line)
			}
		}
		if !strings.Contains(out.String(), "\nExample:\n    $ natsrelay ") && !strings.Contains(out.String(), "\nExample:\n    $ source ") {
			t.Errorf("%s --help has no example", cmd.CommandPath())
		}
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(newRoot(func() {}))
}

func TestWrap(t *testing.T) {
	got := wrap("One two\nthree é four.\n\n    a table   as it is\n    with lines\n\nLast", 10)
	if diff := cmp.Diff("One two\nthree é\nfour.\n\n    a table   as it is\n    with lines\n\nLast", got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
