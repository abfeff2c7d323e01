package config

import (
	"testing"
	"time"
)

// parseStreamSink returns the sink of a file with one route, from stream to stream.
func parseStreamSink(t *testing.T, sink string) *NATSSink {
	t.Helper()
	return mustParse(t, `
[nats.edge]
urls = ["nats://127.0.0.1:4222"]
[nats.cloud]
urls = ["nats://127.0.0.1:4223"]
[route.o.source]
type = "jetstream"
nats = "edge"
stream = "ORDERS"
[route.o.delivery]
ordering = "strict"
[route.o.sink]
type = "nats"
nats = "cloud"
mode = "jetstream"
stream = "COPY"
`+sink).Routes[0].Sink.NATS
}

func TestJetStreamSinkDefaults(t *testing.T) {
	want := &NATSSink{NATS: "cloud", Mode: "jetstream", Dedupe: true, JetStream: &JetStreamSink{Stream: "COPY", BatchPublish: "auto"}}
	if d := diff(want, parseStreamSink(t, "")); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	want.JetStream.Create = &CreateStream{
		Subjects: []string{"o.>"}, Replicas: 1, Storage: "file", Retention: "limits", Discard: "old", DuplicateWindow: 2 * time.Minute, Compression: "none",
	}
	if d := diff(want, parseStreamSink(t, `create_stream = { subjects = ["o.>"] }`)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestJetStreamSinkExactlyOnce(t *testing.T) {
	if !parseStreamSink(t, "exactly_once = true").JetStream.ExactlyOnce {
		t.Error("exactly_once is not read")
	}
}

// The window by default is no longer than what a server takes.
func TestJetStreamSinkShortAge(t *testing.T) {
	c := parseStreamSink(t, `create_stream = { subjects = ["o.>"], max_age = "1m" }`).JetStream.Create
	if c.DuplicateWindow != time.Minute {
		t.Errorf("duplicate_window %v with max_age 1m", c.DuplicateWindow)
	}
}
