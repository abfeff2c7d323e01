package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func mustOpen(t testing.TB, dir string, o Options) *Spool {
	t.Helper()
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 30
	}
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func mustAppend(t testing.TB, s *Spool, recs ...Record) {
	t.Helper()
	if n, err := s.Append(recs); n != len(recs) || err != nil {
		t.Fatalf("Append: %d of %d, %v", n, len(recs), err)
	}
}

func rec(seq uint64) Record {
	return Record{Seq: seq, Time: int64(seq) * 1000, Data: fmt.Appendf(nil, "record %d %s", seq, bytes.Repeat([]byte{'x'}, int(seq*7%50)))}
}

func recRange(first, last uint64) (recs []Record) {
	for seq := first; seq <= last; seq++ {
		recs = append(recs, rec(seq))
	}
	return recs
}

// readAll reads all from a sequence number on, in small bites.
func readAll(t testing.TB, s *Spool, from uint64) (recs []Record) {
	t.Helper()
	for {
		got, err := s.Read(from, 200, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			return recs
		}
		recs = append(recs, keep(got)...)
		from = got[len(got)-1].Seq + 1
	}
}

// keep copies what was read, and overwrites the original, as the next Read may do.
func keep(recs []Record) []Record {
	kept := slices.Clone(recs)
	for i, r := range recs {
		kept[i].Data = slices.Clone(r.Data)
		for j := range r.Data {
			r.Data[j] = '?'
		}
	}
	return kept
}

func wantRecords(t testing.TB, got, want []Record) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("records: -want +got\n%s", d)
	}
}

func TestAppendReadSettle(t *testing.T) {
	for _, c := range []Compression{None, S2, Zstd} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			dir := t.TempDir()
			o := Options{SegmentBytes: 4096, Compression: c}
			s := mustOpen(t, dir, o)
			mustAppend(t, s, recRange(1, 100)...)
			mustAppend(t, s, recRange(150, 250)...) // a gap
			want := append(recRange(1, 100), recRange(150, 250)...)
			wantRecords(t, readAll(t, s, 1), want)
			wantRecords(t, readAll(t, s, 90), want[89:])
			wantRecords(t, readAll(t, s, 120), want[100:])
			s.Settle([]uint64{1, 2, 3, 5, 200, 120, 9999})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, dir, o)
			want = append(append(recRange(4, 4), recRange(6, 100)...), append(recRange(150, 199), recRange(201, 250)...)...)
			wantRecords(t, readAll(t, s, 0), want)
			st := s.Stats()
			if st.Records != len(want) || st.First != 4 || st.Last != 250 || st.Oldest.UnixNano() != 1000 || s.LastSeq() != 250 {
				t.Errorf("stats %+v", st)
			}
			var all []uint64
			for _, r := range want {
				all = append(all, r.Seq)
			}
			s.Settle(all)
			if st := s.Stats(); st.Records != 0 || st.Segments != 0 || st.FileBytes != 0 || st.First != 0 {
				t.Errorf("stats of the empty spool: %+v", st)
			}
			if _, err := s.Append(recRange(250, 250)); !errors.Is(err, ErrOrder) {
				t.Errorf("an old sequence number: %v", err)
			}
			mustAppend(t, s, rec(251))
			wantRecords(t, readAll(t, s, 0), recRange(251, 251))
		})
	}
}

func TestLimits(t *testing.T) {
	dir := t.TempDir()
	fs := newSimFS(dir)
	s := mustOpen(t, dir, Options{FS: fs, MaxBytes: 20000, SegmentBytes: 4000, MinFree: 1000, Sync: SyncNever})
	if _, err := s.Append([]Record{{Seq: 1, Data: make([]byte, 20000)}}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	n, err := s.Append(recRange(1, 1000))
	if !errors.Is(err, ErrFull) || n == 0 {
		t.Fatalf("%d, %v", n, err)
	}
	if got := s.Stats().FileBytes; got > 20000-footerSize || got < 19000 {
		t.Errorf("%d bytes of 20000", got)
	}
	wantRecords(t, readAll(t, s, 1), recRange(1, uint64(n)))
	d, err := s.DropOldest()
	if err != nil || d.First != 1 || d.Records != int(d.Last) {
		t.Fatalf("%+v, %v", d, err)
	}
	wantRecords(t, readAll(t, s, 1), recRange(d.Last+1, uint64(n)))
	last := uint64(n)
	more, err := s.Append(recRange(last+1, last+1000))
	if !errors.Is(err, ErrFull) || more < d.Records-2 {
		t.Fatalf("after a drop: %d, %v", more, err)
	}
	last += uint64(more)
	fs.free = 500
	if d, err = s.DropOldest(); err != nil {
		t.Fatal(err)
	}
	s.writer.budget = 0
	if _, err = s.Append([]Record{rec(last + 1)}); err != nil {
		t.Fatalf("in place of what was dropped: %v", err)
	}
	s.writer.credit = 0
	if more, err = s.Append([]Record{rec(last + 2)}); !errors.Is(err, ErrLowSpace) || more != 0 {
		t.Fatalf("low space: %d, %v", more, err)
	}
	fs.free = 5000
	mustAppend(t, s, rec(last+2))
	for s.Stats().Segments > 0 {
		if _, err := s.DropOldest(); err != nil {
			t.Fatal(err)
		}
	}
	mustAppend(t, s, rec(last+3))
	wantRecords(t, readAll(t, s, 1), recRange(last+3, last+3))
}

// A full spool of one segment, all of it settled, takes new records.
func TestFullAndSettled(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{MaxBytes: 8000})
	last := uint64(0)
	for range 5 {
		n, err := s.Append(recRange(last+1, last+1000))
		if n == 0 || !errors.Is(err, ErrFull) {
			t.Fatalf("%d, %v", n, err)
		}
		for range n {
			last++
			s.Settle([]uint64{last})
		}
	}
}

