package sinks

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
)

// An httpRequest is a request as an endpoint saw it.
type httpRequest struct {
	path   string // with its query
	header http.Header
	body   string
}

// A recorder is an endpoint that keeps what it receives, and answers as it is told.
type recorder struct {
	*httptest.Server
	answer func(httpRequest) int // nil: 200

	mu       sync.Mutex
	requests []httpRequest
}

func newRecorder(t *testing.T, answer func(httpRequest) int) *recorder {
	r := &recorder{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *recorder) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sink gave up; it has been told nothing
	}
	got := httpRequest{req.URL.RequestURI(), req.Header, string(body)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, got)
	if r.answer != nil {
		if code := r.answer(got); code != 0 {
			w.WriteHeader(code)
		}
	}
}

// take returns what has been received since the last take.
func (r *recorder) take() []httpRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.requests
	r.requests = nil
	return got
}

// batchConfig is for batches of as many messages as one likes.
func batchConfig(url, format string) *config.HTTPSink {
	cfg := httpConfig(url)
	cfg.Format, cfg.Batch = format, config.Batch{Messages: 500, Bytes: 1 << 20, Wait: time.Millisecond}
	return cfg
}

// payloads returns a batch of messages with these payloads, with ids id-0, id-1, ….
func payloads(data ...string) []*relay.Message {
	batch := make([]*relay.Message, len(data))
	for i, d := range data {
		batch[i] = &relay.Message{
			Subject: fmt.Sprintf("orders.eu.%d", i), ID: fmt.Sprintf("id-%d", i), Data: []byte(d), Time: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC),
		}
	}
	return batch
}

// deliverBatch offers the batch once, and returns the outcomes as a string of one letter each: Delivered, Refused, Unconfirmed.
func deliverBatch(t *testing.T, h *HTTP, batch []*relay.Message) (string, []relay.Outcome, error) {
	t.Helper()
	out := make([]relay.Outcome, len(batch))
	err := h.Deliver(t.Context(), batch, out)
	letters := make([]byte, len(out))
	for i, o := range out {
		letters[i] = "UDR"[o.Status]
	}
	return string(letters), out, err
}
