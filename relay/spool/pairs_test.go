package spool

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// pairBytes is what one round of BenchmarkBesideRaw writes and reads: small enough to stay in the page cache, and to be written
// before the kernel begins to write back.
const pairBytes = 256 << 20

// BenchmarkBesideRaw is the comparison that bench/README.md states: in turn, b.N times over, the same number of bytes written without a
// format, written by the least loop that checks, appended; read without a format, and read back. It reports medians, and the median,
// least and greatest of the ratios of each round, so that whoever else uses the machine disturbs all sides alike.
func BenchmarkBesideRaw(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			records := pairBytes / size
			var raw, least, appended, rawRead, readBack []float64
			for range b.N + 1 {
				dir, err := os.MkdirTemp(b.TempDir(), "")
				if err != nil {
					b.Fatal(err)
				}
				w, r := rawRound(b, dir)
				l := leastRound(b, dir, size, records)
				a, rb := spoolRound(b, dir, size, records)
				if err := os.RemoveAll(dir); err != nil {
					b.Fatal(err)
				}
				raw, least, appended = append(raw, w), append(least, l), append(appended, a)
				rawRead, readBack = append(rawRead, r), append(readBack, rb)
			}
			report := func(name string, x, y []float64) { // of x / y, the first round aside
				ratios := make([]float64, 0, len(x))
				for i := range x[1:] {
					ratios = append(ratios, x[i+1]/y[i+1])
				}
				slices.Sort(ratios)
				b.ReportMetric(ratios[len(ratios)/2], name)
				b.ReportMetric(ratios[0], name+"-min")
				b.ReportMetric(ratios[len(ratios)-1], name+"-max")
			}
			per := func(name string, x []float64) {
				x = slices.Clone(x[1:])
				slices.Sort(x)
				b.ReportMetric(x[len(x)/2]/float64(records), name)
			}
			per("ns-raw-write", raw)
			per("ns-least", least)
			per("ns-append", appended)
			per("ns-raw-read", rawRead)
			per("ns-read-back", readBack)
			report("raw÷least", raw, least)
			report("raw÷append", raw, appended)
			report("least÷append", least, appended)
			report("append÷read", appended, readBack)
			report("rawread÷read", rawRead, readBack)
			b.ReportMetric(0, "ns/op")
		})
	}
}

// rawRound writes files of 64 MiB, 512 KiB at a time, and reads them, as much at a time as the spool does.
func rawRound(b *testing.B, dir string) (write, read float64) {
	buf := touched(512 << 10)
	r := rawFiles{dir: dir}
	began := time.Now()
	for range pairBytes / len(buf) {
		r.write(b, buf)
	}
	write = float64(time.Since(began))
	began = time.Now()
	for _, name := range r.name {
		f, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := f.Read(buf[:scanBuffer]); err != nil {
				break
			}
		}
		f.Close()
	}
	read = float64(time.Since(began))
	r.remove()
	return write, read
}

// leastRound is what a log that finds any one damaged record costs at least, on one core: a header, a copy and a CRC32C for each, and
// large writes. No bounds, no bookkeeping, no errors that anybody could go on after.
func leastRound(b *testing.B, dir string, size, n int) (write float64) {
	const chunk = 1 << 20
	buf := touched(2 * chunk)[:0]
	rec := Record{Data: payload(size)}
	r := rawFiles{dir: dir}
	began := time.Now()
	for i := range n {
		if buf = appendRecord(buf, 1, uint32(i), &rec); len(buf) >= chunk || i == n-1 {
			r.write(b, buf)
			buf = buf[:0]
		}
	}
	write = float64(time.Since(began))
	r.remove()
	return write
}

// touched returns a buffer that is really there: the faults of its first use are not what is compared.
func touched(n int) []byte { return bytes.Repeat([]byte{1}, n) }

func (r *rawFiles) remove() {
	r.f.Close()
	for _, name := range r.name {
		os.Remove(name)
	}
}

func spoolRound(b *testing.B, dir string, size, n int) (write, read float64) {
	s := mustOpen(b, filepath.Join(dir, "spool"), Options{MaxBytes: benchBytes, SegmentBytes: maxSegment, Sync: SyncNever})
	appendN(b, s, size, (4<<20)/size, nil) // as touched does
	first := s.LastSeq() + 1
	began := time.Now()
	appendN(b, s, size, n, nil)
	write = float64(time.Since(began))
	began = time.Now()
	var recs []Record
	got := 0
	for from := first; ; {
		var err error
		if recs, err = s.Read(from, 1<<20, recs[:0]); err != nil {
			b.Fatal(err)
		}
		if len(recs) == 0 {
			break
		}
		got += len(recs)
		from = recs[len(recs)-1].Seq + 1
	}
	read = float64(time.Since(began))
	if got != n {
		b.Fatalf("read %d of %d", got, n)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return write, read
}
