package main

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

const onlineConfig = `
[nats.edge]
urls = [%q]
[nats.cloud]
urls = [%q]
[nats.away]
urls = ["nats://127.0.0.1:%d"]
reconnect = { min = "10ms", max = "50ms" }

[route.good]
source = { type = "core", nats = "edge", subjects = ["orders.>"] }
sink   = { type = "nats", nats = "cloud", mode = "jetstream", stream = "ORDERS" }
[route.new]
source = { type = "core", nats = "edge", subjects = ["new.>"] }
sink   = { type = "nats", nats = "cloud", mode = "jetstream", stream = "NEW", create_stream = { subjects = ["new.>"] } }
[route.web]
source = { type = "core", nats = "edge", subjects = ["orders.>"] }
sink   = { type = "http", url = %q }
[route.off]
enabled = false
source = { type = "core", nats = "away", subjects = ["x"] }
sink   = { type = "http", url = "http://127.0.0.1:9" }
`

const onlineTroubles = `
[route.bad1]
source = { type = "core", nats = "away", subjects = ["x"] }
sink   = { type = "http", url = "http://127.0.0.1:%d" }
[route.bad2]
source = { type = "jetstream", nats = "cloud", stream = "NONE" }
sink   = { type = "nats", nats = "edge", mode = "jetstream", stream = "ORDERS" }
[route.bad3]
source = { type = "core", nats = "edge", subjects = ["orders.>", "else.*"] }
sink   = { type = "nats", nats = "cloud", mode = "jetstream", stream = "ORDERS" }
`

func TestCheckOnline(t *testing.T) {
	edge, cloud := natstest.Start(t, "", nil), natstest.Start(t, natstest.JetStream(t)+"\nmax_payload: 100000", nil)
	js, err := jetstream.New(cloud.Client())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(nil)
	defer web.Close()
	nobody := natstest.FreePort(t)
	file := filepath.Join(t.TempDir(), "relay.toml")
	check := func(config string, args ...any) (status int, said string) {
		t.Helper()
		if err := os.WriteFile(file, fmt.Appendf(nil, config, args...), 0o600); err != nil {
			t.Fatal(err)
		}
		var out, stderr bytes.Buffer
		status = run(t.Context(), []string{"check", "--online", "-c", file}, &out, &stderr)
		return status, out.String() + stderr.String()
	}
	expect := func(said string, lines ...string) {
		t.Helper()
		for _, want := range lines {
			if !strings.Contains(said, want) {
				t.Errorf("it does not say %q:\n%s", want, said)
			}
		}
	}
	args := []any{edge.URL(), cloud.URL(), nobody, web.URL}
	status, said := check(onlineConfig, args...)
	if status != exitDone {
		t.Errorf("exit status %d", status)
	}
	expect(said, "good: source: nats \"edge\": connected to ", "max_payload 1048576\n", "max_payload 100000\n",
		"good: sink: warning: its server takes payloads of 100000 bytes, the source's 1048576",
		"new: sink: the stream does not exist; it will be created\n",
		"web: sink: "+web.URL+": somebody listens there\n", "relay.toml: ok, 4 routes")
	if strings.Contains(said, "FAILS") || strings.Contains(said, "off: ") {
		t.Errorf("it says\n%s", said)
	}
	if _, err := js.Stream(t.Context(), "NEW"); err == nil {
		t.Error("it created a stream")
	}

	status, said = check(onlineConfig+onlineTroubles, append(args, nobody)...)
	if status != exitFailed {
		t.Errorf("exit status %d", status)
	}
	expect(said, `bad1: source: FAILS: nats "away": not connected: dial tcp`, "connection refused", fmt.Sprintf("bad1: sink: FAILS: http://127.0.0.1:%d: dial tcp", nobody),
		`bad2: source: FAILS: stream "NONE" does not exist: create it`, `bad2: sink: FAILS: stream "ORDERS": JetStream does not answer; is it enabled`,
		`bad3: sink: FAILS: blocked: stream "ORDERS": it does not take all of "else.*"; its subjects are ["orders.>"]`, "5 problems that would keep routes from working")
}
