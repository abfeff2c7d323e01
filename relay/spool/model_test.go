package spool

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var (
	modelOps  = flag.Int("spool.ops", 120_000, "operations in TestModel")
	testScale = 1 // the long tests do so many times less
)

// model is what a spool should be: a slice.
type model struct {
	t    *rapid.T
	fs   *simFS
	o    Options
	s    *Spool
	recs []Record // unsettled, in order
	last uint64   // highest sequence number ever
	next uint64   // where the reader stands
	took int      // operations
}

// TestModel does random things to a spool and to a slice, and compares. Restarts are clean or kill -9, with other options
// each time; nothing may be lost, forgotten, or come twice.
func TestModel(t *testing.T) {
	ops := 0
	checks := 0
	rapid.Check(t, func(t *rapid.T) {
		m := &model{t: t, fs: newSimFS("/s/q"), next: 1}
		m.open()
		defer func() { _ = m.s.Close() }()
		for range max(*modelOps/100/testScale, 10) {
			m.step()
		}
		ops += m.took
		checks++
	})
	t.Logf("%d operations in %d runs", ops, checks)
}

func (m *model) open() {
	m.o = Options{
		FS: m.fs, MaxBytes: 200_000, MinFree: 1000, SyncInterval: time.Hour,
		SegmentBytes: rapid.SampledFrom([]int64{500, 5000, 20_000, 100_000}).Draw(m.t, "segment"),
		Sync:         rapid.SampledFrom([]SyncMode{SyncInterval, SyncEach, SyncNever}).Draw(m.t, "sync"),
		Compression:  rapid.SampledFrom([]Compression{None, None, S2, Zstd}).Draw(m.t, "compression"),
		readBytes:    rapid.SampledFrom([]int{0, 100, 1000}).Draw(m.t, "read"),
		OnDamage:     func(d Damage) { m.t.Fatalf("damage: %v", d) },
	}
	s, err := Open("/s/q", m.o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.s = s
	m.next = 1
}

func (m *model) step() {
	m.took++
	switch n := rapid.IntRange(0, 999).Draw(m.t, "op"); {
	case n < 300:
		m.append()
	case n < 600:
		m.read()
	case n < 900:
		m.settle()
	case n < 930:
		m.check(m.s.Sync())
	case n < 945:
		m.fs.free = rapid.Int64Range(0, 10_000).Draw(m.t, "free")
	case n < 960:
		m.fs.free = 1 << 40
	case n < 985:
		m.drop()
	case n < 992:
		m.check(m.s.Close())
		m.open()
	default:
		old := m.s
		m.fs = m.fs.killed()
		m.check(old.Close())
		m.open()
	}
	m.compareStats()
}

func (m *model) check(err error) {
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) make(seq uint64) Record {
	n := rapid.IntRange(0, 60).Draw(m.t, "size")
	if n == 60 {
		n = 3000
	}
	return Record{Seq: seq, Time: int64(seq), Data: fmt.Appendf(nil, "%d:%0*d", seq, n, seq)}
}

func (m *model) append() {
	var recs []Record
	seq := m.last
	for range rapid.IntRange(1, 20).Draw(m.t, "count") {
		seq++
		if rapid.IntRange(0, 60).Draw(m.t, "gap") == 0 {
			seq += uint64(rapid.IntRange(1, 1000).Draw(m.t, "width"))
		}
		recs = append(recs, m.make(seq))
	}
	n, err := m.s.Append(recs)
	if n < len(recs) && !errors.Is(err, ErrFull) && !errors.Is(err, ErrLowSpace) || n == len(recs) && err != nil {
		m.t.Fatalf("append: %d of %d, %v", n, len(recs), err)
	}
	if n > 0 {
		m.recs = append(m.recs, recs[:n]...)
		m.last = recs[n-1].Seq
	}
}

func (m *model) read() {
	from := m.next
	if rapid.IntRange(0, 9).Draw(m.t, "jump") == 0 {
		from = rapid.Uint64Range(0, m.last+10).Draw(m.t, "from")
	}
	maxBytes := rapid.Int64Range(0, 2000).Draw(m.t, "max")
	got, err := m.s.Read(from, maxBytes, nil)
	m.check(err)
	var want []Record
	for _, r := range m.recs {
		if r.Seq < from {
			continue
		}
		if maxBytes -= int64(len(r.Data)); maxBytes < 0 && len(want) > 0 {
			break
		}
		want = append(want, r)
		if maxBytes <= 0 {
			break
		}
	}
	if want = want[:min(len(got), len(want))]; len(got) == 0 && len(m.recs) > 0 && m.recs[len(m.recs)-1].Seq >= from {
		m.t.Fatalf("read from %d: nothing, of %d records", from, len(m.recs))
	}
	if !slices.EqualFunc(want, got, equal) {
		m.t.Fatalf("read from %d: -want +got\n%s", from, cmp.Diff(want, got))
	}
	m.next = from
	if len(got) > 0 {
		m.next = got[len(got)-1].Seq + 1
	}
}

func (m *model) settle() {
	var seqs []uint64
	done := map[uint64]bool{}
	reach := rapid.SampledFrom([]int{1, 10, 100, 10_000}).Draw(m.t, "reach")
	for range rapid.IntRange(1, 30).Draw(m.t, "count") {
		var seq uint64
		if n := min(reach, len(m.recs)); n > 0 && rapid.IntRange(0, 20).Draw(m.t, "known") > 0 {
			seq = m.recs[rapid.IntRange(0, n-1).Draw(m.t, "which")].Seq
		} else {
			seq = rapid.Uint64Range(0, m.last+100).Draw(m.t, "seq")
		}
		seqs = append(seqs, seq)
		done[seq] = true
	}
	m.s.Settle(seqs)
	m.forget(func(seq uint64) bool { return done[seq] })
}

func (m *model) forget(gone func(seq uint64) bool) (n int) {
	n = len(m.recs)
	m.recs = slices.DeleteFunc(m.recs, func(r Record) bool { return gone(r.Seq) })
	return n - len(m.recs)
}

func equal(a, b Record) bool {
	return a.Seq == b.Seq && a.Time == b.Time && bytes.Equal(a.Data, b.Data)
}

func (m *model) drop() {
	d, err := m.s.DropOldest()
	m.check(err)
	if len(m.recs) > 0 && d.Records > 0 && d.First > m.recs[0].Seq {
		m.t.Fatalf("dropped %+v, oldest is %d", d, m.recs[0].Seq)
	}
	if n := m.forget(func(seq uint64) bool { return seq >= d.First && seq <= d.Last }); n != d.Records {
		m.t.Fatalf("dropped %+v, it was %d", d, n)
	}
}

func (m *model) compareStats() {
	st := m.s.Stats()
	var first uint64
	if len(m.recs) > 0 {
		first = m.recs[0].Seq
	}
	if st.Records != len(m.recs) || st.First != first || m.s.LastSeq() != m.last || st.Err != nil || st.Corrupt != 0 {
		m.t.Fatalf("stats %+v, want %d records from %d; last %d, want %d", st, len(m.recs), first, m.s.LastSeq(), m.last)
	}
	if m.took%16 != 0 {
		return
	}
	var files int64
	for name, n := range m.fs.names {
		if _, ok := parseName(name[len("/s/q/"):]); ok {
			files += int64(len(n.data))
		}
	}
	if st.FileBytes != files {
		m.t.Fatalf("%d bytes of files, stats say %d", files, st.FileBytes)
	}
}
