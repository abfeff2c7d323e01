package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// pushSource hands over what the test gives it, like a client library's callback.
type pushSource struct{ accept chan func(*Message) error }

func newPushSource() *pushSource { return &pushSource{accept: make(chan func(*Message) error, 1)} }

func (s *pushSource) Run(ctx context.Context, accept func(*Message) error) error {
	s.accept <- accept
	<-ctx.Done()
	return nil
}

func (s *pushSource) Close(context.Context) error { return nil }

// scriptSink answers each attempt as the test says, and notes what arrived.
type scriptSink struct {
	limits   Limits
	latency  time.Duration
	answer   func(batch []*Message, out []Outcome) error
	closeErr error

	mu      sync.Mutex
	arrived []string // "subject data" of what was reported as delivered, in that order
}

func (s *scriptSink) Limits() Limits { return s.limits }

func (s *scriptSink) Close(context.Context) error { return s.closeErr }

func (s *scriptSink) Deliver(ctx context.Context, batch []*Message, out []Outcome) error {
	if err := elapse(ctx, s.latency); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.answer(batch, out)
	for i, m := range batch {
		if out[i].Status == Delivered {
			s.arrived = append(s.arrived, m.Subject+" "+string(m.Data))
		}
	}
	return err
}

// elapse lets time pass. For none it takes no timer: under the race detector, two of a bubble that are due at the same time crash Go's runtime (1.26).
func elapse(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func deliverAll(batch []*Message, out []Outcome) error {
	for i := range batch {
		out[i].Status = Delivered
	}
	return nil
}

func testOptions(t *testing.T) RouteOptions {
	return RouteOptions{
		Name: "orders", Instance: "vm-17", Dir: filepath.Join(t.TempDir(), "orders"),
		Buffer:   BufferOptions{Memory: 64 << 20, Persist: PersistOutage, SpillAfter: 2 * time.Second},
		Delivery: DeliveryOptions{Ordering: OrderSubject, InFlight: 8, RetryMin: 100 * time.Millisecond, RetryMax: time.Second},
	}
}

// start runs a route and returns its accept, and a function that stops it and waits.
func start(t *testing.T, o RouteOptions, sink Sink) (route *Route, accept func(*Message) error, stop func()) {
	t.Helper()
	source := newPushSource()
	return startWith(t, o, source, source, sink)
}

// startWith is start with a source of the test's own, which runs as push does.
func startWith(t *testing.T, o RouteOptions, source Source, push *pushSource, sink Sink) (route *Route, accept func(*Message) error, stop func()) {
	t.Helper()
	route, err := NewRoute(o, source, sink, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	r := Start(t.Context(), planOf(25*time.Second, route), zerolog.Nop())
	return route, <-push.accept, func() {
		r.Stop()
		if err := r.Wait(); err != nil {
			t.Errorf("Wait: %v", err)
		}
	}
}

// planOf returns the plan of a single route, which is open already.
func planOf(drain time.Duration, route *Route) Plan {
	return Plan{Drain: drain, Routes: []RoutePlan{{Name: route.opts.Name, Open: func(*Intake) (*Route, error) { return route, nil }}}}
}

func publish(t *testing.T, accept func(*Message) error, n, subjects int) {
	t.Helper()
	for i := range n {
		m := &Message{Subject: fmt.Sprintf("s.%d", i%subjects), Data: fmt.Appendf(nil, "%06d", i), ID: fmt.Sprint(i), Time: time.Now()}
		if err := accept(m); err != nil {
			t.Fatal(err)
		}
	}
}

// flaky fails two attempts in five, some of them after a part of the batch was confirmed.
func flaky(batch []*Message, out []Outcome) error {
	if rand.IntN(5) < 2 {
		for i := range rand.IntN(len(batch)) {
			out[i].Status = Delivered
		}
		return errDown
	}
	return deliverAll(batch, out)
}

// Each ordering keeps what it promises, over a sink that fails often, and nothing is lost or comes twice.
func TestRouteOrder(t *testing.T) {
	const n, subjects = 3000, 20
	for name, ordering := range map[string]Ordering{"strict": OrderStrict, "subject": OrderSubject, "none": OrderNone} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := testOptions(t)
				o.Delivery.Ordering = ordering
				sink := &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 8}, latency: 5 * time.Millisecond, answer: flaky}
				_, accept, stop := start(t, o, sink)
				publish(t, accept, n, subjects)
				time.Sleep(time.Hour)
				stop()
				checkArrivals(t, sink.arrived, n, ordering)
			})
		})
	}
}

