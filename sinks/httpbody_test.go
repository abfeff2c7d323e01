package sinks

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/natsrelay/natsrelay/relay"
)

func TestHTTPCompression(t *testing.T) {
	decoders := map[string]func(io.Reader) (io.Reader, error){
		"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
	}
	for name, decoder := range decoders {
		srv := newRecorder(t, nil)
		cfg := batchConfig(srv.URL, "json")
		cfg.Compression = name
		h := newHTTP(t, cfg)
		long := fmt.Sprintf("%q", strings.Repeat("x", 10_000))
		for range 3 { // with buffers that have been used before
			if outcomes, _, err := deliverBatch(t, h, payloads(long, "1")); err != nil || outcomes != "DD" {
				t.Fatalf("%s: outcomes %s, error %v", name, outcomes, err)
			}
		}
		for _, got := range srv.take() {
			r, err := decoder(strings.NewReader(got.body))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(r)
			if err != nil || string(plain) != "["+long+",1]" || len(got.body) > 1000 || got.header.Get("Content-Encoding") != name {
				t.Errorf("%s: %d bytes, error %v, %v", name, len(got.body), err, got.header)
			}
		}
	}
}

// A payload that says it is compressed is not compressed once more.
func TestHTTPCompressedPayload(t *testing.T) {
	srv := newRecorder(t, nil)
	cfg := httpConfig(srv.URL)
	cfg.Compression = "gzip"
	m := message()
	m.Header["content-encoding"] = []string{"br"}
	if out, err := deliverOne(t, newHTTP(t, cfg), m); err != nil || out.Status != relay.Delivered {
		t.Fatalf("outcome %v, error %v", out, err)
	}
	if got := srv.take()[0]; got.body != "payload" || got.header.Get("Content-Encoding") != "br" {
		t.Errorf("%+v", got)
	}
}

// An empty payload is a request with an empty body, not one of unknown length.
func TestHTTPEmptyBody(t *testing.T) {
	srv := newRecorder(t, nil)
	m := message()
	m.Data = nil
	if out, err := deliverOne(t, newHTTP(t, httpConfig(srv.URL)), m); err != nil || out.Status != relay.Delivered {
		t.Fatalf("outcome %v, error %v", out, err)
	}
	if got := srv.take()[0]; got.body != "" || got.header.Get("Content-Length") != "0" {
		t.Errorf("%+v", got)
	}
}

// Buffers are used again, but never while a request is still being written: an endpoint that answers early must not receive
// parts of another batch.
func TestHTTPBuffersAreNotSharedTooEarly(t *testing.T) {
	var mixed sync.Map
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/early" {
			w.WriteHeader(http.StatusServiceUnavailable)
			w.(http.Flusher).Flush()
		}
		body, _ := io.ReadAll(r.Body)
		if len(body) > 1 && bytes.Count(body, body[:1]) != len(body)-bytes.Count(body, []byte("\n")) {
			mixed.Store(r.URL.Path, true)
		}
	}))
	defer srv.Close()
	h := newHTTP(t, batchConfig(srv.URL+"/{{token(1)}}", "lines"))
	var lanes sync.WaitGroup
	for lane := range 4 {
		lanes.Go(func() {
			batch := payloads(strings.Repeat(string(rune('a'+lane)), 300_000), strings.Repeat(string(rune('a'+lane)), 300_000))
			for i := range 20 {
				for _, m := range batch {
					m.Subject = []string{"early", "late"}[i%2]
				}
				_ = h.Deliver(t.Context(), batch, make([]relay.Outcome, len(batch)))
			}
		})
	}
	lanes.Wait()
	mixed.Range(func(path, _ any) bool {
		t.Errorf("a request to %v holds more than one lane's messages", path)
		return true
	})
}

// An endpoint that stops reading holds a lane no longer than timeout.
func TestHTTPEndpointThatDoesNotRead(t *testing.T) {
	cfg := batchConfig("http://"+rawServer(t, func(net.Conn) { <-t.Context().Done() }), "lines")
	cfg.Timeout = 200 * time.Millisecond
	outcomes, _, err := deliverBatch(t, newHTTP(t, cfg), payloads(strings.Repeat("x", 8<<20), "y"))
	if err == nil || outcomes != "UU" {
		t.Errorf("outcomes %s, error %v", outcomes, err)
	}
}
