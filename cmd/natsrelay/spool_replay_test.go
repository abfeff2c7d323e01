package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/natsrelay/natsrelay/relay/spool"
)

// What is replayed into a stopped relay's spool stays within what the route may have on disk: else the relay would give up the oldest messages
// for it when it starts.
func TestSpoolReplayLeavesRoom(t *testing.T) {
	file := writeConfig(t, "nats://127.0.0.1:4222", "http://127.0.0.1:8080")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, "buffer = { disk = \"16MiB\", min_free = 0 }\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	const n = 200
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, `{"id":"%d","subject":"orders.1","time":"2026-11-01T12:00:00Z","data":%q}`+"\n", i, strings.Repeat("x", 100_000))
	}
	export := filepath.Join(t.TempDir(), "orders.jsonl")
	if err := os.WriteFile(export, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	_, said := command(t, exitFailed, "spool", "replay", "-c", file, "orders", export)
	report, err := spool.Inspect(spoolDir(filepath.Join(filepath.Dir(file), "state"), "orders"))
	if err != nil {
		t.Fatal(err)
	}
	if st := report.Stats; st.Records < n/2 || st.FileBytes > 15<<20 || !strings.Contains(said, fmt.Sprintf("after %d messages of %d were written: ", st.Records, n)) {
		t.Errorf("%d messages in %d bytes, and it said %q", st.Records, st.FileBytes, said)
	}
}
