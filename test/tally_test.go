package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

// subjects is how many subjects a test's messages are spread over.
const subjects = 20

// subjectOf returns the subject of message n.
func subjectOf(n int) string { return fmt.Sprintf("test.%d", n%subjects) }

// probeSubject is one of the relay's subjects that no message of a test has; tallies leave it out.
const probeSubject = "test.probe"

// publishAt publishes messages from+1 … from+n at the given rate a second, until they are out.
func publishAt(t *testing.T, nc *nats.Conn, from, n, rate int) {
	t.Helper()
	began := time.Now()
	for i := 1; i <= n; i++ {
		if err := nc.Publish(subjectOf(from+i), []byte(strconv.Itoa(from+i))); err != nil {
			t.Fatal(err)
		}
		if due := time.Duration(i) * time.Second / time.Duration(rate); due > time.Since(began) {
			time.Sleep(due - time.Since(began))
		}
	}
	if err := nc.FlushTimeout(time.Minute); err != nil {
		t.Fatal(err)
	}
}

// A tally counts what arrives: messages carry their number, and those of one subject must come in order.
type tally struct {
	mu         sync.Mutex
	seen       map[int]bool
	highest    map[string]int
	duplicates int
	disorder   []string
}

func newTally() *tally { return &tally{seen: map[int]bool{}, highest: map[string]int{}} }

func (c *tally) add(subject, payload string) {
	if subject == probeSubject {
		return
	}
	n, err := strconv.Atoi(payload)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil || subject != subjectOf(n):
		c.disorder = append(c.disorder, fmt.Sprintf("damaged: %q on %q", payload, subject))
	case c.seen[n]:
		c.duplicates++
	default:
		if n < c.highest[subject] {
			c.disorder = append(c.disorder, fmt.Sprintf("%d after %d on %s", n, c.highest[subject], subject))
		}
		c.seen[n] = true
		c.highest[subject] = max(c.highest[subject], n)
	}
}

func (c *tally) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen)
}

// missing returns which of the numbers from … to have not arrived.
func (c *tally) missing(from, to int) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	var missing []int
	for n := from; n <= to; n++ {
		if !c.seen[n] {
			missing = append(missing, n)
		}
	}
	return missing
}

// check expects messages 1 … n, each subject's in order, and at most so many duplicates.
func (c *tally) check(t *testing.T, what string, n, duplicates int) {
	t.Helper()
	if missing := c.missing(1, n); len(missing) > 0 {
		t.Errorf("%s: %d of %d messages lost, the first are %v", what, len(missing), n, missing[:min(10, len(missing))])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.disorder) > 0 {
		t.Errorf("%s: %d out of order: %s …", what, len(c.disorder), strings.Join(c.disorder[:min(5, len(c.disorder))], ", "))
	}
	if c.duplicates > duplicates {
		t.Errorf("%s: %d duplicates, want at most %d", what, c.duplicates, duplicates)
	}
	t.Logf("%s: %d arrived, %d duplicates", what, len(c.seen), c.duplicates)
}

// collect counts what is published to "test.>" on nc.
func (c *tally) collect(t *testing.T, nc *nats.Conn) {
	t.Helper()
	sub, err := nc.Subscribe("test.>", func(m *nats.Msg) { c.add(m.Subject, string(m.Data)) })
	if err != nil {
		t.Fatal(err)
	}
	sub.SetPendingLimits(-1, -1)
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

// An endpoint is an HTTP server that can go away, come back, and misbehave.
type endpoint struct {
	t      *testing.T
	addr   string
	tally  *tally
	status func(payload string) int  // 0 or nil: 200
	refuse func(payload string) bool // answered with 422; nil: none

	listener net.Listener
	server   *http.Server
}

func newEndpoint(t *testing.T, tally *tally) *endpoint {
	e := &endpoint{t: t, addr: "127.0.0.1:" + strconv.Itoa(natstest.FreePort(t)), tally: tally}
	e.up()
	t.Cleanup(e.down)
	return e
}

func (e *endpoint) url() string { return "http://" + e.addr + "/in" }

// up starts the server, again, at its address.
func (e *endpoint) up() {
	e.t.Helper()
	l, err := net.Listen("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	e.listener, e.server = l, &http.Server{Handler: http.HandlerFunc(e.serve)}
	go e.server.Serve(l) // ends with down
}

// down closes the server and its connections; connection attempts are refused then.
func (e *endpoint) down() {
	e.listener.Close() // the server closes it only if it has begun to serve
	e.server.Close()
}

// retire ends the server as down does, but answers what it has begun to: nobody has to send that again.
func (e *endpoint) retire() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := e.server.Shutdown(ctx); err != nil {
		e.t.Fatal(err)
	}
}

func (e *endpoint) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if e.status != nil {
		if code := e.status(string(body)); code != 0 {
			w.WriteHeader(code)
			return
		}
	}
	if e.refuse != nil && e.refuse(string(body)) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	e.tally.add(r.Header.Get("Nats-Subject"), string(body))
}