func TestLargeRecords(t *testing.T) {
	for _, c := range []Compression{None, S2, Zstd} {
		s := mustOpen(t, t.TempDir(), Options{SegmentBytes: 1 << 20, Compression: c})
		var want []Record
		for i, size := range []int{0, 1, 3 << 20, 100, 64 << 10, 300 << 10, 5, 9 << 20} {
			data := bytes.Repeat([]byte(fmt.Sprintf("%d abcdefg ", i)), size/10+1)[:size]
			want = append(want, Record{Seq: uint64(i + 1), Time: int64(i), Data: data})
		}
		mustAppend(t, s, want...)
		got := readAll(t, s, 0)
		if len(got) != len(want) {
			t.Fatalf("%d records", len(got))
		}
		for i := range got {
			if got[i].Seq != want[i].Seq || !bytes.Equal(got[i].Data, want[i].Data) {
				t.Errorf("record %d is damaged", i)
			}
		}
	}
}

// gateFS lets an fsync pass only when the gate opens.
type gateFS struct {
	*simFS
	gate    chan struct{}
	entered chan struct{} // may be nil
	syncs   atomic.Int32
}

type gateFile struct {
	File
	fs *gateFS
}

func (g *gateFS) OpenFile(name string, flag int) (File, error) {
	f, err := g.simFS.OpenFile(name, flag)
	return gateFile{f, g}, err
}

func (f gateFile) Sync() error {
	f.fs.syncs.Add(1)
	if f.fs.entered != nil {
		f.fs.entered <- struct{}{}
	}
	<-f.fs.gate
	return f.File.Sync()
}

// TestGroupCommit: those who call Sync while an fsync is under way share the next one.
func TestGroupCommit(t *testing.T) {
	g := &gateFS{simFS: newSimFS(crashDir), gate: make(chan struct{})}
	s := mustOpen(t, crashDir, Options{FS: g, Sync: SyncNever})
	var mu sync.Mutex
	var last uint64
	var appended, wg sync.WaitGroup
	const writers = 50
	appended.Add(writers)
	for range writers {
		wg.Go(func() {
			mu.Lock()
			last++
			_, err := s.Append([]Record{rec(last)})
			mu.Unlock()
			appended.Done()
			if err := errors.Join(err, s.Sync()); err != nil {
				t.Error(err)
			}
		})
	}
	appended.Wait()
	close(g.gate)
	wg.Wait()
	// At most one that began before the last append, one after it, and one of the new cursor file.
	if n := g.syncs.Load(); n > 3 {
		t.Errorf("%d fsyncs for %d writers", n, writers)
	}
	s2 := mustOpen(t, crashDir, Options{FS: g.crashed(g.rng)})
	wantRecords(t, readAll(t, s2, 0), recRange(1, writers))
}

