package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFailEachCall lets every single call to the file system fail once, each in three ways, under a fixed workload. After
// it nothing that the spool said was in is lost, the failure does not last, and what is synced survives a loss of power.
func TestFailEachCall(t *testing.T) {
	for _, mode := range []SyncMode{SyncEach, SyncInterval} {
		total := 0
		for at := 0; at <= total; at++ {
			for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS} {
				fs := newSimFS(crashDir)
				what := ""
				fs.fail = func(call int, op, name string) (int, error) {
					if call != at {
						return 0, nil
					}
					what = fmt.Sprintf("mode %d, call %d: %s %s: %v", mode, call, op, filepath.Base(name), errno)
					if op == "write" {
						return 30, errno
					}
					return 0, errno
				}
				failOnce(t, fs, mode, &what)
				if at == 0 {
					total = fs.calls
				}
				if t.Failed() {
					t.Fatal(what)
				}
			}
		}
		t.Logf("mode %d: each of %d calls failed", mode, total)
	}
}

func failOnce(t *testing.T, fs *simFS, mode SyncMode, what *string) {
	o := Options{FS: fs, MaxBytes: 1 << 20, SegmentBytes: 700, Sync: mode, SyncInterval: time.Hour}
	var lost []Damage
	o.OnDamage = func(d Damage) { lost = append(lost, d) }
	var s *Spool
	var last uint64
	live := map[uint64]Record{}
	reopen := func() {
		t.Helper()
		var err error
		if s, err = Open(crashDir, o); err != nil {
			if s, err = Open(crashDir, o); err != nil {
				t.Fatal(err)
			}
		}
	}
	reopen()
	for round := range 3 {
		for range 4 {
			recs := recRange(last+1, last+5)
			n, err := s.Append(recs)
			if err != nil && errors.Is(err, ErrFull) {
				t.Errorf("%v", err)
			}
			for _, r := range recs[:n] {
				live[r.Seq] = r
				last = r.Seq
			}
			if n == 5 {
				s.Settle([]uint64{last - 1, last - 3})
				delete(live, last-1)
				delete(live, last-3)
			}
		}
		if round == 1 {
			if d, err := s.DropOldest(); err == nil {
				for seq := d.First; seq <= d.Last; seq++ {
					delete(live, seq)
				}
			}
		}
		_ = s.Sync()
		var got []Record
		for from := uint64(0); ; {
			recs, err := s.Read(from, 100, nil)
			got = append(got, keep(recs)...)
			if err == nil && len(recs) == 0 {
				break
			}
			if len(recs) > 0 {
				from = recs[len(recs)-1].Seq + 1
			}
		}
		checkLive(t, got, live, lost)
		if round == 0 {
			_ = s.Close()
			reopen()
		}
	}
	// The disk is well again: one sync makes up for everything.
	if err := s.Sync(); err != nil {
		t.Errorf("sync after the failure: %v", err)
	}
	if st := s.Stats(); st.Err != nil {
		t.Errorf("the failure lasts: %v", st.Err)
	}
	crashed := fs.crashed(fs.rng)
	_ = s.Close()
	o.FS = crashed
	reopen()
	defer s.Close()
	checkLive(t, readAll(t, s, 0), live, lost)
	if s.LastSeq() < last {
		t.Errorf("LastSeq %d, was %d", s.LastSeq(), last)
	}
}

func checkLive(t *testing.T, got []Record, live map[uint64]Record, lost []Damage) {
	t.Helper()
	seen := map[uint64]bool{}
	var from uint64
	for _, r := range got {
		if r.Seq < from || !equal(r, rec(r.Seq)) {
			t.Errorf("record %d after %d: %q", r.Seq, from-1, r.Data)
		}
		from = r.Seq + 1
		seen[r.Seq] = true
		if _, ok := live[r.Seq]; !ok {
			t.Errorf("record %d was settled, dropped or refused", r.Seq)
		}
	}
	for seq := range live {
		if !seen[seq] {
			t.Errorf("record %d is lost; damage %v", seq, lost)
		}
	}
}

