package sources

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
	"github.com/natsrelay/natsrelay/relay"
)

// Of two relays in a standby group one is active. When it dies, the other one takes over, in order, and nothing is lost.
func TestJetStreamStandby(t *testing.T) {
	t.Parallel()
	srv, stream := startStream(t)
	cfg := jsConfig()
	cfg.Standby = "g"
	prepare := func() *jsHarness {
		h := prepareJS(t, cfg, t.TempDir(), srv.URL())
		h.src.times.pinned = 8 * time.Second // most of which a loaded machine may be late
		return h
	}
	one, two := prepare(), prepare()
	one.run()
	stream.publish(50)
	one.await(1, 50)
	two.run()
	natstest.Eventually(t, "the other one waits", func() bool { return stream.waiting() >= 2 })
	stream.publish(50)
	one.await(1, 100)
	stream.awaitAcked()

	one.set(func() { one.hold = true })
	stream.publish(50)
	one.await(1, 150)
	time.Sleep(9 * time.Second) // longer than the pin lasts: the active one stays it although it asks for nothing
	stream.publish(10)
	one.await(1, 160)
	if two.count() != 0 {
		t.Errorf("both are active: the other one has %d", two.count())
	}
	one.set(func() { one.full = true })
	stream.publish(10)
	one.kill()
	stream.publish(40)
	two.await(101, 110)
	stream.awaitAcked()
	if _, ok := two.msgs[0].Header[headerPin]; ok {
		t.Error("the pin is passed on")
	}

	// On a stop it leaves at once.
	three := prepare().run()
	natstest.Eventually(t, "a third one waits", func() bool { return stream.waiting() >= 2 })
	two.stop()
	stream.publish(20)
	three.await(211, 20)
}

// A message that was published with the header by which the server tells who is active is one like all others.
func TestJetStreamStandbyTakesAPinForAHeader(t *testing.T) {
	srv, stream := startStream(t)
	cfg := jsConfig()
	cfg.Standby = "g"
	h := startJS(t, cfg, srv.URL())
	stream.publishMsg(&nats.Msg{Subject: "s.a", Data: []byte("1"), Header: nats.Header{headerPin: {"another group's"}}})
	stream.next = 2
	stream.publish(10)
	h.await(1, 11)
	stream.awaitAcked()
	if diff := cmp.Diff(relay.Header{headerPin: {"another group's"}}, h.msgs[0].Header); diff != "" {
		t.Errorf("headers (-want +got)\n%s", diff)
	}
}

// The active relay of a standby group would get only what its own old requests leave: then the server chooses anew.
func TestJetStreamStandbyHalfOpen(t *testing.T) {
	t.Parallel()
	srv, stream := startStream(t)
	cfg := jsConfig()
	cfg.Standby, cfg.AckWait = "g", 2*patience
	var relays [2]*jsHarness
	var doors [2]*tcpproxy.Proxy
	for i := range relays {
		doors[i] = tcpproxy.Start(t, srv.Addr())
		relays[i] = prepareJS(t, cfg, t.TempDir(), "nats://"+doors[i].Addr())
		relays[i].src.times.expires = 3 * time.Second
	}
	relays[0].run()
	stream.publish(50)
	relays[0].await(1, 50)
	stream.awaitAcked()
	relays[1].run()
	natstest.Eventually(t, "the other one waits", func() bool { return stream.waiting() >= 2 })
	doors[0].HalfOpen()
	stream.publish(200)
	natstest.Eventually(t, "all arrive", func() bool {
		stream.publish(1) // by a gap before what comes it is seen that something is missing
		return relays[0].count()+relays[1].count() == stream.next-1
	})
	stream.awaitAcked()
	if relays[0].log.Count("that is gone: asked the server to choose anew") == 0 {
		t.Error("want a line that says so")
	}
	for i, h := range relays {
		if sequences := h.sequences(); !slices.IsSorted(sequences) {
			t.Errorf("relay %d got %d", i, sequences)
		}
	}
}

// Who is the active one knows it for as long as the server keeps its word, and no longer: there are never two of them.
func TestJetStreamStandbyPin(t *testing.T) {
	t.Parallel()
	srv, stream := startStream(t)
	cfg := jsConfig()
	cfg.Standby = "g"
	door := tcpproxy.Start(t, srv.Addr())
	prepare := func(url string) *jsHarness {
		h := prepareJS(t, cfg, t.TempDir(), url)
		h.src.times.pinned = 8 * time.Second
		return h
	}
	one, two := prepare("nats://"+door.Addr()), prepare(srv.URL())
	second := func() string {
		pin := two.src.Pin() // asked first: what is active then must not be so beside another one
		if first := one.src.Pin(); first != "" && pin != "" {
			t.Fatalf("both are active: %q and %q", first, pin)
		}
		return pin
	}
	one.run()
	stream.publish(10)
	one.await(1, 10)
	natstest.Eventually(t, "the first one is active", func() bool { return one.src.Pin() != "" })
	pin := one.src.Pin()
	two.run()
	natstest.Eventually(t, "the other one waits", func() bool { return stream.waiting() >= 2 })
	for end := time.Now().Add(9 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // longer than the pin lasts by itself
		second()
	}
	natstest.Eventually(t, "the first one still is", func() bool { return one.src.Pin() == pin })
	door.Stall()
	stream.publish(10)
	natstest.Eventually(t, "the other one takes over", func() bool { return second() != "" })
	door.Cut()
	door.Resume()
	two.await(11, 10)
	stream.awaitAcked()
	natstest.Eventually(t, "the first one knows that it is not active", func() bool { return one.src.lease.Load() == nil })
}
