package sources

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

// A jsHarness is a JetStream source that runs, and a route that takes what it brings.
type jsHarness struct {
	t    testing.TB
	src  *JetStream
	conn *natsconn.Conn
	log  *natstest.Log
	stop func()

	mu      sync.Mutex
	changed sync.Cond
	msgs    []*relay.Message
	hold    bool // messages are taken, and not settled
	full    bool // accept waits
	stopped bool // accept refuses
}

// jsConfig is what the tests begin with.
func jsConfig() *config.JetStreamSource {
	return &config.JetStreamSource{
		NATS: "test", Stream: "S", Durable: "d", Consumer: "ensure", Deliver: config.Deliver{From: "all"},
		Ack: "delivered", AckPolicy: "explicit", AckWait: 30 * time.Second, MaxAckPending: 4096, PullBytes: 8 << 20,
	}
}

// prepareJS returns a source that does not run yet.
func prepareJS(t testing.TB, cfg *config.JetStreamSource, dir string, urls ...string) *jsHarness {
	t.Helper()
	return prepareOn(t, natstest.Config(urls...), cfg, dir)
}

func prepareOn(t testing.TB, conn *config.NATS, cfg *config.JetStreamSource, dir string) *jsHarness {
	t.Helper()
	h := &jsHarness{t: t, log: natstest.NewLog(t)}
	h.changed.L = &h.mu
	var err error
	h.conn, err = natsconn.Open(conn, natsconn.Options{Instance: "vm-17", Role: "source", Log: h.log.Logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.conn.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if h.src, err = NewJetStream(h.conn, cfg, dir, true, h.log.Logger); err != nil {
		t.Fatal(err)
	}
	h.src.times.request, h.src.times.look = 2*time.Second, 100*time.Millisecond
	h.src.times.heartbeat, h.src.times.retryMax = time.Second, 300*time.Millisecond
	return h
}

func (h *jsHarness) run() *jsHarness {
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- h.src.Run(ctx, h.accept) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		h.set(func() { h.stopped = true })
		select {
		case err := <-result:
			if err != nil {
				h.t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			h.t.Error("Run did not return")
		}
		h.settle(relay.FateReturned)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.src.Close(ctx); err != nil {
			h.t.Errorf("Close: %v", err)
		}
	})
	h.t.Cleanup(h.stop)
	return h
}

func startJS(t testing.TB, cfg *config.JetStreamSource, urls ...string) *jsHarness {
	t.Helper()
	return prepareJS(t, cfg, t.TempDir(), urls...).run()
}

func (h *jsHarness) accept(m *relay.Message) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.full && !h.stopped {
		h.changed.Wait()
	}
	if h.stopped {
		return relay.ErrStopped
	}
	h.msgs = append(h.msgs, m)
	if !h.hold {
		h.settleOne(m, relay.FateDone)
	}
	return nil
}

func (h *jsHarness) set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	h.changed.Broadcast()
}

// settle settles what is not yet, in order.
func (h *jsHarness) settle(f relay.Fate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.msgs {
		h.settleOne(m, f)
	}
}

func (h *jsHarness) settleOne(m *relay.Message, f relay.Fate) {
	if m.Receipt != nil {
		m.Receipt.Settle(f)
		m.Receipt = nil
	}
}

func (h *jsHarness) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.msgs)
}

// data returns the payloads that have arrived, in order.
func (h *jsHarness) data() (all []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.msgs {
		all = append(all, string(m.Data))
	}
	return all
}

// await waits until as many messages have arrived, and expects them to be from … from+n-1, in order and once.
func (h *jsHarness) await(from, n int) {
	h.t.Helper()
	natstest.Eventually(h.t, fmt.Sprintf("%d messages arrive", n), func() bool { return h.count() >= n })
	if diff := cmp.Diff(numbers(from, n), h.data()); diff != "" {
		h.t.Fatalf("messages (-want +got)\n%s", diff)
	}
}

