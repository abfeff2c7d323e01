package relay

import (
	"context"
	"fmt"
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
				r := New(time.Minute, zerolog.Nop(), route)
				ended := make(chan error)
				go func() { ended <- r.Run(b.Context()) }()
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
				if err := <-ended; err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
