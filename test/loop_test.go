package test

import (
	"bytes"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/natsrelay/natsrelay/internal/natstest"
)

// Two routes over the same subjects, there and back.
const twoWay = `
state_dir = %q
instance = "test"
[nats.edge]
urls = [%q]
[nats.cloud]
urls = [%q]
[route.out]
source = { type = "core", nats = "edge", subjects = ["test.>"] }
sink   = { type = "nats", nats = "cloud", mode = "core" }
%[4]s
[route.back]
source = { type = "core", nats = "cloud", subjects = ["test.>"] }
sink   = { type = "nats", nats = "edge", mode = "core" }
%[4]s
`

// Without a filter each message comes back to where it came from, once, with its provenance, and goes no further: the route that it
// has passed before knows it. With one, nothing that a relay has sent is relayed again.
func TestTwoWayRoutesEndLoops(t *testing.T) {
	const n = 1000
	for name, tc := range map[string]struct {
		filter                   string
		echoes, dropped, leftOut int // of the messages of each side
	}{
		"guard":  {"", n, n, 0},
		"filter": {`filter = { when = 'not ("Natsrelay-Via" in header)' }`, 0, 0, n},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			edge, cloud := natstest.Start(t, "", nil), natstest.Start(t, "", nil)
			dir := t.TempDir()
			relay := newRelay(t, writeConfig(t, dir, twoWay, mkdir(t, dir+"/state"), edge.URL(), cloud.URL(), tc.filter))
			relay.start()
			within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 1 && cloud.Interest("test.1") == 1 }, "the relay subscribes")

			atEdge, atCloud := watch(t, edge.Client()), watch(t, cloud.Client())
			publishAt(t, edge.Client(), 0, n, 10_000)
			publishAt(t, cloud.Client(), n, n, 10_000)
			want := 2*n + tc.echoes
			within(t, 60*time.Second, func() bool { return atEdge.count() >= want && atCloud.count() >= want }, "%d arrive on each side", want)
			relay.stop() // all that is under way is delivered, or dropped
			atEdge.check(t, "edge", n+1, 2*n, 1, n, tc.echoes/n)
			atCloud.check(t, "cloud", 1, n, n+1, 2*n, tc.echoes/n)
			for _, route := range []string{"out", "back"} {
				s := stopLine(t, &relay.log, route)
				if s.Received != 2*n+tc.echoes || s.Delivered != n+tc.echoes || s.Dropped != tc.dropped || s.LeftOut != tc.leftOut {
					t.Errorf("route %s: %+v", route, s)
				}
			}
		})
	}
}

// A watcher counts what arrives at a server, how often each.
type watcher struct {
	mu  sync.Mutex
	n   int
	far map[int]int // copies that a relay has brought, by number
}

func watch(t *testing.T, nc *nats.Conn) *watcher {
	t.Helper()
	w := &watcher{far: map[int]int{}}
	sub, err := nc.Subscribe("test.>", func(m *nats.Msg) {
		var i int
		err := json.Unmarshal(m.Data, &i)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.n++
		if err == nil && m.Header.Get("Natsrelay-Via") != "" {
			w.far[i]++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	sub.SetPendingLimits(-1, -1)
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *watcher) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// check expects each message of the other side once, and each of this side so many times, from the relay.
func (w *watcher) check(t *testing.T, side string, otherFrom, otherTo, ownFrom, ownTo, echoes int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	wrong := 0
	for i := otherFrom; i <= otherTo; i++ {
		if w.far[i] != 1 {
			wrong++
		}
	}
	for i := ownFrom; i <= ownTo; i++ {
		if w.far[i] != echoes {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%s: %d messages did not arrive as often as they should", side, wrong)
	}
}

// stopped is what a route says of itself at its end.
type stopped struct {
	Message, Route               string
	Received, Delivered, Dropped int
	LeftOut                      int `json:"left_out"`
	DeadLetters                  int `json:"dead_letters"`
}

func stopLine(t *testing.T, log *logBuffer, route string) stopped {
	t.Helper()
	log.mu.Lock()
	defer log.mu.Unlock()
	for line := range bytes.Lines(log.lines.Bytes()) {
		var s stopped
		if json.Unmarshal(line, &s) == nil && s.Message == "route stopped" && s.Route == route {
			return s
		}
	}
	t.Fatalf("route %s does not say that it stopped", route)
	return stopped{}
}
