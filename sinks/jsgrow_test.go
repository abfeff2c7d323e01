package sinks

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
	"github.com/natsrelay/natsrelay/relay"
)

// A numberSource passes on so many numbered messages.
type numberSource struct {
	n    int
	done chan struct{}
}

func (s *numberSource) Run(ctx context.Context, accept func(*relay.Message) error) error {
	for _, m := range numbered(0, s.n) {
		m.Header = nil // it has not passed the route yet
		if err := accept(m); err != nil {
			return err
		}
	}
	close(s.done)
	<-ctx.Done()
	return nil
}

func (s *numberSource) Close(context.Context) error { return nil }

// A route's batches grow while they are on their way by fast ingest. Cuts anywhere in them: nothing is lost, nothing is twice, and the stream never has
// n+1 before n. Without cuts a few batches take everything, and none is larger than what memory is kept for.
func TestJetStreamGrowingBatches(t *testing.T) {
	const n = 60_000
	for name, change := range map[string]func(*config.NATSSink, *JetStreamOptions){"fast": ways["fast"], "exactly once": exactlyOnce("fast")} {
		for _, cuts := range []int{0, 20} {
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			createStream(t, srv.Client(), "")
			proxy := tcpproxy.Start(t, srv.Addr())
			s := newJetStream(t, natstest.Config("nats://"+proxy.Addr()), change)
			s.opts.Ordering = relay.OrderStrict
			made, next, published := 0, 500, 0
			s.midBatch = func(int) {
				if published++; published >= next && made < cuts {
					made++
					next = published + 100 + rand.IntN(2*n/cuts)
					proxy.Cut()
				}
			}
			source := &numberSource{n: n, done: make(chan struct{})}
			counted := &countedStreams{JetStream: s}
			if cuts == 0 {
				counted.ready = source.done
			}
			relayNumbers(t, counted, source)
			checkInOrder(t, numbers(t, stored(t, srv.Client())), n)
			t.Logf("%s: %d cuts, %d messages published, %d batches", name, made, published, counted.n)
			if cuts == 0 && counted.n > n/jsMessages {
				t.Errorf("%s: %d batches for %d messages: they did not grow", name, counted.n, n)
			}
		}
	}
}

// countedStreams counts the batches.
type countedStreams struct {
	*JetStream
	ready <-chan struct{} // none before that; nil: at once
	n     int
}

func (s *countedStreams) Stream(ctx context.Context, b *relay.Batch) error {
	if s.ready != nil {
		<-s.ready // a batch ends when there is nothing to add to it, and a source that is held up has nothing
	}
	s.n++
	return s.JetStream.Stream(ctx, b)
}

// relayNumbers relays numbered messages by a route of their own.
func relayNumbers(t *testing.T, sink relay.Sink, source *numberSource) {
	t.Helper()
	route, err := relay.NewRoute(relay.RouteOptions{
		Name: "orders", Instance: "vm-17", Dir: filepath.Join(t.TempDir(), "spool"),
		Buffer:   relay.BufferOptions{Memory: 256 << 20, SpillAfter: time.Hour},
		Delivery: relay.DeliveryOptions{Ordering: relay.OrderStrict, InFlight: 64, RetryMin: time.Millisecond, RetryMax: 10 * time.Millisecond},
	}, source, sink, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	plan := relay.Plan{Drain: time.Minute, Routes: []relay.RoutePlan{{Name: "orders", Open: func(*relay.Intake) (*relay.Route, error) { return route, nil }}}}
	r := relay.Start(t.Context(), plan, zerolog.Nop())
	<-source.done
	for deadline := time.Now().Add(time.Minute); route.Stats().Delivered < uint64(source.n) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	r.Stop()
	if err := r.Wait(); err != nil {
		t.Error(err)
	}
}
