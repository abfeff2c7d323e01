package spool

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The disk itself beside the spool, in the same run: go test -run '^$' -bench . ./relay/spool
// MB/s is of payload. Files are dropped beyond benchBytes, so that the page cache and not the memory's size is measured.
const benchBytes = 1 << 30

var benchSizes = []int{256, 1 << 10, 16 << 10}

func payload(size int) []byte {
	b := make([]byte, size)
	rng := rand.New(rand.NewPCG(1, 2))
	const words = "{\"sensor\":\"temperature\",\"value\":0123456789,\"unit\":\"degC\",\"ok\":true}"
	for i := 0; i < size; i += 8 {
		at := rng.IntN(len(words) - 8)
		copy(b[i:], words[at:at+8])
	}
	return b
}

func each(b *testing.B, fn func(b *testing.B, size int)) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			fn(b, size)
		})
	}
}

// begin starts the clocks: that on the wall, and that of the processor, which is the one to go by on a busy machine.
func begin(b *testing.B) (end func()) {
	b.ResetTimer()
	b.StartTimer()
	cpu := cpuTime()
	return func() {
		b.StopTimer()
		b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	}
}

func cpuTime() int64 {
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru)
	return ru.Utime.Nano() + ru.Stime.Nano()
}

// rawFiles writes like the simplest log there could be: whole buffers of 256 KiB, a new file every 64 MiB.
type rawFiles struct {
	dir  string
	f    *os.File
	off  int
	name []string
}

func (r *rawFiles) write(b *testing.B, p []byte) {
	if r.f == nil || r.off >= maxSegment {
		if r.f != nil {
			r.f.Close()
		}
		r.name = append(r.name, filepath.Join(r.dir, fmt.Sprint("raw", len(r.name))))
		if n := len(r.name) - benchBytes/maxSegment; n > 0 {
			os.Remove(r.name[n-1])
		}
		f, err := os.Create(r.name[len(r.name)-1])
		if err != nil {
			b.Fatal(err)
		}
		r.f, r.off = f, 0
	}
	n, err := r.f.Write(p)
	if err != nil {
		b.Fatal(err)
	}
	r.off += n
}

func BenchmarkRawWrite(b *testing.B) {
	each(b, func(b *testing.B, size int) {
		r := rawFiles{dir: b.TempDir()}
		buf := make([]byte, 256<<10)
		defer begin(b)()
		for left := b.N * size; left > 0; left -= len(buf) {
			r.write(b, buf[:min(left, len(buf))])
		}
	})
}

