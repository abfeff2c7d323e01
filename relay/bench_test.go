package relay

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/rs/zerolog"
)

// countSink takes everything at once: what is measured is the engine.
type countSink struct {
	limits Limits
	n      atomic.Int64
	all    chan struct{}
	target int64
}

func (s *countSink) Limits() Limits              { return s.limits }
func (s *countSink) Close(context.Context) error { return nil }
func (s *countSink) Deliver(_ context.Context, batch []*Message, out []Outcome) error {
	if s.n.Add(int64(len(batch))) == s.target {
		close(s.all)
	}
	return deliverAll(batch, out)
}

// BenchmarkRoute measures the engine alone, per message: in batches and one by one, through memory and through the disk.
func BenchmarkRoute(b *testing.B) {
	for _, persist := range []Persist{PersistOverflow, PersistAlways} {
		for _, batch := range []int{1, 1024} {
			b.Run(fmt.Sprintf("%s/batch=%d", [...]string{"memory", "", "disk"}[persist], batch), func(b *testing.B) {
				sink := &countSink{limits: Limits{Messages: batch, Bytes: 1 << 20, Lanes: 16}, all: make(chan struct{}), target: int64(b.N)}
				source := newPushSource()
				route, err := NewRoute(RouteOptions{
					Name: "b", Instance: "i", Dir: b.TempDir(),
					Buffer:   BufferOptions{Memory: 64 << 20, Disk: 8 << 30, Persist: persist, Sync: spool.SyncInterval, SyncInterval: 200 * time.Millisecond, SpillAfter: time.Second},
					Delivery: DeliveryOptions{Ordering: OrderSubject, InFlight: 16, RetryMin: time.Second, RetryMax: time.Second},
				}, source, sink, zerolog.Nop())
				if err != nil {
					b.Fatal(err)
				}
				r := Start(b.Context(), planOf(time.Minute, route), zerolog.Nop())
				accept := <-source.accept
				var subjects [64]string
				for i := range subjects {
					subjects[i] = fmt.Sprintf("bench.%d", i)
				}
				data := make([]byte, 256)
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					if err := accept(&Message{Subject: subjects[i%64], ID: "id", Data: data, Time: time.Now()}); err != nil {
						b.Fatal(err)
					}
				}
				<-sink.all
				b.StopTimer()
				r.Stop()
				if err := r.Wait(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

var backlog = flag.Int64("backlog", 256<<20, "bytes of backlog that BenchmarkDrain delivers; 5368709120 for the figure of bench/README.md")

// BenchmarkDrain opens a route on a backlog of 1 KiB messages and delivers it, in batches. Besides the speed it reports by how much the
// process grew at most meanwhile, in MiB beyond buffer.memory.
func BenchmarkDrain(b *testing.B) {
	const memory = 64 << 20
	for range b.N {
		b.StopTimer()
		dir := b.TempDir()
		n := fillSpool(b, dir, *backlog)
		debug.FreeOSMemory()
		before := residentBytes(b)
		sink := &countSink{limits: Limits{Messages: 1024, Bytes: 1 << 20, Lanes: 4}, all: make(chan struct{}), target: int64(n)}
		b.StartTimer()
		route, err := NewRoute(RouteOptions{
			Name: "b", Instance: "i", Dir: dir,
			Buffer:   BufferOptions{Memory: memory, Disk: 16 << 30, Persist: PersistOutage, SpillAfter: time.Second},
			Delivery: DeliveryOptions{Ordering: OrderSubject, InFlight: 4, RetryMin: time.Second, RetryMax: time.Second},
		}, newPushSource(), sink, zerolog.Nop())
		if err != nil {
			b.Fatal(err)
		}
		opened := b.Elapsed()
		r := Start(b.Context(), planOf(time.Minute, route), zerolog.Nop())
		peak := before
		for waiting := true; waiting; {
			select {
			case <-sink.all:
				waiting = false
			case <-time.After(5 * time.Millisecond):
			}
			peak = max(peak, residentBytes(b))
		}
		r.Stop()
		if err := r.Wait(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(n)/(b.Elapsed()-opened).Seconds()*float64(b.N), "msg/s")
		b.ReportMetric(float64(peak-before-memory)/(1<<20), "MiB-over-memory")
	}
}

// fillSpool writes messages of 1 KiB until they take about so many bytes, and returns how many they are.
func fillSpool(b *testing.B, dir string, bytes int64) int {
	s, err := spool.Open(dir, spool.Options{MaxBytes: 1 << 40, Sync: spool.SyncNever})
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	batch := make([]spool.Record, 0, 1000)
	for written := int64(0); written < bytes; written += 1024 * int64(len(batch)) {
		batch = batch[:0]
		for range cap(batch) {
			n++
			m := Stored{Seq: s.LastSeq() + uint64(len(batch)) + 1, Message: Message{Subject: fmt.Sprintf("bench.%d", n%64), ID: fmt.Sprint(n), Time: time.Now(), Data: make([]byte, 1024)}}
			batch = append(batch, m.EncodeRecord())
		}
		if _, err := s.Append(batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return n
}

// residentBytes returns the memory of this process (VmRSS of proc_pid_status(5)).
func residentBytes(b *testing.B) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skipf("the memory of a process is read from /proc: %v", err)
	}
	var kib int64
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		b.Fatal(err)
	}
	return kib << 10
}
