package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/natsrelay/natsrelay/config"
)

// fakeRelay is a relay's admin server as far as status and spool ls go, and returns its address.
func fakeRelay(t *testing.T, stateDir string) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"pid": 1, "instance": "there", "ready": true, "state_dir": %q}`, stateDir)
	})
	mux.HandleFunc("GET /api/v1/spool", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"route": "orders", "runs": true, "messages": 7, "damage": "none"}]`)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).String()
}

// Whoever has broken the configuration, or cannot read the secrets that it names, can still ask the relay that runs with it.
func TestRelayIsAskedWhateverElseIsWrong(t *testing.T) {
	for name, wrong := range map[string]string{
		"broken":        "tiemout = 5\n",
		"not permitted": "[nats.other]\nurls = [\"nats://127.0.0.1:4222\"]\nnkey_seed = \"${cred:not-here}\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			file := writeConfig(t, "nats://127.0.0.1:4222", "http://127.0.0.1:8080")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, append(text, wrong...), 0o600); err != nil {
				t.Fatal(err)
			}
			withAddress(t, file, fakeRelay(t, "/elsewhere"))
			command(t, exitConfig, "check", "-c", file)
			if out, _ := command(t, exitDone, "status", "-c", file); !strings.HasPrefix(out, "there: ready") {
				t.Errorf("status says %q", out)
			}
			if out, _ := command(t, exitDone, "spool", "ls", "-c", file); !strings.Contains(out, "orders") {
				t.Errorf("spool ls says %q", out)
			}
		})
	}
}

func TestRelayCannotBeAskedIfAdminIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relay.toml")
	text := "tiemout = 5\n[admin]\nlisten = \"here\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, said := command(t, exitConfig, "status", "-c", file)
	if want := file + ":3:1: admin.listen: "; !strings.HasPrefix(said, want) || strings.Contains(said, "tiemout") || !strings.Contains(said, "hint: --addr ADDRESS") {
		t.Errorf("it said %q, want what is wrong with [admin] and --addr", said)
	}
}

// A relay that systemd has started has a state directory that the configuration does not name. What is here in its stead, if anything, is not that.
func TestSpoolAsksTheRelayOfAService(t *testing.T) {
	file := writeConfig(t, "nats://127.0.0.1:4222", "http://127.0.0.1:8080")
	addr := fakeRelay(t, "/var/lib/elsewhere")
	withAddress(t, file, addr)
	if _, said := command(t, exitFailed, "spool", "ls", "-c", file); !strings.Contains(said, "state directory: ") {
		t.Errorf("a relay with another state directory: %s", said)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n") // without its state_dir
	if err := os.WriteFile(file, []byte(rest), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	t.Setenv("STATE_DIRECTORY", "")
	if out, _ := command(t, exitDone, "spool", "ls", "-c", file); !strings.Contains(out, "orders") {
		t.Errorf("spool ls says %q", out)
	}
	// No messages are put where no relay will look for them.
	if err := os.WriteFile("empty.jsonl", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, exitFailed, "spool", "replay", "orders", "empty.jsonl", "-c", file)
	if _, err := os.Stat(config.DefaultStateDir); err == nil {
		t.Error("a state directory was made")
	}
	if err := os.WriteFile(file, []byte(strings.Replace(rest, addr, "127.0.0.1:1", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, said := command(t, exitFailed, "spool", "ls", "-c", file); !strings.Contains(said, "--state-dir /var/lib/natsrelay") {
		t.Errorf("no relay runs: %s", said)
	}
}