// BenchmarkRawSync: 1,024 records, one fsync.
func BenchmarkRawSync(b *testing.B) {
	each(b, func(b *testing.B, size int) {
		r := rawFiles{dir: b.TempDir()}
		buf := make([]byte, 1024*size)
		defer begin(b)()
		for n := 0; n < b.N; n += 1024 {
			r.write(b, buf[:min(b.N-n, 1024)*size])
			if err := r.f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchSpool(b *testing.B, o Options) *Spool {
	o.MaxBytes = benchBytes
	o.SegmentBytes = maxSegment
	return mustOpen(b, b.TempDir(), o)
}

func appendOrDrop(b *testing.B, s *Spool, recs []Record) {
	for len(recs) > 0 {
		n, err := s.Append(recs)
		recs = recs[n:]
		if errors.Is(err, ErrFull) {
			_, err = s.DropOldest()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// appendN appends n records, in calls of 1,024 or 1 MiB, and calls sync, if given, after every 1,024.
func appendN(b *testing.B, s *Spool, size, n int, sync func() error) {
	data := payload(size)
	recs := make([]Record, min(1024, max(64, (1<<20)/size)))
	seq := s.LastSeq()
	for done := 0; done < n; {
		batch := recs[:min(len(recs), n-done)]
		for i := range batch {
			seq++
			batch[i] = Record{Seq: seq, Time: int64(seq), Data: data}
		}
		appendOrDrop(b, s, batch)
		done += len(batch)
		if sync != nil && (done%1024 == 0 || done == n) {
			if err := sync(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	each(b, func(b *testing.B, size int) {
		s := benchSpool(b, Options{Sync: SyncNever})
		defer begin(b)()
		appendN(b, s, size, b.N, nil)
	})
}

func BenchmarkAppendInterval(b *testing.B) {
	each(b, func(b *testing.B, size int) {
		s := benchSpool(b, Options{Sync: SyncInterval})
		defer begin(b)()
		appendN(b, s, size, b.N, nil)
	})
}

func BenchmarkAppendS2(b *testing.B) {
	each(b, func(b *testing.B, size int) {
		s := benchSpool(b, Options{Sync: SyncNever, Compression: S2})
		defer begin(b)()
		appendN(b, s, size, b.N, nil)
	})
}

func BenchmarkAppendZstd(b *testing.B) {
	each(b, func(b *testing.B, size int) {
		s := benchSpool(b, Options{Sync: SyncNever, Compression: Zstd})
		defer begin(b)()
		appendN(b, s, size, b.N, nil)
	})
}

// BenchmarkAppendSync: 1,024 records, one Sync.
func BenchmarkAppendSync(b *testing.B) {
	each(b, func(b *testing.B, size int) {
		s := benchSpool(b, Options{Sync: SyncInterval, SyncInterval: time.Hour})
		defer begin(b)()
		appendN(b, s, size, b.N, s.Sync)
	})
}

// BenchmarkAppendGroup: 64 writers, each of which appends one record and waits until it is durable.
func BenchmarkAppendGroup(b *testing.B) {
	each(b, func(b *testing.B, size int) {
		s := benchSpool(b, Options{Sync: SyncInterval, SyncInterval: time.Hour})
		data := payload(size)
		var mu sync.Mutex
		var seq uint64
		var wg sync.WaitGroup
		end := begin(b)
		for w := range 64 {
			wg.Go(func() {
				for i := w; i < b.N; i += 64 {
					mu.Lock()
					seq++
					appendOrDrop(b, s, []Record{{Seq: seq, Data: data}})
					mu.Unlock()
					if err := s.Sync(); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		end()
	})
}

// dropCache makes the kernel forget the files of a directory.
func dropCache(b *testing.B, dir string) {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

// filled is a spool of half of benchBytes, so that it is read over and over for large b.N.
func filled(b *testing.B, size int, o Options) *Spool {
	s := benchSpool(b, o)
	appendN(b, s, size, benchBytes/2/(size+frameHeader), nil)
	return s
}

func benchRead(b *testing.B, size int, cold bool, c Compression) {
	ballast := make([]byte, 64<<20) // a relay's heap is not empty: without it the garbage collector would run all the time
	defer runtime.KeepAlive(ballast)
	s := filled(b, size, Options{Sync: SyncNever, Compression: c})
	var recs []Record
	from := uint64(1)
	if cold {
		dropCache(b, s.dir)
	}
	defer begin(b)()
	for left := b.N; left > 0; left -= len(recs) {
		var err error
		if recs, err = s.Read(from, 1<<20, recs[:0]); err != nil {
			b.Fatal(err)
		}
		if len(recs) > 0 {
			from = recs[len(recs)-1].Seq + 1
			continue
		}
		from = 1
		if cold {
			b.StopTimer()
			dropCache(b, s.dir)
			b.StartTimer()
		}
	}
}

func BenchmarkReadWarm(b *testing.B) {
	each(b, func(b *testing.B, size int) { benchRead(b, size, false, None) })
}

func BenchmarkReadCold(b *testing.B) {
	each(b, func(b *testing.B, size int) { benchRead(b, size, true, None) })
}

func BenchmarkReadS2(b *testing.B) {
	each(b, func(b *testing.B, size int) { benchRead(b, size, false, S2) })
}

func BenchmarkReadZstd(b *testing.B) {
	each(b, func(b *testing.B, size int) { benchRead(b, size, false, Zstd) })
}

func benchRawRead(b *testing.B, size int, cold bool) {
	s := filled(b, size, Options{Sync: SyncNever})
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	names, _ := filepath.Glob(filepath.Join(s.dir, "*"+suffix))
	buf := make([]byte, scanBuffer)
	defer begin(b)()
	for left := b.N * size; left > 0; {
		if cold {
			b.StopTimer()
			dropCache(b, s.dir)
			b.StartTimer()
		}
		for _, name := range names {
			f, err := os.Open(name)
			if err != nil {
				b.Fatal(err)
			}
			for left > 0 {
				n, err := f.Read(buf)
				if left -= n; err == io.EOF {
					break
				}
			}
			f.Close()
		}
	}
}

func BenchmarkRawReadWarm(b *testing.B) {
	each(b, func(b *testing.B, size int) { benchRawRead(b, size, false) })
}

func BenchmarkRawReadCold(b *testing.B) {
	each(b, func(b *testing.B, size int) { benchRawRead(b, size, true) })
}

// BenchmarkSettle: one call for 64 records, in order, as a lane does.
func BenchmarkSettle(b *testing.B) {
	s := filled(b, 256, Options{Sync: SyncNever})
	last := s.LastSeq()
	seqs := make([]uint64, 64)
	next := uint64(1)
	defer begin(b)()
	for n := 0; n < b.N; n += 64 {
		if next+64 > last {
			b.StopTimer()
			appendN(b, s, 256, benchBytes/4/256, nil)
			last = s.LastSeq()
			b.StartTimer()
		}
		for i := range seqs {
			seqs[i] = next
			next++
		}
		s.Settle(seqs)
	}
}

// BenchmarkBacklog opens a spool of 5 GiB and drains it; it needs the room and the time, so it wants SPOOL_BENCH_BACKLOG=1.
func BenchmarkBacklog(b *testing.B) {
	if os.Getenv("SPOOL_BENCH_BACKLOG") == "" {
		b.Skip("SPOOL_BENCH_BACKLOG is not set")
	}
	dir := b.TempDir()
	o := Options{MaxBytes: 6 << 30, Sync: SyncNever}
	s := mustOpen(b, dir, o)
	const size = 1 << 10
	appendN(b, s, size, 5<<30/(size+frameHeader), nil)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for _, how := range []string{"warm", "cold", "killed"} {
		b.Run("Open/"+how, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				if how == "cold" {
					dropCache(b, dir)
				}
				if how == "killed" { // the last segment has lost its footer
					names, _ := filepath.Glob(filepath.Join(dir, "*"+suffix))
					last := names[len(names)-1]
					st, err := os.Stat(last)
					if err == nil {
						err = os.Truncate(last, st.Size()-footerSize)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
				b.StartTimer()
				s, err := Open(dir, o)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
	var rate, growth float64
	b.Run("Drain", func(b *testing.B) {
		if rate == 0 { // it can only be drained once, whatever b.N is
			rate, growth = drain(b, mustOpen(b, dir, o))
		}
		b.ReportMetric(rate, "records/s")
		b.ReportMetric(growth, "MiB-heap-growth")
	})
}

func drain(b *testing.B, s *Spool) (rate, growth float64) {
	var recs []Record
	var seqs []uint64
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before, most := m.HeapInuse, m.HeapInuse
	start, n := time.Now(), 0
	for from := uint64(1); ; {
		var err error
		if recs, err = s.Read(from, 1<<20, recs[:0]); err != nil {
			b.Fatal(err)
		}
		if len(recs) == 0 {
			break
		}
		seqs = seqs[:0]
		for _, r := range recs {
			seqs = append(seqs, r.Seq)
		}
		s.Settle(seqs)
		from = recs[len(recs)-1].Seq + 1
		if n += len(recs); n%(1<<16) < len(recs) {
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse)
		}
	}
	if st := s.Stats(); st.Records != 0 || n == 0 {
		b.Fatalf("%d read, %+v", n, st)
	}
	return float64(n) / time.Since(start).Seconds(), float64(most-before) / (1 << 20)
}
