package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

// relayBinary is the program under test; natstest.Main leaves with os.Exit, so that it is built where the operating system cleans up.
func relayBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "natsrelay")
	build := exec.Command("go", "build", "-o", path, "../cmd/natsrelay")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build natsrelay: %v\n%s", err, out)
	}
	return path
}

func TestMain(m *testing.M) { natstest.Main(m) }

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
