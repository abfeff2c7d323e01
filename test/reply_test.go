package test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/natsrelay/natsrelay/internal/natstest"
)

const replyRoute = `
state_dir = %q
instance = "test"
[log]
level = "debug"
[nats.edge]
urls = [%q]
reconnect = { min = "20ms", max = "200ms" }
[route.ask]
[route.ask.source]
type = "core"
nats = "edge"
subjects = ["ask.>"]
reply = true
[route.ask.delivery]
in_flight = 2
[route.ask.sink]
type = "http"
url = %q
timeout = "10s"
`

// A service answers requests as their path below ask. says. It can go away and come back.
type service struct {
	t    *testing.T
	addr string

	mu     sync.Mutex
	server *http.Server
	asked  map[string]int // by payload
	hold   chan struct{}  // requests to ask.hold wait until it is closed
}

func newService(t *testing.T) *service {
	s := &service{t: t, addr: "127.0.0.1:" + strconv.Itoa(natstest.FreePort(t)), asked: map[string]int{}, hold: make(chan struct{})}
	s.up()
	t.Cleanup(func() { s.server.Close() })
	return s
}

func (s *service) up() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.server = &http.Server{Handler: s}
	go s.server.Serve(l) // ends with Close
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.asked[string(body)]++
	s.mu.Unlock()
	switch r.Header.Get("Nats-Subject") {
	case "ask.unknown":
		http.Error(w, "no such order", http.StatusNotFound)
	case "ask.hold":
		select {
		case <-s.hold:
		case <-r.Context().Done():
		}
		fallthrough
	default:
		w.Header().Set("Order", "7")
		fmt.Fprintf(w, "re: %s", body)
	}
}

func (s *service) count(payload string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[payload]
}

// ask sends a request and returns the answer as "error code, status, body".
func ask(nc *nats.Conn, subject, payload string) string {
	m, err := nc.Request(subject, []byte(payload), 30*time.Second)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s, %s, %s", m.Header.Get("Nats-Service-Error-Code"), m.Header.Get("Natsrelay-Status"), m.Data)
}

// A request is answered with the response, whatever it is, and with a service error while there is none: at once, since it
// is never kept for later.
func TestReply(t *testing.T) {
	t.Parallel()
	edge := natstest.Start(t, "", nil)
	web := newService(t)
	dir := t.TempDir()
	relay := newRelay(t, writeConfig(t, dir, replyRoute, mkdir(t, dir+"/state"), edge.URL(), "http://"+web.addr))
	relay.start()
	within(t, 60*time.Second, func() bool { return edge.Interest("ask.x") == 1 }, "the relay subscribes")
	nc := edge.Client()
	want := func(subject, payload, answer string) {
		t.Helper()
		if got := ask(nc, subject, payload); got != answer {
			t.Errorf("%s %s is answered %q, want %q", subject, payload, got, answer)
		}
	}
	want("ask.order", "a", ", 200, re: a")
	want("ask.unknown", "b", "404, 404, no such order\n")

	web.server.Close()
	for i := range 10 {
		want("ask.order", fmt.Sprint("away ", i), "503, , ")
	}
	web.up()
	want("ask.order", "back", ", 200, re: back") // no pause is waited for

	began := time.Now()
	want("ask.hold", "slow", "504, , ")
	if took := time.Since(began); took < 10*time.Second {
		t.Errorf("timed out after %v, before the sink's timeout", took)
	}

	// Messages that ask for nothing are delivered like those of any other route.
	if err := nc.Publish("ask.order", []byte("no request")); err != nil {
		t.Fatal(err)
	}
	within(t, 60*time.Second, func() bool { return web.count("no request") == 1 }, "the message is delivered")

	inbox := hold(t, nc, web, "last 1", "last 2")
	want("ask.order", "one too many", "503, , ")
	close(web.hold)
	relay.stop() // waits for the two
	for range 2 {
		if m, err := inbox.NextMsg(30 * time.Second); err != nil || m.Header.Get("Order") != "7" {
			t.Errorf("a request under way at the stop gets %v, %v", m, err)
		}
	}
	for _, payload := range []string{"away 0", "one too many", "slow"} {
		if n := web.count(payload); n > 1 || n == 1 && payload != "slow" {
			t.Errorf("%q reached the endpoint %d times", payload, n)
		}
	}
}

// hold sends requests that the service holds, and returns where their answers come to.
func hold(t *testing.T, nc *nats.Conn, web *service, payloads ...string) *nats.Subscription {
	t.Helper()
	inbox, err := nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	for _, payload := range payloads {
		request := func() {
			if err := nc.PublishRequest("ask.hold", inbox.Subject, []byte(payload)); err != nil {
				t.Fatal(err)
			}
		}
		request()
		within(t, 60*time.Second, func() bool {
			if _, err := inbox.NextMsg(time.Millisecond); err == nil {
				request() // it was one too many: the relay had not yet done with one before, though that was answered
			}
			return web.count(payload) == 1
		}, "%s is under way", payload)
	}
	return inbox
}