func checkArrivals(t *testing.T, arrived []string, n int, ordering Ordering) {
	t.Helper()
	seen, last := map[string]bool{}, map[string]string{}
	for _, a := range arrived {
		var subject, data string
		fmt.Sscan(a, &subject, &data)
		if seen[data] {
			t.Errorf("message %s was delivered twice", data)
		}
		seen[data] = true
		if ordering == OrderStrict {
			subject = ""
		}
		if ordering != OrderNone && data < last[subject] {
			t.Fatalf("message %s arrived after %s", data, last[subject])
		}
		last[subject] = data
	}
	if len(seen) != n {
		t.Errorf("%d messages arrived, want %d", len(seen), n)
	}
}

// Invariant 2: while a message of a lane is not settled, none behind it is offered.
func TestRouteOffersNothingBehindAnUnsettledMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Delivery.Ordering = OrderStrict
		offered := map[string]bool{}
		sink := &scriptSink{limits: Limits{Messages: 2, Bytes: 1 << 20, Lanes: 8}, answer: func(batch []*Message, _ []Outcome) error {
			for _, m := range batch {
				offered[string(m.Data)] = true
			}
			return errDown
		}}
		_, accept, stop := start(t, o, sink)
		publish(t, accept, 100, 7)
		time.Sleep(time.Hour)
		stop()
		if len(offered) == 0 || len(offered) > 2 {
			t.Errorf("the sink was offered %v while the first was unsettled, want the first batch only", offered)
		}
	})
}

// Batches grow with the backlog: what comes during one attempt goes out together in the next.
func TestRouteBatchesGrowWithTheBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Delivery.Ordering = OrderStrict
		most := 0
		sink := &scriptSink{limits: Limits{Messages: 1000, Bytes: 1 << 20, Lanes: 8}, latency: 10 * time.Millisecond, answer: func(batch []*Message, out []Outcome) error {
			most = max(most, len(batch))
			return deliverAll(batch, out)
		}}
		_, accept, stop := start(t, o, sink)
		publish(t, accept, 1, 1)
		time.Sleep(5 * time.Millisecond)
		publish(t, accept, 600, 1)
		time.Sleep(time.Second)
		stop()
		if most != 600 {
			t.Errorf("largest batch has %d messages, want 600", most)
		}
	})
}

// A refused message is counted, and does not hold up those behind it.
func TestRouteRefusedMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 8}, answer: func(batch []*Message, out []Outcome) error {
			for i, m := range batch {
				out[i].Status = Delivered
				if string(m.Data) == "000042" {
					out[i] = Outcome{Status: Refused, Err: errors.New("status 422")}
				}
			}
			return nil
		}}
		route, accept, stop := start(t, testOptions(t), sink)
		publish(t, accept, 100, 3)
		stop()
		s := route.Stats()
		if len(sink.arrived) != 99 || s.Dropped[DropRefused] != 1 || s.Delivered != 99 || s.AttemptsFailed != 0 {
			t.Errorf("%d arrived, stats %+v; want 99 and one refused", len(sink.arrived), s)
		}
	})
}

func TestRouteDropsLoops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var via [][]string
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, answer: func(batch []*Message, out []Outcome) error {
			via = append(via, batch[0].Header[HeaderVia])
			return deliverAll(batch, out)
		}}
		route, accept, stop := start(t, testOptions(t), sink)
		for _, h := range []Header{
			nil,
			{HeaderVia: {"vm-1/a", "vm-17/other"}},
			{HeaderVia: {"vm-1/a", "vm-17/orders", "vm-3/b"}}, // it has been here
			{HeaderVia: make([]string, maxHops)},              // it has been everywhere
		} {
			if err := accept(&Message{Subject: "s", Header: h}); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		if len(via) != 2 || len(via[0]) != 1 || via[0][0] != "vm-17/orders" || len(via[1]) != 3 || via[1][2] != "vm-17/orders" {
			t.Errorf("provenance of what was delivered: %q", via)
		}
		if n := route.Stats().Dropped[DropLoop]; n != 2 {
			t.Errorf("%d dropped as loops, want 2", n)
		}
	})
}