func numbers(from, n int) (all []string) {
	for i := range n {
		all = append(all, strconv.Itoa(from+i))
	}
	return all
}

// A streamer is a stream and somebody who publishes to it.
type streamer struct {
	t    testing.TB
	nc   *nats.Conn
	js   jetstream.JetStream
	next int

	anonymous bool // messages bring no id
}

func newStreamer(t testing.TB, nc *nats.Conn, replicas int) *streamer {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s := &streamer{t: t, nc: nc, js: js, next: 1}
	s.create(replicas)
	return s
}

func (s *streamer) create(replicas int) {
	s.t.Helper()
	natstest.Eventually(s.t, "the stream is created", func() bool {
		_, err := s.js.CreateStream(s.ctx(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Replicas: replicas})
		return err == nil
	})
}

func (s *streamer) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.t.Cleanup(cancel)
	return ctx
}

// publish stores n more numbers, each once, however often it takes (if they bring ids).
func (s *streamer) publish(n int) {
	s.t.Helper()
	for range n {
		data := strconv.Itoa(s.next)
		m := &nats.Msg{Subject: "s." + strconv.Itoa(s.next%7), Data: []byte(data)}
		if !s.anonymous {
			m.Header = nats.Header{"Nats-Msg-Id": {data}}
		}
		s.publishMsg(m)
		s.next++
	}
}

func (s *streamer) publishMsg(m *nats.Msg) {
	s.t.Helper()
	limit := 2 * time.Second
	if m.Header.Get("Nats-Msg-Id") == "" {
		limit = patience // a second one would be another message
	}
	natstest.Eventually(s.t, "a message is stored", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		_, err := s.js.PublishMsg(ctx, m)
		return err == nil
	})
}

func (s *streamer) info() *jetstream.ConsumerInfo {
	s.t.Helper()
	c, err := s.js.Consumer(s.ctx(), "S", "d")
	if err != nil {
		s.t.Fatal(err)
	}
	return c.CachedInfo()
}

// awaitAcked waits until the consumer has everything, and all of it acknowledged.
func (s *streamer) awaitAcked() {
	s.t.Helper()
	var info *jetstream.ConsumerInfo
	defer func() {
		if s.t.Failed() && info != nil {
			s.t.Logf("the consumer has %d pending, %d unacknowledged, %d delivered again", info.NumPending, info.NumAckPending, info.NumRedelivered)
		}
	}()
	natstest.Eventually(s.t, "all is acknowledged", func() bool {
		info = s.info()
		return info.NumPending == 0 && info.NumAckPending == 0
	})
}

func startStream(t testing.TB) (*natstest.Process, *streamer) {
	t.Helper()
	srv := natstest.StartProcess(t, natstest.JetStream(t))
	return srv, newStreamer(t, srv.Client(), 1)
}

func TestJetStreamDeliversAndAcknowledges(t *testing.T) {
	for _, policy := range []string{"explicit", "all"} {
		t.Run(policy, func(t *testing.T) {
			srv, stream := startStream(t)
			cfg := jsConfig()
			cfg.AckPolicy = policy
			h := startJS(t, cfg, srv.URL())
			stream.publish(300)
			h.await(1, 300)
			stream.awaitAcked()
			if info := stream.info(); info.NumRedelivered != 0 || info.Delivered.Consumer != 300 {
				t.Errorf("%d delivered, %d of them again", info.Delivered.Consumer, info.NumRedelivered)
			}
			if err := h.src.Trouble(); err != nil {
				t.Error(err)
			}
			natstest.Eventually(t, "nothing is pending", func() bool { n, known := h.src.Pending(); return known && n == 0 })
		})
	}
}

