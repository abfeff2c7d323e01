package main

import (
	"strings"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
)

// The oldest message that is listed is one that is still there, not the first of its segment, which may be long gone.
func TestSpoolListsTheOldestThatWaits(t *testing.T) {
	state := t.TempDir()
	s, err := spool.Open(spoolDir(state, "web"), spool.Options{MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for seq := range uint64(3) {
		m := relay.Stored{Message: relay.Message{ID: "id", Subject: "test", Time: began.Add(time.Duration(seq) * time.Hour)}, Seq: seq + 1}
		if _, err := s.Append([]spool.Record{m.EncodeRecord()}); err != nil {
			t.Fatal(err)
		}
	}
	s.Settle([]uint64{1})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out, _ := command(t, exitDone, "spool", "ls", "--state-dir", state); !strings.Contains(out, "2026-11-01T13:00:00Z  2026-11-01T14:00:00Z") {
		t.Errorf("it lists\n%s", out)
	}
}
