package sources

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

func TestMark(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "down")
	log := natstest.NewLog(t)
	m, err := openMark(dir, log.Logger)
	if err != nil {
		t.Fatal(err)
	}
	if m.now != (position{}) {
		t.Errorf("%+v out of nothing", m.now)
	}
	want := position{Stream: "S", Created: time.Unix(1, 2).UTC(), Consumer: time.Unix(3, 4).UTC(), Next: 5,
		Last: 7, Newest: time.Unix(5, 6).UTC(), Reused: time.Unix(5, 6).UTC(), Shared: time.Unix(7, 8).UTC()}
	m.now = want
	m.save()
	for range 2 { // the second time without a change
		if m, err = openMark(dir, log.Logger); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, m.now); diff != "" {
			t.Error(diff)
		}
		m.save()
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("%d files", len(files))
	}
}

// A file that is cut, or has a byte changed, is set aside, and the source starts without it.
func TestMarkSetsADamagedFileAside(t *testing.T) {
	dir := t.TempDir()
	log := natstest.NewLog(t)
	m, err := openMark(dir, log.Logger)
	if err != nil {
		t.Fatal(err)
	}
	m.now = position{Stream: "S", Created: time.Unix(1, 2).UTC(), Next: 5}
	m.save()
	path := filepath.Join(dir, markFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var damaged [][]byte
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 4
		damaged = append(damaged, whole[:i], flipped)
	}
	for i, data := range damaged {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := openMark(dir, log.Logger)
		if err != nil || m.now != (position{}) {
			t.Fatalf("%q: %v, %+v", data, err, m.now)
		}
		if kept, _ := filepath.Glob(path + ".damaged-*"); len(kept) != i+1 {
			t.Fatalf("%d files set aside, want %d", len(kept), i+1)
		}
	}
}
