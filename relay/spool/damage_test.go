package spool

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// small makes a spool of a few segments in a simulated file system, and returns what is unsettled in it. closed: or else
// the process is killed, and the last segment has no footer.
func small(t *testing.T, c Compression, closed bool) (*simFS, []Record) {
	t.Helper()
	fs := newSimFS(crashDir)
	s := mustOpen(t, crashDir, Options{FS: fs, SegmentBytes: 500, Sync: SyncEach, SyncInterval: time.Hour, Compression: c})
	for seq := uint64(1); seq <= 20; seq += 4 {
		mustAppend(t, s, recRange(seq, seq+3)...)
	}
	mustAppend(t, s, recRange(30, 34)...)
	s.Settle([]uint64{1, 2, 5, 31})
	left := readAll(t, s, 0)
	if closed {
		_ = s.Close()
	}
	killed := fs.killed()
	_ = s.Close()
	return killed, left
}

// frameOf says which records have bytes at an offset of a segment file, or after it if cut.
func lostBy(t *testing.T, fs *simFS, name string, off int64, cut bool) map[uint64]bool {
	t.Helper()
	first, _ := parseName(filepath.Base(name))
	sg := &segment{path: name, first: first}
	f, err := fs.OpenFile(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := sg.open(f); err != nil {
		t.Fatal(err)
	}
	lost := map[uint64]bool{}
	sc := newScanner(f, sg.salt, framesStart, sg.end)
	for {
		if sc.scan() != nil {
			return lost
		}
		fr := &sc.fr
		if end := fr.off + fr.size(); off < end && (cut || off >= fr.off) {
			for i := range fr.count {
				lost[first+uint64(fr.ordinal+i)] = true
			}
		}
	}
}

// TestDamage flips a bit in every byte of a small spool, and cuts every file at every byte. It opens, what it delivers is
// right and in order, and what it does not deliver is the damaged record alone, or what was cut off; and that is reported exactly.
func TestDamage(t *testing.T) {
	for _, closed := range []bool{true, false} {
		for _, c := range []Compression{None, S2, Zstd} {
			t.Run(fmt.Sprintf("closed=%v,compression=%d", closed, c), func(t *testing.T) {
				t.Parallel()
				fs, want := small(t, c, closed)
				trials := 0
				for name, n := range fs.names {
					for off := range n.data {
						if filepath.Base(name) == cursorName && n.data[off] == 0 && off%100 != 0 {
							continue // the empty slots
						}
						for _, cut := range []bool{false, true} {
							tryDamage(t, fs, name, off, cut, want)
							trials++
							if t.Failed() {
								return
							}
						}
					}
				}
				t.Logf("%d trials", trials)
			})
		}
	}
}

func tryDamage(t *testing.T, fs *simFS, name string, off int, cut bool, want []Record) {
	t.Helper()
	isCursor := filepath.Base(name) == cursorName
	expect := map[uint64]bool{}
	if !isCursor {
		expect = lostBy(t, fs, name, int64(off), cut)
	}
	fs = fs.killed()
	n := fs.names[name]
	if cut {
		n.data = n.data[:off]
	} else {
		n.data[off] ^= 1 << (off % 8)
	}
	note := fmt.Sprintf("%s at %d, cut %v", filepath.Base(name), off, cut)
	var damage []Damage
	s, err := Open(crashDir, Options{FS: fs, MaxBytes: 1 << 20, SyncInterval: time.Hour, readBytes: int(off%3) * 100, OnDamage: func(d Damage) { damage = append(damage, d) }})
	if err != nil {
		t.Errorf("%s: %v", note, err)
		return
	}
	defer s.Close()
	got := readAll(t, s, 0)
	if isCursor {
		// An older slot serves: what was settled since may come again, and nothing is missing.
		for _, r := range want {
			if !slices.ContainsFunc(got, func(g Record) bool { return equal(r, g) }) {
				t.Errorf("%s: %d is missing", note, r.Seq)
			}
		}
		return
	}
	var left []Record
	missing := 0
	for _, r := range want {
		if expect[r.Seq] {
			missing++
		} else {
			left = append(left, r)
		}
	}
	if !slices.EqualFunc(left, got, equal) {
		t.Errorf("%s: delivered %v, want %v; damage %v", note, seqs(got), seqs(left), damage)
	}
	reported := 0
	for _, d := range damage {
		reported += d.Records
		if d.Records == 0 && d.Cause != Torn {
			t.Errorf("%s: %v", note, d)
		}
		for _, r := range left {
			if d.Records > 0 && d.First <= r.Seq && r.Seq <= d.Last {
				t.Errorf("%s: %d is there, and reported as lost: %v", note, r.Seq, d)
			}
		}
		if d.Records > 0 && d.Cause == Damaged && d.Aside == "" {
			t.Errorf("%s: not set aside: %v", note, d)
		}
		if d.Aside != "" && fs.names[d.Aside] == nil {
			t.Errorf("%s: %s is not there", note, d.Aside)
		}
	}
	if reported != missing || s.Stats().Corrupt != missing {
		t.Errorf("%s: %d records are missing, %d reported: %v", note, missing, reported, damage)
	}
	if s.LastSeq() != want[len(want)-1].Seq {
		t.Errorf("%s: LastSeq %d", note, s.LastSeq())
	}
}

func seqs(recs []Record) (list []uint64) {
	for _, r := range recs {
		list = append(list, r.Seq)
	}
	return list
}

// A hole as large as a segment's whole middle costs what was in it, and no more.
func TestLargeHole(t *testing.T) {
	for _, junk := range []string{"zeros", "stale"} {
		fs := newSimFS(crashDir)
		s := mustOpen(t, crashDir, Options{FS: fs, SyncInterval: time.Hour})
		mustAppend(t, s, recRange(1, 2000)...)
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		fs = fs.killed()
		b := fs.names[filepath.Join(crashDir, segmentName(1))].data
		switch junk {
		case "zeros":
			clear(b[20_000:60_000])
		case "stale": // sound frames, of the right segment, in the wrong place: they count once, and only in their order
			copy(b[20_000:60_000], bytes.Clone(b[5_000:45_000]))
		}
		var damage []Damage
		s = mustOpen(t, crashDir, Options{FS: fs, SyncInterval: time.Hour, OnDamage: func(d Damage) { damage = append(damage, d) }})
		got := readAll(t, s, 0)
		if len(damage) != 1 || damage[0].Records != 2000-len(got) || damage[0].Cause != Damaged {
			t.Fatalf("%s: %v", junk, damage)
		}
		want := slices.DeleteFunc(recRange(1, 2000), func(r Record) bool { return r.Seq >= damage[0].First && r.Seq <= damage[0].Last })
		if !slices.EqualFunc(got, want, equal) {
			t.Fatalf("%s: %d delivered, %d expected", junk, len(got), len(want))
		}
	}
}

// A cursor of another spool, copied here by mistake, must not pass messages for delivered.
func TestForeignCursor(t *testing.T) {
	a, want := small(t, None, true)
	b := newSimFS(crashDir)
	s := mustOpen(t, crashDir, Options{FS: b, Sync: SyncEach, SyncInterval: time.Hour})
	mustAppend(t, s, recRange(1, 100)...)
	s.Settle(seqs(recRange(1, 100)))
	_ = s.Close()
	path := filepath.Join(crashDir, cursorName)
	a.names[path] = b.names[path]
	var damage []Damage
	s = mustOpen(t, crashDir, Options{FS: a, SyncInterval: time.Hour, OnDamage: func(d Damage) { damage = append(damage, d) }})
	if len(damage) != 1 || damage[0].Cause != Forgotten {
		t.Errorf("%v", damage)
	}
	if got := readAll(t, s, 0); len(got) < len(want) {
		t.Errorf("%d records, want at least %d", len(got), len(want))
	}
	if s.LastSeq() < 100 {
		t.Errorf("LastSeq %d", s.LastSeq())
	}
}

// A file of which nothing can be made out is set aside; it neither cuts the segment in whose range its name lies, nor is
// its name used again.
func TestGarbageSegment(t *testing.T) {
	for _, name := range []uint64{10, 5000} {
		fs := newSimFS(crashDir)
		s := mustOpen(t, crashDir, Options{FS: fs, SyncInterval: time.Hour})
		mustAppend(t, s, recRange(1, 20)...)
		_ = s.Close()
		n := &inode{links: 1, data: bytes.Repeat([]byte("garbage!"), 100)}
		path := filepath.Join(crashDir, segmentName(name))
		fs.names[path] = n
		var damage []Damage
		s = mustOpen(t, crashDir, Options{FS: fs, SyncInterval: time.Hour, OnDamage: func(d Damage) { damage = append(damage, d) }})
		wantRecords(t, readAll(t, s, 0), recRange(1, 20))
		if len(damage) != 1 || damage[0].Records != 0 || fs.names[damage[0].Aside] != n || fs.names[path] != nil {
			t.Errorf("%v", damage)
		}
		if s.aside.bytes != int64(len(n.data)) {
			t.Errorf("%d bytes in %s, want %d", s.aside.bytes, asideName, len(n.data))
		}
		if s.LastSeq() < name {
			t.Errorf("LastSeq %d", s.LastSeq())
		}
	}
}