// A directory that is removed under the spool: what was open is written anew, the rest is reported, and it goes on.
func TestVanishedDirectory(t *testing.T) {
	for _, by := range []string{"sync", "append", "read"} {
		fs := newSimFS(crashDir)
		var damage []Damage
		s := mustOpen(t, crashDir, Options{FS: fs, SegmentBytes: 1000, SyncInterval: time.Hour, OnDamage: func(d Damage) { damage = append(damage, d) }})
		mustAppend(t, s, recRange(1, 50)...)
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		s.Settle([]uint64{2, 49})
		active := s.Stats()
		s.mu.Lock()
		kept := s.active.first
		s.mu.Unlock()
		fs.removeAll(crashDir)
		last := uint64(50)
		switch by {
		case "sync":
			mustAppend(t, s, rec(51))
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
			last = 51
		case "append":
			s.writer.budget = 0
			mustAppend(t, s, recRange(51, 90)...)
			last = 90
		}
		want := slices.DeleteFunc(recRange(kept, last), func(r Record) bool { return r.Seq == 49 })
		if got := readAll(t, s, 0); !slices.EqualFunc(got, want, equal) {
			t.Fatalf("%s: %v, want %v", by, seqs(got), seqs(want))
		}
		lost := 0
		for _, d := range damage {
			lost += d.Records
			if d.Cause != Missing {
				t.Errorf("%s: %v", by, d)
			}
		}
		if want := int(kept) - 2; lost != want || active.Records != 48 { // 1 to kept-1, but for 2
			t.Errorf("%s: %d lost, %d expected: %v", by, lost, want, damage)
		}
		mustAppend(t, s, rec(last+1))
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		s2 := mustOpen(t, crashDir, Options{FS: fs.crashed(fs.rng), SyncInterval: time.Hour})
		if got := readAll(t, s2, 0); !slices.EqualFunc(got, append(want, rec(last+1)), equal) {
			t.Fatalf("%s, after a crash: %v", by, seqs(got))
		}
	}
}

func TestVanishedSegment(t *testing.T) {
	dir := t.TempDir()
	var damage []Damage
	s := mustOpen(t, dir, Options{SegmentBytes: 1000, SyncInterval: time.Hour, OnDamage: func(d Damage) { damage = append(damage, d) }})
	mustAppend(t, s, recRange(1, 100)...)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	gone := *s.segs[2]
	s.mu.Unlock()
	if err := os.Remove(gone.path); err != nil {
		t.Fatal(err)
	}
	want := slices.DeleteFunc(recRange(1, 100), func(r Record) bool { return r.Seq >= gone.first && r.Seq <= gone.last() })
	wantRecords(t, readAll(t, s, 0), want)
	if len(damage) != 1 || damage[0].First != gone.first || damage[0].Last != gone.last() || damage[0].Cause != Missing {
		t.Errorf("%v", damage)
	}
}

// A region that the disk does not give back is an error at first, and damage after a few attempts.
func TestUnreadable(t *testing.T) {
	fs := newSimFS(crashDir)
	var damage []Damage
	s := mustOpen(t, crashDir, Options{FS: fs, SegmentBytes: 1 << 20, SyncInterval: time.Hour, OnDamage: func(d Damage) { damage = append(damage, d) }})
	mustAppend(t, s, recRange(1, 10_000)...)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	fs.badSector = 300_000
	var got []Record
	failures := 0
	for from := uint64(1); ; {
		recs, err := s.Read(from, 10_000, nil)
		got = append(got, keep(recs)...)
		if err != nil {
			if !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
			failures++
		} else if len(recs) == 0 {
			break
		}
		if len(recs) > 0 {
			from = recs[len(recs)-1].Seq + 1
		}
	}
	if failures != readTries || len(damage) != 1 || damage[0].Cause != Unreadable || !errors.Is(damage[0].Err, syscall.EIO) || damage[0].Bytes > 2*4096 {
		t.Errorf("%d failures, %v", failures, damage)
	}
	want := slices.DeleteFunc(recRange(1, 10_000), func(r Record) bool { return damage[0].First <= r.Seq && r.Seq <= damage[0].Last })
	if !slices.EqualFunc(got, want, equal) {
		t.Errorf("%d delivered, %d expected", len(got), len(want))
	}

	// Who looks at the files of a stopped relay gets all the rest, too.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fs.badSector = 200_000
	walked := 0
	if err := walk(t.Context(), crashDir, Options{FS: fs}, 0, func(Record) error { walked++; return nil }); err != nil {
		t.Error(err)
	}
	if walked < len(want)-300 || walked >= len(want) {
		t.Errorf("%d walked over, of %d", walked, len(want))
	}
}

