package sinks

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/relay"
)

// BenchmarkJetStreamDeliver is the sink alone, into a stream on files on a server in a process of its own, by way of publishing, messages a batch, and lanes.
func BenchmarkJetStreamDeliver(b *testing.B) {
	for _, way := range []string{"fast", "chained", "unordered"} {
		for _, batch := range []int{256, 1024, 4096} {
			for _, lanes := range []int{1, 4} {
				b.Run(fmt.Sprintf("%s/batch=%d/lanes=%d", way, batch, lanes), func(b *testing.B) {
					benchJetStream(b, way, batch, lanes)
				})
			}
		}
	}
}

func benchJetStream(b *testing.B, way string, batch, lanes int) {
	srv := natstest.StartProcess(b, natstest.JetStream(b))
	createStream(b, srv.Client(), "")
	s := newJetStream(b, natstest.Config(srv.URL()), func(c *config.NATSSink, o *JetStreamOptions) { ways[way](c, o) })
	deliverAll(b, s, numbered(0, 1)) // sure from here on
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			msgs, out := make([]*relay.Message, batch), make([]relay.Outcome, batch)
			for {
				from := next.Add(int64(batch)) - int64(batch)
				if from >= int64(b.N) {
					return
				}
				for i := range msgs {
					msgs[i] = &relay.Message{
						Subject: "t." + strconv.Itoa(lane), ID: "ORDERS:" + strconv.FormatInt(from+int64(i), 10), Data: make([]byte, 128),
						Header: relay.Header{relay.HeaderVia: {"vm-17/orders"}},
					}
				}
				clear(out)
				if err := s.Deliver(context.Background(), msgs, out); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
