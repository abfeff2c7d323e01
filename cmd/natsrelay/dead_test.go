package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/natsrelay/natsrelay/sinks"
	"github.com/rs/zerolog"
)

// deadFixture is a configuration with the route "orders", whose dead letters have the ids 1 to n; odd ones have the subject orders.eu, even ones
// orders.us. It returns the configuration's path and the state directory.
func deadFixture(t *testing.T, n int) (file, state string) {
	t.Helper()
	file = writeConfig(t, "nats://127.0.0.1:4222", "http://127.0.0.1:8080")
	state = filepath.Join(filepath.Dir(file), "state")
	store := sinks.NewDeadLetterDisk(deadDir(state, "orders"), 1<<30, 0, zerolog.Nop())
	for i := 1; i <= n; i++ {
		m := &relay.Message{Subject: "orders." + []string{"us", "eu"}[i%2], ID: fmt.Sprint(i), Data: []byte("{}"), Time: time.Now(), Header: relay.Header{"K": {"v"}}}
		letter := &relay.DeadLetter{Message: m, Reason: relay.DeadRefused, Err: errors.New("status 422"), Code: 422, Attempts: 1, Route: "orders", Time: time.Now()}
		if _, err := store.Store(t.Context(), []*relay.DeadLetter{letter}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return file, state
}

// command runs natsrelay and returns what it printed to each of its outputs.
func command(t *testing.T, wantStatus int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	if status := run(t.Context(), args, &out, &err); status != wantStatus {
		t.Fatalf("%q: exit status %d, want %d\n%s", args, status, wantStatus, err.String())
	}
	return out.String(), err.String()
}

// idsIn returns the ids of what is in a spool, and fails if one of them still has the headers of a dead letter.
func idsIn(t *testing.T, dir string, dead bool) (ids []string) {
	t.Helper()
	err := spool.Walk(t.Context(), dir, 0, func(rec spool.Record) error {
		m, err := relay.DecodeRecord(rec)
		if err == nil && (m.Header.Get(relay.HeaderDeadReason) != "") != dead {
			t.Errorf("headers of message %s: %q", m.ID, m.Header)
		}
		ids = append(ids, m.ID)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestDeadListAndCat(t *testing.T) {
	file, _ := deadFixture(t, 3)
	out, _ := command(t, exitDone, "dead", "ls", "-c", file)
	if lines := strings.Split(out, "\n"); len(lines) != 3 || !strings.HasPrefix(lines[1], "orders  3 ") {
		t.Errorf("ls: %s", out)
	}
	out, _ = command(t, exitDone, "dead", "cat", "-c", file, "orders", "--subject", "*.us")
	for _, want := range []string{`"id":"2"`, `"Natsrelay-Reason":["refused"]`, `"Natsrelay-Status":["422"]`, `"Natsrelay-Attempts":["1"]`, `"Natsrelay-Error":["status 422"]`} {
		if !strings.Contains(out, want) || strings.Count(out, "\n") != 1 {
			t.Errorf("cat: no %s in %s", want, out)
		}
	}
}

// What is replayed is the message that it was, at the end of its route, and no dead letter any more.
func TestDeadReplay(t *testing.T) {
	file, state := deadFixture(t, 5)
	waiting := spoolDir(state, "orders")
	_, said := command(t, exitDone, "dead", "replay", "-c", file, "orders", "--subject", "orders.eu", "--limit", "2")
	if said != "2 messages replayed\n" {
		t.Errorf("it said %q", said)
	}
	if diff := cmp.Diff([]string{"1", "3"}, idsIn(t, waiting, false)); diff != "" {
		t.Errorf("waiting (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"2", "4", "5"}, idsIn(t, deadDir(state, "orders"), true)); diff != "" {
		t.Errorf("still dead (-want +got):\n%s", diff)
	}
	command(t, exitDone, "dead", "replay", "-c", file, "orders")
	if diff := cmp.Diff([]string{"1", "3", "2", "4", "5"}, idsIn(t, waiting, false)); diff != "" {
		t.Errorf("waiting (-want +got):\n%s", diff)
	}
	if ids := idsIn(t, deadDir(state, "orders"), true); len(ids) != 0 {
		t.Errorf("still dead: %q", ids)
	}
}

func TestDeadReplayRefuses(t *testing.T) {
	file, state := deadFixture(t, 1)
	if err := os.Rename(deadDir(state, "orders"), deadDir(state, "gone")); err != nil {
		t.Fatal(err)
	}
	if _, said := command(t, exitFailed, "dead", "replay", "-c", file, "gone"); !strings.Contains(said, `no route "gone" in the configuration`) {
		t.Errorf("it said %q", said)
	}
	if _, said := command(t, exitFailed, "dead", "replay", "-c", file, "orders"); !strings.Contains(said, `route "orders" has no dead letters in`) || !strings.Contains(said, "the routes that have: gone\n") {
		t.Errorf("it said %q", said)
	}
	lock, err := spool.LockDir(state)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, said := command(t, exitFailed, "dead", "replay", "-c", file, "gone"); !strings.Contains(said, "is in use by process ") {
		t.Errorf("it said %q", said)
	}
}

func TestDeadExportAndDrop(t *testing.T) {
	file, state := deadFixture(t, 3)
	export := filepath.Join(t.TempDir(), "dead.jsonl")
	command(t, exitDone, "dead", "export", "-c", file, "orders", export)
	if text, err := os.ReadFile(export); err != nil || bytes.Count(text, []byte("\n")) != 3 {
		t.Errorf("exported %s, error %v", text, err)
	}
	if _, said := command(t, exitUsage, "dead", "drop", "-c", file, "orders"); !strings.Contains(said, "natsrelay dead export orders FILE keeps them") {
		t.Errorf("it said %q", said)
	}
	if out, _ := command(t, exitDone, "dead", "drop", "-c", file, "orders", "--yes"); out != "3 messages deleted\n" {
		t.Errorf("it said %q", out)
	}
	if _, err := os.Stat(deadDir(state, "orders")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
}
