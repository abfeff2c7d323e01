package sources

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
	"github.com/natsrelay/natsrelay/relay"
)

// A stream that is created anew has other messages under the old sequences: the route begins as deliver says, and acknowledges none of
// them with what it held of the old ones.
func TestJetStreamStreamCreatedAnew(t *testing.T) {
	srv, stream := startStream(t)
	stream.anonymous = true
	h := startJS(t, jsConfig(), srv.URL())
	stream.publish(50)
	h.await(1, 50)
	h.set(func() { h.hold = true })
	stream.publish(50)
	h.await(1, 100)
	if err := stream.js.DeleteStream(stream.ctx(), "S"); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the trouble is told", func() bool {
		err := h.src.Trouble()
		fault, _ := errors.AsType[*relay.Fault](err)
		return fault != nil && fault.Blocked && strings.Contains(err.Error(), "stream not found")
	})
	stream.create(1)
	stream.next = 101
	stream.publish(150)
	h.await(1, 250)
	h.settle(relay.FateDone)
	stream.awaitAcked()
	if h.log.Count("the stream was deleted and created anew") != 1 {
		t.Error("want one line that says so")
	}
	h.checkIDs(100)
	natstest.Eventually(t, "no trouble", func() bool { return h.src.Trouble() == nil })
}

// A server that crashes, or is restored from a copy, has lost the end of a stream, and gives the sequences to other messages before the relay is back.
// They are not taken for what the relay has seen under these sequences.
func TestJetStreamStreamThatHasLostItsEnd(t *testing.T) {
	for _, policy := range []string{"explicit", "all"} {
		t.Run(policy, func(t *testing.T) {
			store := filepath.Join(t.TempDir(), "js")
			srv := natstest.StartProcess(t, fmt.Sprintf("jetstream: {store_dir: %q}", store))
			stream := newStreamer(t, srv.Client(), 1)
			stream.anonymous = true
			door := tcpproxy.Start(t, srv.Addr())
			cfg := jsConfig()
			cfg.AckPolicy = policy
			h := startJS(t, cfg, "nats://"+door.Addr())
			stream.publish(50)
			h.await(1, 50)
			stream.awaitAcked()
			older := copyStore(t, srv, store)
			stream.publish(50)
			h.await(1, 100)
			stream.awaitAcked()
			h.set(func() { h.hold = true })
			stream.publish(10)
			h.await(1, 110)
			door.Refuse()
			door.Cut()
			restoreStore(t, srv, store, older)
			stream.publish(100) // under the sequences 51 … 150
			h.set(func() { h.hold = false })
			if err := door.Accept(); err != nil {
				t.Fatal(err)
			}
			h.await(1, 210)
			h.settle(relay.FateDone)
			stream.awaitAcked()
			h.await(1, 210)
			if n := h.log.Count("the stream has lost its end"); n != 1 {
				t.Errorf("%d lines say so, want one", n)
			}
			h.checkIDs(110)
		})
	}
}

// The same, but the relay was stopped meanwhile.
func TestJetStreamStreamThatHasLostItsEndMeanwhile(t *testing.T) {
	store := filepath.Join(t.TempDir(), "js")
	srv := natstest.StartProcess(t, fmt.Sprintf("jetstream: {store_dir: %q}", store))
	stream := newStreamer(t, srv.Client(), 1)
	stream.anonymous = true
	dir, cfg := t.TempDir(), jsConfig()
	cfg.AckWait = 5 * time.Second
	first := prepareJS(t, cfg, dir, srv.URL()).run()
	stream.publish(50)
	first.await(1, 50)
	stream.awaitAcked()
	older := copyStore(t, srv, store)
	stream.publish(50)
	first.await(1, 100)
	stream.awaitAcked()
	first.stop()
	restoreStore(t, srv, store, older)
	stream.publish(100) // under the sequences 51 … 150
	second := prepareJS(t, cfg, dir, srv.URL()).run()
	natstest.Eventually(t, "all that is new comes", func() bool { return slices.Contains(second.data(), "200") })
	stream.awaitAcked()
	second.stop()
	second.set(func() { // the copy of the consumer may not know of all acknowledgements
		second.msgs = slices.DeleteFunc(second.msgs, func(m *relay.Message) bool { return m.Sequence <= 50 && m.ID == fmt.Sprintf("S:%d", m.Sequence) })
	})
	second.await(101, 100)
	second.checkIDs(0)

	third := prepareJS(t, cfg, dir, srv.URL()).run() // it has not forgotten
	stream.publish(10)
	third.await(201, 10)
	third.checkIDs(0)
}

// copyStore returns a copy of what the server has stored. The server is away meanwhile.
func copyStore(t *testing.T, srv *natstest.Process, store string) string {
	t.Helper()
	srv.Kill()
	defer srv.Start()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(store)); err != nil {
		t.Fatal(err)
	}
	return to
}

// restoreStore kills the server, and starts it with a copy of what it had stored.
func restoreStore(t *testing.T, srv *natstest.Process, store, older string) {
	t.Helper()
	srv.Kill()
	defer srv.Start()
	if err := errors.Join(os.RemoveAll(store), os.CopyFS(store, os.DirFS(older))); err != nil {
		t.Fatal(err)
	}
}

// checkIDs expects the first n messages to be known by their places in the stream, and the others by the time, too, for their sequences have meant
// other messages.
func (h *jsHarness) checkIDs(n int) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	known := make(map[string]bool)
	for i, m := range h.msgs {
		want := fmt.Sprintf("S:%d", m.Sequence)
		if i >= n {
			want += fmt.Sprintf(":%d", m.Time.UnixNano())
		}
		if m.ID != want {
			h.t.Fatalf("message %d has the id %s, want %s", i, m.ID, want)
		}
		if known[m.ID] {
			h.t.Fatalf("two messages have the id %s", m.ID)
		}
		known[m.ID] = true
	}
}
