package spool

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestInspect(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "q")
	s := mustOpen(t, dir, Options{SegmentBytes: 3000})
	mustAppend(t, s, recRange(1, 200)...)
	s.Settle([]uint64{1, 2, 3, 100})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want := append(recRange(4, 99), recRange(101, 200)...)
	before := snapshot(t, dir)
	r, err := Inspect(dir)
	if err != nil || r.Records != len(want) || len(r.Files) != r.Segments || r.Segments < 3 || len(r.Damage) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err = Verify(ctx, dir, nil); err != nil || len(r.Damage) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	walk := func() (got []Record) {
		t.Helper()
		if err := Walk(ctx, dir, 0, func(r Record) error { got = append(got, keep([]Record{r})...); return nil }); err != nil {
			t.Fatal(err)
		}
		return got
	}
	wantRecords(t, walk(), want)
	if d := cmp.Diff(before, snapshot(t, dir)); d != "" {
		t.Fatalf("looking changed something: %s", d)
	}

	// Record 5 is damaged, and 2, which is settled.
	path := filepath.Join(dir, segmentName(1))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var off int64 = framesStart
	for seq := uint64(1); seq < 5; seq++ {
		if seq == 2 {
			b[off+30] ^= 4
		}
		off += int64(frameHeader + len(rec(seq).Data))
	}
	b[off+30] ^= 4
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	want = append(recRange(4, 4), append(recRange(6, 99), recRange(101, 200)...)...)
	var done, total int64
	r, err = Verify(ctx, dir, func(d, n int64) { done, total = d, n })
	if err != nil || len(r.Damage) != 2 || r.Damage[0].Records != 0 || r.Damage[1].Records != 1 || r.Damage[1].First != 5 {
		t.Fatalf("%+v, %v", r.Damage, err)
	}
	if done != total || total < 10_000 {
		t.Errorf("progress %d of %d", done, total)
	}
	wantRecords(t, walk(), want)
	r, err = Repair(ctx, dir, nil)
	if err != nil || r.Records != len(want) || len(r.Damage) == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err = Verify(ctx, dir, nil); err != nil || len(r.Damage) != 0 {
		t.Fatalf("after the repair: %+v, %v", r.Damage, err)
	}
	wantRecords(t, walk(), want)
	s = mustOpen(t, dir, Options{})
	wantRecords(t, readAll(t, s, 0), want)
	mustAppend(t, s, rec(201))
	s.Close()

	if err := os.WriteFile(filepath.Join(dir, "notes"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	if left := snapshot(t, dir); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	if _, err := Inspect(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("a spool that is not there: %v", err)
	}
}

// A relay that runs may be looked at.
func TestInspectRunning(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{SegmentBytes: 3000})
	mustAppend(t, s, recRange(1, 200)...)
	r, err := Inspect(dir)
	if err != nil || r.Records != 200 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// What the process was writing when it was killed is no record yet. Looking leaves it to the next start to clean up.
func TestInspectLeavesATornSegment(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	mustAppend(t, s, rec(1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, segmentName(1)), framesStart+frameHeader+3); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, cursorName)); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	if _, err := Inspect(dir); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, snapshot(t, dir)); d != "" {
		t.Errorf("looking changed something: %s", d)
	}
}
