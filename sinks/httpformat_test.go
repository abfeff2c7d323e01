package sinks

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/natsrelay/natsrelay/relay"
)

// Each format, as relay.toml has it: what a batch becomes, and which messages it cannot carry.
func TestHTTPFormats(t *testing.T) {
	const ndjson = "application/x-ndjson"
	for name, tc := range map[string]struct {
		format, contentType string
		data                []string
		want, outcomes      string
	}{
		"lines":                 {"lines", ndjson, []string{`{"a":1}`, "text", "", `{"b":2}`}, "{\"a\":1}\ntext\n\n{\"b\":2}", "DDDD"},
		"lines are compacted":   {"lines", ndjson, []string{"{\n \"a\": [1,\r\n2]\n}\n", "x"}, "{\"a\":[1,2]}\nx", "DD"},
		"lines refuse newlines": {"lines", ndjson, []string{"a", "b\nc", "d\n", "e"}, "a\ne", "DRRD"},
		"json":                  {"json", "application/json", []string{`{"a":1}`, "2", ` "x" `}, `[{"a":1},2, "x" ]`, "DDD"},
		"json refuses the rest": {"json", "application/json", []string{`{"a":1`, "", "1 2", "NaN", "3"}, `[3]`, "RRRRD"},
		"envelope": {
			"envelope", ndjson, []string{"{\"a\":\n1}", "text\n", ""},
			`{"id":"id-0","subject":"orders.eu.0","time":"2026-11-01T12:00:00Z","data":{"a":1}}` + "\n" +
				`{"id":"id-1","subject":"orders.eu.1","time":"2026-11-01T12:00:00Z","data_base64":"dGV4dAo="}` + "\n" +
				`{"id":"id-2","subject":"orders.eu.2","time":"2026-11-01T12:00:00Z","data_base64":""}` + "\n", "DDD",
		},
		"cloudevents_batch": {
			"cloudevents_batch", "application/cloudevents-batch+json; charset=utf-8", []string{`{"a":1}`, "text"},
			`[{"specversion":"1.0","type":"com.github.natsrelay.message","source":"/natsrelay","id":"id-0","subject":"orders.eu.0",` +
				`"datacontenttype":"application/json","time":"2026-11-01T12:00:00Z","data":{"a":1}},` +
				`{"specversion":"1.0","type":"com.github.natsrelay.message","source":"/natsrelay","id":"id-1","subject":"orders.eu.1",` +
				`"datacontenttype":"application/octet-stream","time":"2026-11-01T12:00:00Z","data_base64":"dGV4dA=="}]`, "DD",
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := newRecorder(t, nil)
			outcomes, _, err := deliverBatch(t, newHTTP(t, batchConfig(srv.URL, tc.format)), payloads(tc.data...))
			if err != nil || outcomes != tc.outcomes {
				t.Fatalf("outcomes %s, error %v; want %s", outcomes, err, tc.outcomes)
			}
			got := srv.take()
			if len(got) != 1 {
				t.Fatalf("%d requests, want 1", len(got))
			}
			if diff := cmp.Diff(tc.want, got[0].body); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
			if ct := got[0].header.Get("Content-Type"); ct != tc.contentType {
				t.Errorf("Content-Type %q, want %q", ct, tc.contentType)
			}
			if got[0].header.Get("Nats-Subject") != "" {
				t.Error("the request for many messages names one subject")
			}
		})
	}
}

// What a format cannot carry is not offered to the endpoint at all.
func TestHTTPNothingLeftToSend(t *testing.T) {
	srv := newRecorder(t, nil)
	outcomes, out, err := deliverBatch(t, newHTTP(t, batchConfig(srv.URL, "json")), payloads("{", "["))
	if outcomes != "RR" || err != nil || len(srv.take()) != 0 {
		t.Errorf("outcomes %s, error %v", outcomes, err)
	}
	if out[0].Err == nil || out[0].Code != 0 {
		t.Errorf("outcome %+v", out[0])
	}
}

// An envelope is what `spool export` writes, so it can be replayed: whatever is in the message comes back.
func TestHTTPEnvelopeReadsBack(t *testing.T) {
	m := &relay.Message{
		Subject: `a."b\`, ID: "id\n\u2028", Time: time.Date(2026, 1, 2, 3, 4, 5, 6789, time.UTC), Data: []byte("\x00\xff\n"),
		Header: relay.Header{"B": {"1", "2"}, "a": {"<&>"}, "None": {}, "é": {""}},
	}
	for _, data := range []string{"\x00\xff\n", `{"a":"<&>"}`, `"x"`, "null"} {
		m.Data = []byte(data)
		_, line, err := encodeEnvelope([]byte("before"), m)
		if err != nil || strings.Contains(string(line), "\n") {
			t.Fatalf("%q, %v", line, err)
		}
		got, err := relay.ParseJSONLine(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if got.Subject != m.Subject || got.ID != m.ID || !got.Time.Equal(m.Time) || string(got.Data) != data {
			t.Errorf("got %+v", got)
		}
		if diff := cmp.Diff(m.Header, got.Header); diff != "" {
			t.Errorf("headers (-want +got):\n%s", diff)
		}
	}
}

// The event of a request may still be read, by net/http, when the next one is encoded.
func TestHTTPCloudEventsShareNoMemory(t *testing.T) {
	f, buf := formatNamed("cloudevents"), make([]byte, 0, 4096)
	buf, first, _ := f.encode(buf, message())
	before := string(first)
	other := message()
	other.ID = "other"
	if _, _, err := f.encode(buf[:0], other); err != nil || string(first) != before {
		t.Errorf("became %s: %v", first, err)
	}
}

// One event a request has the headers of a raw one, but those that are about the body.
func TestHTTPCloudEvent(t *testing.T) {
	srv := newRecorder(t, nil)
	cfg := httpConfig(srv.URL)
	cfg.Format = "cloudevents"
	m := message()
	m.Header["Content-Type"], m.Header["content-encoding"] = []string{"text/plain"}, []string{"br"}
	m.Data = []byte(`"JSON by chance"`)
	if out, err := deliverOne(t, newHTTP(t, cfg), m); err != nil || out.Status != relay.Delivered {
		t.Fatalf("outcome %v, error %v", out, err)
	}
	got := srv.take()[0]
	want := `{"specversion":"1.0","type":"com.github.natsrelay.message","source":"/natsrelay/a/b","id":"id-1","subject":"orders.eu.1",` +
		`"datacontenttype":"text/plain","traceparent":"00-aa-bb-01","time":"2026-11-01T12:00:00.000005Z","data_base64":"IkpTT04gYnkgY2hhbmNlIg=="}`
	if diff := cmp.Diff(want, got.body); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if ct, ce := got.header.Get("Content-Type"), got.header.Get("Content-Encoding"); ct != "application/cloudevents+json; charset=utf-8" || ce != "" {
		t.Errorf("Content-Type %q, Content-Encoding %q", ct, ce)
	}
	if got.header.Get("Nats-Subject") != "orders.eu.1" || got.header.Get("Idempotency-Key") != "id-1" {
		t.Errorf("headers %v", got.header)
	}
}
