package spool

import (
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRealDiskFull fills a real file system of 1 MiB to the last byte. It needs the right to mount one.
func TestRealDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("mount a tmpfs: %v", err)
		}
		t.Skipf("mount a tmpfs: %v; run this test as root", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	o := Options{SegmentBytes: 100_000, SyncInterval: time.Hour, OnDamage: func(d Damage) { t.Errorf("%v", d) }}
	s := mustOpen(t, dir+"/q", o)
	var first, last uint64 = 1, 0
	fill := func() {
		t.Helper()
		for {
			n, err := s.Append(recRange(last+1, last+500))
			if last += uint64(n); err != nil {
				if !errors.Is(err, ErrLowSpace) || !errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
				return
			}
		}
	}
	check := func() {
		t.Helper()
		if got := readAll(t, s, 0); !slices.EqualFunc(got, recRange(first, last), equal) {
			t.Fatalf("%d records, want %d to %d", len(got), first, last)
		}
	}
	fill()
	check()
	for range 3 { // on the full disk
		d, err := s.DropOldest()
		if err != nil || d.First != first {
			t.Fatalf("%+v, %v", d, err)
		}
		first = d.Last + 1
		before := last
		if fill(); last == before {
			t.Fatal("dropping has made no room")
		}
		check()
	}
	s.Settle(seqs(recRange(first, last-10)))
	first = last - 9
	check()
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir+"/q", o)
	check()
}