// A stop waits for deliveries that make progress, and not for a sink that is down.
func TestRouteDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, latency: 100 * time.Millisecond, answer: deliverAll}
		_, accept, stop := start(t, testOptions(t), sink)
		publish(t, accept, 100, 1)
		stop()
		if len(sink.arrived) != 100 {
			t.Errorf("%d messages delivered before the stop ended, want 100", len(sink.arrived))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		sink := &scriptSink{limits: Limits{Messages: 1, Bytes: 1, Lanes: 1}, latency: time.Second, answer: deliverAll}
		route, accept, stop := start(t, testOptions(t), sink)
		publish(t, accept, 100, 1)
		began := time.Now()
		stop()
		if took := time.Since(began); took != 25*time.Second {
			t.Errorf("the stop took %v, want the drain timeout", took)
		}
		s := route.Stats()
		if int(s.Delivered+s.Dropped[DropShutdown]) != 100 || s.Delivered < 24 {
			t.Errorf("stats after the stop: %+v; every message must be delivered or counted", s)
		}
	})
}

// Each policy keeps memory within its bound, and every message that is not delivered is counted.
func TestRouteFullMemory(t *testing.T) {
	const n = 5000
	for name, policy := range map[string]WhenFull{"drop_oldest": DropOldest, "drop_newest": DropNewest} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := testOptions(t)
				o.Buffer.Memory, o.Buffer.WhenFull = 1<<20, policy
				down := true
				sink := &scriptSink{limits: Limits{Messages: 100, Bytes: 1 << 20, Lanes: 2}, answer: func(batch []*Message, out []Outcome) error {
					if down {
						return errDown
					}
					return deliverAll(batch, out)
				}}
				route, accept, stop := start(t, o, sink)
				publish(t, accept, n, 4)
				s := route.Stats()
				if s.MemoryBytes > 1<<20 || s.State != StateFull {
					t.Errorf("%d bytes in memory, state %s; want at most 1 MiB, and full", s.MemoryBytes, s.State)
				}
				sink.mu.Lock()
				down = false
				sink.mu.Unlock()
				time.Sleep(time.Minute)
				stop()
				s = route.Stats()
				if s.Delivered+s.Dropped[DropBufferFull] != n || s.Dropped[DropBufferFull] == 0 {
					t.Errorf("delivered %d, dropped %v, put %d", s.Delivered, s.Dropped, n)
				}
				newest := fmt.Sprintf("s.%d %06d", (n-1)%4, n-1)
				if kept := slices.Contains(sink.arrived, newest); kept != (policy == DropOldest) {
					t.Errorf("the newest message arrived: %t with policy %s", kept, name)
				}
			})
		})
	}
	t.Run("block", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := testOptions(t)
			o.Buffer.Memory, o.Buffer.WhenFull = 1<<20, Block
			sink := &scriptSink{limits: Limits{Messages: 100, Bytes: 1 << 20, Lanes: 2}, latency: 10 * time.Millisecond, answer: deliverAll}
			route, accept, stop := start(t, o, sink)
			publish(t, accept, n, 4)
			stop()
			if s := route.Stats(); s.Delivered != n || s.DroppedTotal() != 0 {
				t.Errorf("stats %+v; want all delivered", s)
			}
		})
	})
}

func TestRouteMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t)
		o.Buffer.MaxAge = time.Minute
		down := true
		sink := &scriptSink{limits: Limits{Messages: 10, Bytes: 1 << 20, Lanes: 2}, answer: func(batch []*Message, out []Outcome) error {
			if down {
				return errDown
			}
			return deliverAll(batch, out)
		}}
		route, accept, stop := start(t, o, sink)
		publish(t, accept, 100, 4)
		time.Sleep(2 * time.Minute)
		publish(t, accept, 50, 4)
		sink.mu.Lock()
		down = false
		sink.mu.Unlock()
		time.Sleep(10 * time.Second)
		stop()
		if s := route.Stats(); s.Delivered != 50 || s.Dropped[DropMaxAge] != 100 {
			t.Errorf("stats %+v; want 50 delivered, 100 too old", s)
		}
	})
}