// The segment that is being written cannot be opened for reading, and is given up: what is appended afterwards goes to another one.
func TestUnreadableWhileItIsWritten(t *testing.T) {
	fs := newSimFS(crashDir)
	var damage []Damage
	s := mustOpen(t, crashDir, Options{FS: fs, SyncInterval: time.Hour, OnDamage: func(d Damage) { damage = append(damage, d) }})
	mustAppend(t, s, recRange(1, 5)...)
	fs.fail = func(_ int, op, name string) (int, error) {
		if op == "open" && filepath.Base(name) == segmentName(1) {
			return 0, syscall.EIO
		}
		return 0, nil
	}
	for range readTries - 1 {
		if _, err := s.Read(1, 1000, nil); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
	}
	if got := readAll(t, s, 1); len(got) > 0 || len(damage) != 1 || damage[0].Cause != Unreadable || damage[0].Records != 5 || fs.names[damage[0].Aside] == nil {
		t.Fatalf("%v, %v", seqs(got), damage)
	}
	mustAppend(t, s, recRange(6, 10)...)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, readAll(t, s, 1), recRange(6, 10))
	if st := s.Stats(); st.Corrupt != 5 || st.Segments != 1 {
		t.Errorf("%+v", st)
	}
}

// After a failed fsync the old file is never fsynced again, and what it held is durable in another one.
func TestFailedSync(t *testing.T) {
	fs := newSimFS(crashDir)
	s := mustOpen(t, crashDir, Options{FS: fs, SyncInterval: time.Hour})
	mustAppend(t, s, recRange(1, 10)...)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, recRange(11, 20)...)
	failed := ""
	fs.fail = func(_ int, op, name string) (int, error) {
		if op != "sync" || !strings.Contains(name, suffix) {
			return 0, nil
		}
		if name == failed {
			t.Errorf("%s is fsynced again", name)
		}
		if failed == "" {
			failed = name
			return 0, syscall.EIO
		}
		return 0, nil
	}
	if err := s.Sync(); err != nil {
		t.Fatalf("the records are elsewhere, this should have been well: %v", err)
	}
	for range 20 {
		s2 := mustOpen(t, crashDir, Options{FS: fs.crashed(fs.rng), SyncInterval: time.Hour})
		wantRecords(t, readAll(t, s2, 0), recRange(1, 20))
	}
	mustAppend(t, s, recRange(21, 25)...)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		s2 := mustOpen(t, crashDir, Options{FS: fs.crashed(fs.rng), SyncInterval: time.Hour})
		wantRecords(t, readAll(t, s2, 0), recRange(1, 25))
	}
}

// While no fsync succeeds, one file is spoilt, not one more with each attempt; an attempt costs the same however long it lasts, and however much
// there is to be fsynced. Afterwards one is enough.
func TestSyncFailsForLong(t *testing.T) {
	for _, segmentBytes := range []int64{1 << 20, 600} {
		fs := newSimFS(crashDir)
		s := mustOpen(t, crashDir, Options{FS: fs, SegmentBytes: segmentBytes, SyncInterval: time.Hour})
		mustAppend(t, s, recRange(1, 10)...)
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		mustAppend(t, s, recRange(11, 50)...)
		segments := map[string]int{} // attempts to fsync them
		fs.fail = func(_ int, op, name string) (int, error) {
			if op != "sync" || !strings.Contains(name, suffix) {
				return 0, nil
			}
			if strings.HasSuffix(name, suffix) {
				segments[name]++
			}
			return 0, syscall.EIO
		}
		const attempts = 50
		most := 0
		for i := range uint64(attempts) {
			mustAppend(t, s, rec(51+i))
			before := fs.calls
			if err := s.Sync(); !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
			most = max(most, fs.calls-before)
		}
		if most > 20 {
			t.Errorf("%d calls in one attempt", most)
		}
		for name, n := range segments {
			if n > 1 || len(segments) > 1 {
				t.Errorf("%s is fsynced %d times", name, n)
			}
		}
		if st := s.Stats(); segmentBytes > 600 && st.Segments != 2 || fs.open > st.Segments+2 { // the cursor, and the reader
			t.Errorf("%d open files, %+v", fs.open, st)
		}
		all := recRange(1, 50+attempts)
		reopen := func(disk *simFS) []Record {
			return readAll(t, mustOpen(t, crashDir, Options{FS: disk, SyncInterval: time.Hour}), 0)
		}
		wantRecords(t, reopen(fs.killed()), all)
		for range 20 {
			if got := reopen(fs.crashed(fs.rng)); len(got) < 10 || !slices.EqualFunc(got[:10], all[:10], equal) {
				t.Fatalf("after a crash: %v", seqs(got))
			}
		}
		fs.fail = nil
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			wantRecords(t, reopen(fs.crashed(fs.rng)), all)
		}
		wantRecords(t, readAll(t, s, 0), all)
	}
}
