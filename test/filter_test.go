package test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/natsrelay/natsrelay/internal/natstest"
)

const filteredRoute = `
state_dir = %q
instance = "test"
[nats.edge]
urls = [%q]
[nats.cloud]
urls = [%q]
[route.even]
[route.even.source]
type = "core"
nats = "edge"
subjects = ["orders.*"]
[route.even.filter]
when = 'json.n %% 2 == 0 && header["Type"] == "new"'
[route.even.transform]
subject = "cloud.{{wildcard(1)}}.orders"
set_headers = { Site = "vm-17" }
remove_headers = ["Authorization"]
[route.even.delivery]
ordering = "strict"
[route.even.sink]
type = "nats"
nats = "cloud"
mode = "core"
`

// What passes the filter arrives in order and transformed; what does not is counted; what cannot be judged becomes a dead letter.
func TestFilterAndTransform(t *testing.T) {
	t.Parallel()
	edge, cloud := natstest.Start(t, "", nil), natstest.Start(t, "", nil)
	dir := t.TempDir()
	relay := newRelay(t, writeConfig(t, dir, filteredRoute, mkdir(t, dir+"/state"), edge.URL(), cloud.URL()))
	relay.start()
	within(t, 60*time.Second, func() bool { return edge.Interest("orders.1") == 1 }, "the relay subscribes")

	var mu sync.Mutex
	var got []string
	far := cloud.Client()
	if _, err := far.Subscribe(">", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprintf("%s %s %s %d", m.Subject, m.Data, m.Header.Get("Site"), len(m.Header["Authorization"])))
	}); err != nil {
		t.Fatal(err)
	}
	if err := far.Flush(); err != nil {
		t.Fatal(err)
	}

	const n = 1000
	pub := edge.Client()
	var want []string
	for i := range n {
		data := fmt.Sprintf(`{"n": %d}`, i)
		if i%2 == 0 {
			want = append(want, fmt.Sprintf("cloud.%d.orders %s vm-17 0", i%7, data))
		}
		if i%100 == 50 {
			data, want = "not JSON", want[:len(want)-1]
		}
		m := &nats.Msg{Subject: fmt.Sprintf("orders.%d", i%7), Data: []byte(data), Header: nats.Header{"Type": {"new"}, "Authorization": {"x"}}}
		if err := pub.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := pub.Flush(); err != nil {
		t.Fatal(err)
	}
	arrived := func() int { mu.Lock(); defer mu.Unlock(); return len(got) }
	within(t, 60*time.Second, func() bool { return arrived() >= len(want) }, "%d arrive", len(want))
	relay.stop()
	mu.Lock()
	defer mu.Unlock()
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("message %d of %d is %q, want %q", i, len(got), got[i:min(i+1, len(got))], want[i])
		}
	}
	if s := stopLine(t, &relay.log, "even"); s.Received != n || s.Delivered != 490 || s.LeftOut != 500 || s.DeadLetters != 10 || s.Dropped != 0 {
		t.Errorf("the route says %+v", s)
	}
}