// TestSlots: while the cursor is being fsynced, settling goes on, and leaves alone the slot that is on its way to the disk and
// the one that is there.
func TestSlots(t *testing.T) {
	g := &gateFS{simFS: newSimFS(crashDir), gate: make(chan struct{}, 100), entered: make(chan struct{}, 100)}
	for range 100 {
		g.gate <- struct{}{}
	}
	s := mustOpen(t, crashDir, Options{FS: g, SyncInterval: time.Hour})
	mustAppend(t, s, recRange(1, 100)...)
	s.Settle([]uint64{1})
	for seq := uint64(2); seq < 6; seq++ {
		s.Settle([]uint64{seq})
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	s.Settle([]uint64{6})
	for len(g.gate) > 0 {
		<-g.gate
	}
	for len(g.entered) > 0 {
		<-g.entered
	}
	done := make(chan error)
	go func() { done <- s.Sync() }()
	<-g.entered
	s.settling.Lock()
	syncing, synced := s.cursor.syncing, s.cursor.synced
	s.settling.Unlock()
	cursor := g.names[filepath.Join(crashDir, cursorName)]
	slot := func(i int) string {
		g.mu.Lock()
		defer g.mu.Unlock()
		return string(cursor.data[i*slotSize:][:slotHeader])
	}
	before := [2]string{slot(syncing), slot(synced)}
	for seq := uint64(7); seq < 20; seq++ {
		s.Settle([]uint64{seq})
		if now := [2]string{slot(syncing), slot(synced)}; now != before || syncing == synced {
			t.Errorf("slot %d or %d was overwritten", syncing, synced)
			break
		}
	}
	close(g.gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantRecords(t, readAll(t, s, 0), recRange(20, 100))
}

func TestVersion(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	mustAppend(t, s, recRange(1, 10)...)
	s.Settle([]uint64{1})
	s.Close()
	for _, file := range []string{segmentName(1), cursorName} {
		path := filepath.Join(dir, file)
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		newer := bytes.Clone(old)
		for off := 0; off < len(newer); off += 32 << 10 {
			asVersion(newer[off:], 7)
		}
		asVersion(newer[64:], 7)
		if err := os.WriteFile(path, newer, 0o600); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, dir)
		_, err = Open(dir, Options{MaxBytes: 1 << 20})
		v, ok := errors.AsType[*VersionError](err)
		if !ok || v.File != file || v.Version != 7 {
			t.Errorf("%s: %v", file, err)
		}
		if d := cmp.Diff(before, snapshot(t, dir)); d != "" {
			t.Errorf("%s was touched: %s", file, d)
		}
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wantRecords(t, readAll(t, mustOpen(t, dir, Options{}), 0), recRange(2, 10))
}

func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	ents, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ents {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}

// asVersion makes a header or a slot one of another version.
func asVersion(b []byte, v uint32) {
	le := binary.LittleEndian
	switch {
	case len(b) < 64:
	case string(b[:8]) == headerMagic:
		le.PutUint32(b[8:], v)
		le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	case string(b[:8]) == cursorMagic:
		le.PutUint32(b[8:], v)
		le.PutUint32(b[12:], slotSum(b[:le.Uint32(b[16:])]))
	}
}

// TestConcurrent runs all methods at once, over a disk on which an fsync or a write fails now and then, and checks that every
// record comes out once and in order.
func TestConcurrent(t *testing.T) {
	fs := newSimFS(crashDir)
	var failures atomic.Int32
	fs.fail = func(call int, op, _ string) (int, error) {
		if (op == "sync" || op == "write" || op == "syncdir") && fs.rng.IntN(50) == 0 {
			failures.Add(1)
			return 0, syscall.EIO
		}
		return 0, nil
	}
	s := mustOpen(t, crashDir, Options{FS: fs, SegmentBytes: 20_000, SyncInterval: time.Millisecond,
		OnDamage: func(d Damage) { t.Errorf("%v", d) }})
	const total = 20_000
	settle := make(chan []uint64, 100)
	stop := make(chan struct{})
	var wg, others sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for seqs := range settle {
				s.Settle(seqs)
			}
		})
	}
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = s.Sync()
				_ = s.Stats()
			}
		}
	})
	var last, from uint64 = 0, 1
	for from <= total {
		if last < total {
			n, err := s.Append(recRange(last+1, min(last+50, total)))
			if last += uint64(n); err != nil && !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
		}
		recs, err := s.Read(from, 2000, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range recs {
			if r.Seq != from || !equal(r, rec(from)) {
				t.Fatalf("%d: %+v", from, r)
			}
			from++
		}
		if len(recs) > 0 {
			settle <- seqs(recs)
		}
	}
	close(settle)
	wg.Wait()
	close(stop)
	others.Wait()
	if st := s.Stats(); st.Records != 0 {
		t.Errorf("%+v", st)
	}
	t.Logf("%d failures of the disk", failures.Load())
}

// A segment takes no more records than the ordinals in its frames can tell, however small they are.
func TestMostRecordsOfASegment(t *testing.T) {
	if testing.Short() || testScale > 1 {
		t.Skip("17 million records")
	}
	s := mustOpen(t, crashDir, Options{FS: newSimFS(crashDir), Compression: Zstd, Sync: SyncNever})
	recs := make([]Record, maxCount/11) // eleven times almost as many as there may be
	for range 12 {
		for i := range recs {
			recs[i].Seq = s.LastSeq() + 1 + uint64(i)
		}
		mustAppend(t, s, recs...)
	}
	s.mu.Lock()
	edge := s.segs[0].last()
	s.mu.Unlock()
	got := 0
	for from := edge - 10; ; {
		recs, err := s.Read(from, 1<<20, recs[:0])
		if err != nil {
			t.Fatal(err)
		}
		if len(recs) == 0 {
			break
		}
		got += len(recs)
		from = recs[len(recs)-1].Seq + 1
	}
	if want := int(s.LastSeq() - (edge - 10) + 1); got != want || s.Stats().Corrupt > 0 {
		t.Errorf("read %d of %d at the end of the first segment, %+v", got, want, s.Stats())
	}
}
