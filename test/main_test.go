package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

// built is the program under test. It is built once, by the first test that needs it: linking it takes seconds.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// relayBinary returns the path of the program under test.
func relayBinary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "natsrelay-test"); built.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", filepath.Join(built.dir, "natsrelay"), "../cmd/natsrelay").CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("build natsrelay: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "natsrelay")
}

func TestMain(m *testing.M) {
	natstest.Main(m)
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
}

// writeConfig writes a relay.toml and returns its path. It has no admin server unless the text has the table. format is completed as by fmt.Sprintf.
func writeConfig(t *testing.T, dir, format string, args ...any) string {
	t.Helper()
	path := filepath.Join(dir, "relay.toml")
	text := fmt.Sprintf(format, args...)
	if !strings.Contains(text, "[admin]") {
		text += "\n[admin]\nlisten = \"\"\n" // tests run side by side
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
