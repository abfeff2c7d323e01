package config

import (
	"testing"
	"time"
)

// parseSource returns the route of a file with one, whose source is of type jetstream.
func parseSource(t *testing.T, source string) *Route {
	t.Helper()
	return mustParse(t, `
[nats.edge]
urls = ["nats://127.0.0.1:4222"]
[route.o.sink]
type = "http"
url = "http://127.0.0.1:8080"
[route.o.delivery]
ordering = "strict"
[route.o.source]
type = "jetstream"
nats = "edge"
stream = "ORDERS"
`+source).Routes[0]
}

func TestJetStreamSourceDefaults(t *testing.T) {
	r := parseSource(t, "")
	want := &JetStreamSource{
		NATS: "edge", Stream: "ORDERS", Durable: "natsrelay-o", Consumer: "ensure", Deliver: Deliver{From: "all"},
		Ack: "delivered", AckPolicy: "explicit", AckWait: 30 * time.Second, MaxAckPending: 4096, PullBytes: 8 * mib,
	}
	if d := diff(want, r.Source.JetStream); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if r.Source.Core != nil || r.Buffer.WhenFull != "block" {
		t.Errorf("core %v, when_full %q", r.Source.Core, r.Buffer.WhenFull)
	}
	if d := diff([]string{">"}, r.Source.Patterns()); d != "" {
		t.Error(d)
	}
}

func TestJetStreamSourceEveryKey(t *testing.T) {
	got := parseSource(t, `
durable = "d"
consumer = "bind"
subjects = ["a.*", "b.>"]
deliver = { time = 2026-11-01T00:00:00Z }
ack = "stored"
ack_policy = "all"
ack_wait = "5s"
max_ack_pending = 7
pull_bytes = "1MiB"
standby = "g"
`).Source.JetStream
	want := &JetStreamSource{
		NATS: "edge", Stream: "ORDERS", Durable: "d", Consumer: "bind", Subjects: []string{"a.*", "b.>"},
		Deliver: Deliver{From: "time", Time: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)},
		Ack:     "stored", AckPolicy: "all", AckWait: 5 * time.Second, MaxAckPending: 7, PullBytes: mib, Standby: "g",
	}
	if d := diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	for src, want := range map[string]Deliver{
		`deliver = "new"`:               {From: "new"},
		`deliver = "last"`:              {From: "last"},
		`deliver = "last_per_subject"`:  {From: "last_per_subject"},
		`deliver = { sequence = 1000 }`: {From: "sequence", Sequence: 1000},
	} {
		if d := diff(want, parseSource(t, src).Source.JetStream.Deliver); d != "" {
			t.Errorf("%s: -want +got\n%s", src, d)
		}
	}
}
