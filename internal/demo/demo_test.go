package demo

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestRelayThatDies plays with a program that is no relay. The whole demo, with the real one, is played by
// the tests of cmd/natsrelay.
func TestRelayThatDies(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	exe, err := exec.LookPath("false")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = Run(t.Context(), Options{Duration: 2 * time.Second, Outage: time.Second, Rate: 100, Exe: exe, Out: &out})
	if err == nil || !strings.Contains(err.Error(), "the relay ended by itself: exit status 1") {
		t.Errorf("got %v", err)
	}
	nothingLeft(t)
}

func TestInterrupted(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	exe, err := exec.LookPath("sleep") // it does not like its arguments, but by then the demo is over
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = Run(ctx, Options{Duration: 2 * time.Second, Outage: time.Second, Rate: 100, Exe: exe, Out: new(bytes.Buffer)})
	if err == nil {
		t.Error("it has not noticed")
	}
	nothingLeft(t)
}

func nothingLeft(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left behind: %s", e.Name())
	}
}

func TestOptionsCheck(t *testing.T) {
	good := Options{Duration: 2 * time.Second, Outage: time.Second, Rate: 1}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, o := range map[string]Options{
		"short outage":   {Duration: time.Minute, Outage: time.Millisecond, Rate: 1},
		"short duration": {Duration: time.Second, Outage: time.Second, Rate: 1},
		"no rate":        {Duration: 2 * time.Second, Outage: time.Second},
		"huge rate":      {Duration: 2 * time.Second, Outage: time.Second, Rate: 1e6},
	} {
		if o.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
