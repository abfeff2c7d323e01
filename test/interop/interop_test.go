package interop

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/sinks"
)

func batch() []*relay.Message {
	at := time.Date(2026, 11, 1, 12, 0, 0, 123456789, time.UTC)
	via := relay.Header{relay.HeaderVia: {"vm-17/orders"}}
	typed := func(contentType string) relay.Header {
		return relay.Header{relay.HeaderVia: {"vm-17/orders"}, "Content-Type": {contentType}, "traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	}
	return []*relay.Message{
		{ID: "1", Subject: "orders.eu", Time: at, Header: via, Data: []byte(`{"total": 1.50, "note": "ü\n"}`)},
		{ID: "2", Subject: "orders.us", Time: at, Header: via, Data: []byte("\x00\xff binary\n")},
		{ID: "3", Subject: "orders.us", Time: at, Header: typed("text/plain"), Data: []byte(`"quoted"`)},
		{ID: "4", Subject: "orders.us", Time: at, Header: typed("application/vnd.order+json"), Data: []byte("[1,\n2]")},
		{ID: "6", Subject: "orders.us", Time: at, Header: typed("application/json; charset=utf-8"), Data: []byte(`"quoted"`)},
		{ID: "6b", Subject: "orders.us", Time: at, Header: typed("Application/JSON; charset=utf-8"), Data: []byte(`"quoted"`)},
		{ID: "7", Subject: "orders.us", Time: at, Header: typed("application/json"), Data: []byte("{not JSON")},
		{ID: "5 \"ü\"", Subject: "orders.us", Time: at, Data: []byte("null")},
	}
}

// deliver sends the batch as often as the sink wants to be called for it, and expects that all is delivered.
func deliver(t *testing.T, cfg *config.HTTPSink, messages []*relay.Message) {
	t.Helper()
	sink, err := sinks.NewHTTP(cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close(context.Background())
	for n := sink.Limits().Messages; len(messages) > 0; messages = messages[min(n, len(messages)):] {
		out := make([]relay.Outcome, min(n, len(messages)))
		if err := sink.Deliver(t.Context(), messages[:len(out)], out); err != nil {
			t.Fatal(err)
		}
		for i, o := range out {
			if o.Status != relay.Delivered {
				t.Errorf("message %s: %+v", messages[i].ID, o)
			}
		}
	}
}

// CloudEvents, one a request and in batches, as the official SDK reads them.
func TestCloudEvents(t *testing.T) {
	for _, format := range []string{"cloudevents", "cloudevents_batch"} {
		t.Run(format, func(t *testing.T) {
			var events []cloudevents.Event
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got, err := readEvents(r, format)
				if err != nil {
					t.Error(err)
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				events = append(events, got...)
			}))
			defer srv.Close()
			deliver(t, &config.HTTPSink{
				URL: srv.URL, Method: "POST", Format: format, Timeout: time.Minute, Batch: config.Batch{Messages: 500, Bytes: 1 << 20},
			}, batch())
			messages := batch()
			if len(events) != len(messages) {
				t.Fatalf("%d events, want %d", len(events), len(messages))
			}
			for i, m := range messages {
				checkEvent(t, m, events[i])
			}
		})
	}
}

func readEvents(r *http.Request, format string) ([]cloudevents.Event, error) {
	if format == "cloudevents_batch" {
		return cehttp.NewEventsFromHTTPRequest(r)
	}
	e, err := cehttp.NewEventFromHTTPRequest(r)
	if err != nil {
		return nil, err
	}
	return []cloudevents.Event{*e}, nil
}

func checkEvent(t *testing.T, m *relay.Message, e cloudevents.Event) {
	t.Helper()
	if err := e.Validate(); err != nil {
		t.Errorf("%s: %v", m.ID, err)
	}
	if e.ID() != m.ID || e.Subject() != m.Subject || !e.Time().Equal(m.Time) {
		t.Errorf("%s: %v", m.ID, e)
	}
	if trace := m.Header.Get("traceparent"); trace != "" && e.Extensions()["traceparent"] != trace {
		t.Errorf("%s: traceparent %q", m.ID, e.Extensions()["traceparent"])
	}
	if got, want := compact(e.Data()), compact(m.Data); got != want {
		t.Errorf("%s: data %q, want %q", m.ID, got, want)
	}
}

// compact makes two spellings of the same JSON equal, and leaves all else alone.
func compact(data []byte) string {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	var v json.RawMessage = data
	if !json.Valid(data) || enc.Encode(v) != nil {
		return string(data)
	}
	return out.String()
}

// Signatures, as the library of the standard verifies them: with each of the secrets, and with no other.
func TestStandardWebhooks(t *testing.T) {
	const before, after, other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for _, format := range []string{"raw", "envelope", "cloudevents"} {
		for _, compression := range []string{"none", "gzip"} {
			srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				for secret, valid := range map[string]bool{before: true, after: true, other: false} {
					webhook, err := standardwebhooks.NewWebhook(secret)
					if err != nil {
						t.Fatal(err)
					}
					if err := webhook.Verify(body, r.Header); (err == nil) != valid {
						t.Errorf("%s, %s: Verify: %v, want valid: %v", format, compression, err, valid)
					}
				}
				if compression == "gzip" {
					if _, err := gzip.NewReader(strings.NewReader(string(body))); err != nil {
						t.Error(err)
					}
				}
			}))
			deliver(t, &config.HTTPSink{
				URL: srv.URL, Method: "POST", Format: format, Compression: compression, Timeout: time.Minute,
				Batch: config.Batch{Messages: 4, Bytes: 1 << 20}, SigningSecrets: []config.Secret{before, after},
			}, batch())
			srv.Close()
		}
	}
}