func TestJetStreamMessage(t *testing.T) {
	srv, stream := startStream(t)
	h := startJS(t, jsConfig(), srv.URL())
	stream.publishMsg(&nats.Msg{Subject: "s.a", Data: []byte("x"), Reply: "_INBOX.leak", Header: nats.Header{"a": {"1", "2"}}})
	stream.publishMsg(&nats.Msg{Subject: "s.b", Header: nats.Header{"Nats-Msg-Id": {"own"}}})
	natstest.Eventually(t, "both arrive", func() bool { return h.count() == 2 })
	got := h.msgs[0]
	if got.Subject != "s.a" || got.ID != "S:1" || got.Stream != "S" || got.Sequence != 1 || time.Since(got.Time) > time.Minute || got.Respond != nil ||
		cmp.Diff(relay.Header{"a": {"1", "2"}}, got.Header) != "" {
		t.Errorf("%+v", got)
	}
	if got := h.msgs[1]; got.ID != "own" || got.Sequence != 2 {
		t.Errorf("%+v", got)
	}
}

// While the route takes nothing, and what it has taken is not settled, nothing is delivered again, however long that lasts.
func TestJetStreamExtendsWhatIsHeld(t *testing.T) {
	t.Parallel()
	srv, stream := startStream(t)
	cfg := jsConfig()
	cfg.AckWait = 10 * time.Second // half of which a loaded machine may be late
	h := prepareJS(t, cfg, t.TempDir(), srv.URL())
	h.hold = true
	h.run()
	stream.publish(50)
	h.await(1, 50)
	h.set(func() { h.full = true })
	stream.publish(50)
	time.Sleep(2 * cfg.AckWait)
	h.set(func() { h.full, h.hold = false, false })
	h.settle(relay.FateDone)
	h.await(1, 100)
	stream.awaitAcked()
	if info := stream.info(); info.Delivered.Consumer != 100 {
		t.Errorf("%d deliveries of 100 messages", info.Delivered.Consumer)
	}
}

// What the route returns, and what it has not taken, is given back on a stop, in order.
func TestJetStreamGivesBackInOrder(t *testing.T) {
	srv, stream := startStream(t)
	dir := t.TempDir()
	h := prepareJS(t, jsConfig(), dir, srv.URL())
	h.hold = true
	h.run()
	stream.publish(20)
	h.await(1, 20)
	h.set(func() { h.full = true })
	stream.publish(20)
	natstest.Eventually(t, "all are handed out", func() bool { return stream.info().NumAckPending == 40 })
	h.mu.Lock()
	for _, m := range h.msgs[:10] {
		h.settleOne(m, relay.FateDone)
	}
	h.mu.Unlock()
	h.stop()
	next := prepareJS(t, jsConfig(), dir, srv.URL()).run()
	stream.publish(10)
	next.await(11, 40)
	stream.awaitAcked()
}

// A source that dies holding messages leaves them to its successor at once, and in order.
func TestJetStreamRecallsWhatADeadRelayHeld(t *testing.T) {
	for _, policy := range []string{"explicit", "all"} {
		t.Run(policy, func(t *testing.T) {
			srv, stream := startStream(t)
			cfg := jsConfig()
			cfg.AckPolicy, cfg.AckWait = policy, 2*patience
			dead := prepareJS(t, cfg, t.TempDir(), srv.URL())
			dead.hold = true
			dead.run()
			stream.publish(30)
			dead.await(1, 30)
			dead.kill()
			stream.publish(30)
			begun := time.Now()
			next := startJS(t, cfg, srv.URL())
			next.await(1, 60)
			stream.awaitAcked()
			if took := time.Since(begun); took > patience {
				t.Errorf("took %v, which is not at once: ack_wait is %v", took, cfg.AckWait)
			}
		})
	}
}

// kill makes the source vanish as a process that is killed does.
func (h *jsHarness) kill() {
	h.t.Helper()
	h.set(func() { h.stopped = true })
	h.src.acks.nc.Store(nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.conn.Close(ctx); !errors.Is(err, context.Canceled) && err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.msgs {
		m.Receipt = nil
	}
}
