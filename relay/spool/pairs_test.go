package spool

import (
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

// BenchmarkBesideRaw is the comparison that bench/README.md states: in turn, b.N times over, the same number of bytes written
// and read without a format, appended, and read back. It reports medians, and the median, least and greatest of the ratios of each round,
// so that whoever else uses the machine disturbs both sides alike.
func BenchmarkBesideRaw(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			records := pairBytes / size
			var raw, appended, readBack, rawRead []float64
			for range b.N + 1 {
				dir, err := os.MkdirTemp(b.TempDir(), "")
				if err != nil {
					b.Fatal(err)
				}
				w, r := rawRound(b, dir)
				a, rb := spoolRound(b, dir, size, records)
				if err := os.RemoveAll(dir); err != nil {
					b.Fatal(err)
				}
				raw, rawRead = append(raw, w), append(rawRead, r)
				appended, readBack = append(appended, a), append(readBack, rb)
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
			per("ns-append", appended)
			per("ns-raw-read", rawRead)
			per("ns-read-back", readBack)
			report("raw÷append", raw, appended)
			report("append÷read", appended, readBack)
			report("rawread÷read", rawRead, readBack)
			b.ReportMetric(0, "ns/op")
		})
	}
}

// rawRound writes files of 64 MiB, 512 KiB at a time, and reads them, 64 KiB at a time.
func rawRound(b *testing.B, dir string) (write, read float64) {
	buf := make([]byte, 512<<10)
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
			if _, err := f.Read(buf[:64<<10]); err != nil {
				break
			}
		}
		f.Close()
	}
	read = float64(time.Since(began))
	for _, name := range r.name {
		os.Remove(name)
	}
	r.f.Close()
	return write, read
}

func spoolRound(b *testing.B, dir string, size, n int) (write, read float64) {
	s := mustOpen(b, filepath.Join(dir, "spool"), Options{MaxBytes: benchBytes, SegmentBytes: maxSegment, Sync: SyncNever})
	began := time.Now()
	appendN(b, s, size, n, nil)
	write = float64(time.Since(began))
	began = time.Now()
	var recs []Record
	got := 0
	for from := uint64(1); ; {
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
