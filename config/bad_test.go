package config

import (
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what Parse says into testdata/bad.txtar; read the difference before you commit it")

// TestBad checks the whole error text of wrong files. The archive has them in pairs: a file under the name of the case, then "want".
func TestBad(t *testing.T) {
	const name = "testdata/bad.txtar"
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for pair := range slices.Chunk(archive.Files, 2) {
		if len(pair) != 2 || pair[1].Name != "want" {
			t.Fatalf("%s: %q has no want", name, pair[0].Name)
		}
		t.Run(pair[0].Name, func(t *testing.T) {
			c, err := Parse("relay.toml", pair[0].Data, testMachine().env())
			if err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			if _, ok := errors.AsType[Errors](err); !ok {
				t.Errorf("error is a %T, want Errors", err)
			}
			got := err.Error() + "\n"
			if *update {
				pair[1].Data = []byte(got)
				return
			}
			if d := diff(string(pair[1].Data), got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			// What is expanded, and what stands where only secrets do, is hunter2 in all files.
			if strings.Contains(strings.ToLower(got), "hunter2") || strings.Contains(got, "hunt%er2") {
				t.Errorf("shows a secret: %s", got)
			}
		})
	}
	if *update {
		if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
