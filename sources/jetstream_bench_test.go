package sources

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/relay"
)

// BenchmarkJetStream compares the source alone, whose messages are settled as soon as they come, with a bare loop of nats.go's Consume that
// acknowledges each message, in turn, b.N times over. Processor time is that of this process; the server has one of its own.
func BenchmarkJetStream(b *testing.B) {
	for _, size := range []int{128, 1024} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			const n = 200_000
			srv := natstest.StartProcess(b, natstest.JetStream(b))
			stream := newStreamer(b, srv.Client(), 1)
			fill(b, stream, n, size)
			contenders := []struct {
				name    string
				receive func(b *testing.B, srv *natstest.Process, durable string, n int64)
			}{
				{"bare", receiveBare},
				{"source", func(b *testing.B, srv *natstest.Process, durable string, n int64) {
					receiveBySource(b, srv, durable, n, "explicit")
				}},
				{"source/all", func(b *testing.B, srv *natstest.Process, durable string, n int64) {
					receiveBySource(b, srv, durable, n, "all")
				}},
			}
			took, cpu := make([]time.Duration, len(contenders)), make([]time.Duration, len(contenders))
			for round := range b.N {
				for i, c := range contenders {
					cpuBefore, begun := processorTime(b), time.Now()
					c.receive(b, srv, fmt.Sprintf("d%d-%d", round, i), n)
					took[i] += time.Since(begun)
					cpu[i] += processorTime(b) - cpuBefore
				}
			}
			total := float64(n * b.N)
			for i, c := range contenders {
				b.ReportMetric(total/took[i].Seconds(), c.name+":msg/s")
				b.ReportMetric(cpu[i].Seconds()/total*1e6, c.name+":cpu-s/M")
				b.ReportMetric(float64(took[0])/float64(took[i]), c.name+":throughput-ratio")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func fill(b *testing.B, s *streamer, n, size int) {
	b.Helper()
	payload := make([]byte, size)
	for i := range n {
		if _, err := s.js.PublishMsgAsync(&nats.Msg{Subject: fmt.Sprintf("s.%d", i%64), Data: payload}); err != nil {
			b.Fatal(err)
		}
	}
	select {
	case <-s.js.PublishAsyncComplete():
	case <-time.After(time.Minute):
		b.Fatal("the stream is not filled")
	}
}

func receiveBare(b *testing.B, srv *natstest.Process, durable string, n int64) {
	js, err := jetstream.New(srv.Client())
	if err != nil {
		b.Fatal(err)
	}
	c, err := js.CreateConsumer(context.Background(), "S", jetstream.ConsumerConfig{Durable: durable, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 4096, MaxDeliver: -1})
	if err != nil {
		b.Fatal(err)
	}
	var got atomic.Int64
	done := make(chan struct{})
	consuming, err := c.Consume(func(m jetstream.Msg) {
		if err := m.Ack(); err != nil {
			b.Error(err)
		}
		if got.Add(1) == n {
			close(done)
		}
	}, jetstream.PullMaxMessages(4096))
	if err != nil {
		b.Fatal(err)
	}
	<-done
	consuming.Stop()
}

func receiveBySource(b *testing.B, srv *natstest.Process, durable string, n int64, policy string) {
	cfg := jsConfig()
	cfg.Durable, cfg.AckPolicy = durable, policy
	h := prepareJS(b, cfg, b.TempDir(), srv.URL())
	h.src.times = defaultTimes()
	ctx, cancel := context.WithCancel(context.Background())
	got := int64(0)
	err := h.src.Run(ctx, func(m *relay.Message) error {
		m.Receipt.Settle(relay.FateDone)
		if got++; got == n {
			cancel()
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := h.src.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
