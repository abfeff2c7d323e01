package sinks

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/relay"
)

func httpConfig(url string) *config.HTTPSink {
	return &config.HTTPSink{URL: url, Method: "POST", Format: "raw", Timeout: time.Minute}
}

func newHTTP(t *testing.T, cfg *config.HTTPSink) *HTTP {
	t.Helper()
	h, err := NewHTTP(cfg, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(context.Background()) })
	return h
}

func message() *relay.Message {
	return &relay.Message{
		Subject: "orders.eu.1", ID: "id-1", Data: []byte("payload"), Time: time.Date(2026, 11, 1, 12, 0, 0, 5000, time.UTC),
		Header: relay.Header{relay.HeaderVia: {"a/b", "c/d"}, "x-mixed": {"1", "2"}, "Connection": {"close"}, "Traceparent": {"00-aa-bb-01"}},
	}
}

func deliverOne(t *testing.T, h *HTTP, m *relay.Message) (relay.Outcome, error) {
	t.Helper()
	out := make([]relay.Outcome, 1)
	err := h.Deliver(t.Context(), []*relay.Message{m}, out)
	return out[0], err
}

func TestHTTPRequest(t *testing.T) {
	var got *http.Request
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	defer srv.Close()
	cfg := httpConfig(srv.URL + "/v1/in?k=v")
	cfg.Headers = map[string]config.Secret{"Authorization": "Bearer s3cr3t"}
	m := message()
	m.Stream, m.Sequence = "ORDERS", 12345
	out, err := deliverOne(t, newHTTP(t, cfg), m)
	if err != nil || out.Status != relay.Delivered {
		t.Fatalf("outcome %v, error %v", out, err)
	}
	got.Header.Del("Accept-Encoding")
	want := http.Header{
		"Authorization": {"Bearer s3cr3t"}, "Content-Length": {"7"}, "Content-Type": {"application/octet-stream"}, "Idempotency-Key": {"id-1"},
		"Nats-Subject": {"orders.eu.1"}, "Nats-Stream": {"ORDERS"}, "Nats-Sequence": {"12345"}, "Nats-Timestamp": {"2026-11-01T12:00:00.000005Z"}, "Natsrelay-Via": {"a/b", "c/d"},
		"Traceparent": {"00-aa-bb-01"}, "User-Agent": {"natsrelay"}, "X-Mixed": {"1", "2"},
	}
	if diff := cmp.Diff(want, got.Header); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if got.Method != "POST" || got.URL.String() != "/v1/in?k=v" || string(body) != "payload" {
		t.Errorf("%s %s %q", got.Method, got.URL, body)
	}
}

// Which status says what of whom, as relay.toml has it.
func TestHTTPStatusClasses(t *testing.T) {
	const delivered, refused, retry, blocked = "delivered", "refused", "retry", "blocked"
	want := map[int]string{
		200: delivered, 201: delivered, 202: delivered, 204: delivered,
		408: retry, 425: retry, 429: retry, 500: retry, 502: retry, 503: retry, 504: retry, 599: retry,
		301: blocked, 302: blocked, 304: blocked, 307: blocked, 401: blocked, 403: blocked, 404: blocked, 405: blocked, 410: blocked, 409: blocked,
		400: refused, 413: refused, 414: refused, 415: refused, 422: refused,
	}
	var status atomic.Int64
	var requests atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(int(status.Load()))
	}))
	defer srv.Close()
	h := newHTTP(t, httpConfig(srv.URL))
	for code, class := range want {
		status.Store(int64(code))
		requests.Store(0)
		out, err := deliverOne(t, h, message())
		var fault *relay.Fault
		got := "error"
		switch {
		case err == nil && out.Status == relay.Delivered:
			got = delivered
		case err == nil && out.Status == relay.Refused:
			got = refused
		case errors.As(err, &fault) && fault.Blocked:
			got = blocked
		case errors.As(err, &fault):
			got = retry
		}
		if got != class {
			t.Errorf("status %d: %s (%v, %v), want %s", code, got, out, err, class)
		}
		if n := requests.Load(); n != 1 {
			t.Errorf("status %d: %d requests in one attempt, want 1", code, n)
		}
	}
}

func TestHTTPStatusOverrides(t *testing.T) {
	c := newStatusClasses(config.HTTPStatus{Retry: []int{404, 409, 431}, Poison: []int{207, 500}, Blocked: []int{400}}, true)
	for code, want := range map[int]statusClass{
		404: classRetry, 409: classRetry, 431: classRetry, 207: classRefused, 500: classRefused, 400: classBlocked,
		200: classDelivered, 503: classRetry, 422: classRefused, 401: classBlocked,
	} {
		if got := c.of(code); got != want {
			t.Errorf("status %d: class %d, want %d", code, got, want)
		}
	}
}

func TestHTTPRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "0": 0, "-3": 0, "soon": 0, "99999999999999999999": 0,
		"Sun, 01 Nov 2026 12:01:30 GMT": 90 * time.Second, "Sun, 01 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", value, got, want)
		}
	}
	for _, code := range []int{429, 503, 401} {
		for value, want := range map[string]time.Duration{
			"120": 2 * time.Minute, time.Now().Add(2 * time.Minute).UTC().Format(http.TimeFormat): 2 * time.Minute, "": 0,
		} {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", value)
				w.WriteHeader(code)
			}))
			_, err := deliverOne(t, newHTTP(t, httpConfig(srv.URL)), message())
			srv.Close()
			var fault *relay.Fault
			if !errors.As(err, &fault) || fault.RetryAfter > want || fault.RetryAfter < want-10*time.Second {
				t.Errorf("status %d, Retry-After %q: error %#v, want a fault with RetryAfter %v", code, value, err, want)
			}
		}
	}
}

// A peer that misbehaves costs an attempt, never a message, a hang or the relay's memory.
func TestHTTPMisbehavingServers(t *testing.T) {
	const short = 3 * time.Second
	timeouts := map[string]time.Duration{"silence": short, "slow headers": short, "slow body after a 200": 3 * short} // of those that end with it
	for name, tc := range map[string]struct {
		answer    func(net.Conn)
		delivered bool
	}{
		"closes at once":        {func(c net.Conn) {}, false},
		"half a status line":    {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 20") }, false},
		"not HTTP":              {func(c net.Conn) { io.WriteString(c, "220 smtp ready\r\n") }, false},
		"endless headers":       {func(c net.Conn) { endless(c, "HTTP/1.1 200 OK\r\n", "A: "+strings.Repeat("x", 1000)+"\r\n") }, false},
		"endless body of a 200": {func(c net.Conn) { endless(c, "HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("x", 1000)) }, true},
		"body of a 200 cut off": {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc") }, true},
		"body of a 503 cut off": {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\nabc") }, false},
		"silence":               {func(c net.Conn) { io.Copy(io.Discard, c) }, false},
		"slow body after a 200": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na")
			io.Copy(io.Discard, c)
		}, true},
		"reset in the body of a 200": {func(c net.Conn) { reset(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc") }, true},
		"reset in the body of a 503": {func(c net.Conn) { reset(c, "HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\nabc") }, false},
		"reset before an answer":     {func(c net.Conn) { reset(c, "") }, false},
		"body longer than it says":   {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc") }, true},
		"two lengths": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nabc")
		}, false},
		"slow headers":           {func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }, false},
		"only informational 1xx": {func(c net.Conn) { endless(c, "", "HTTP/1.1 103 Early Hints\r\n\r\n") }, false},
		"another protocol":       {func(c net.Conn) { io.WriteString(c, switching); io.Copy(io.Discard, c) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := httpConfig("http://" + rawServer(t, tc.answer))
			if timeout, ends := timeouts[name]; ends {
				cfg.Timeout = timeout
			}
			out, err := deliverOne(t, newHTTP(t, cfg), message())
			if got := out.Status == relay.Delivered; got != tc.delivered || got != (err == nil) || out.Status == relay.Refused {
				t.Errorf("outcome %v, error %v; want delivered: %v", out, err, tc.delivered)
			}
			if cfg.Timeout == short && (err == nil || !strings.Contains(err.Error(), "no answer within 3s (sink.timeout)")) {
				t.Errorf("error %v does not say which time is over", err)
			}
		})
	}
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n"

func endless(c net.Conn, begin, again string) {
	_, err := io.WriteString(c, begin)
	for err == nil {
		_, err = io.WriteString(c, again)
	}
}

// reset writes, and then breaks the connection off with a RST.
func reset(c net.Conn, s string) {
	io.WriteString(c, s)
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// drip writes a byte at a time, too slowly to come to an end before the sink gives up.
func drip(c net.Conn, s string) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := range s {
		if _, err := io.WriteString(c, s[i:i+1]); err != nil {
			return
		}
		<-tick.C
	}
}

// rawServer answers each connection's first request with answer, then closes it.
func rawServer(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Read(make([]byte, 4096))
				answer(c)
			}()
		}
	}()
	return l.Addr().String()
}

// An endpoint takes headers only up to a size. Those of one message are refused with it, and hold up no other; those of the configuration are wrong.
func TestHTTPHeadersTooLarge(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			srv.Config.MaxHeaderBytes = 16 << 10
			cfg := httpConfig("")
			cfg.TLS, cfg.HTTP2 = serveHTTP2(t, srv), http2
			cfg.URL = srv.URL
			h := newHTTP(t, cfg)
			large := message()
			large.Header["Large"] = []string{strings.Repeat("x", 40<<10)}
			deliver := func() {
				t.Helper()
				if out, err := deliverOne(t, h, message()); err != nil || out.Status != relay.Delivered {
					t.Fatalf("outcome %v, error %v", out, err)
				}
			}
			deliver()
			if out, err := deliverOne(t, h, large); err != nil || out.Status != relay.Refused || out.Code != 431 {
				t.Errorf("large: outcome %v, error %v; want it refused", out, err)
			}
			deliver()
			if a, err := h.Respond(t.Context(), large); err != nil || a.Fault == nil || a.Fault.Code != 431 {
				t.Errorf("large: answer %v, error %v; want a fault 431", a, err)
			}
			if http2 {
				return // the first request of a connection is under way before the endpoint has said what it takes
			}
			cfg.Format, cfg.Batch = "lines", config.Batch{Messages: 10, Bytes: 1 << 20}
			cfg.Headers = map[string]config.Secret{"Large": config.Secret(large.Header["Large"][0])}
			outcomes, _, err := deliverBatch(t, newHTTP(t, cfg), payloads("a", "b"))
			if fault, ok := errors.AsType[*relay.Fault](err); !ok || !fault.Blocked || outcomes != "UU" {
				t.Errorf("configured: outcomes %s, error %v; want a blocked fault", outcomes, err)
			}
		})
	}
}

// What a message expects of an endpoint is not passed on: one message must not block a route.
func TestHTTPExpect(t *testing.T) {
	srv := newRecorder(t, nil)
	m := message()
	m.Header["expect"] = []string{"the unexpected"}
	if out, err := deliverOne(t, newHTTP(t, httpConfig(srv.URL)), m); err != nil || out.Status != relay.Delivered {
		t.Errorf("outcome %v, error %v", out, err)
	}
}

// An id that would arrive as another one is not sent as it is.
func TestHTTPIdempotencyKey(t *testing.T) {
	seen := map[string]string{}
	for _, id := range []string{"a b", "a", " a", "a\t", "a\n", "a\x00", "é"} {
		key := idempotencyKey([]piece{{id: id}})
		if other, ok := seen[key]; ok || !validValue(key) || strings.TrimSpace(key) != key {
			t.Errorf("id %q has key %q, as has %q", id, key, other)
		}
		seen[key] = id
	}
	if seen["a"] != "a" || seen["a b"] != "a b" || seen["é"] != "é" {
		t.Errorf("keys %q", seen)
	}
}

func TestHTTPRefusedConnection(t *testing.T) {
	url := fmt.Sprintf("http://127.0.0.1:%d/in?token=s3cr3t", natstest.FreePort(t))
	out, err := deliverOne(t, newHTTP(t, httpConfig(url)), message())
	if err == nil || out.Status != relay.Unconfirmed || !strings.Contains(err.Error(), "connection refused") {
		t.Fatalf("outcome %v, error %v", out, err)
	}
	if strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("the error shows the URL's query: %v", err)
	}
}

// What HTTP cannot carry is the message's fault: sending it again for ever would block all behind it.
func TestHTTPHeadersThatCannotBeSent(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") }))
	defer srv.Close()
	h := newHTTP(t, httpConfig(srv.URL))
	for _, header := range []relay.Header{{"Two Words": {"x"}}, {"A": {"line\r\nInjected: yes"}}, {"": {"x"}}, {"Ü": {"x"}}, {"A": {"nul\x00"}}} {
		m := message()
		m.Header = header
		if out, err := deliverOne(t, h, m); err != nil || out.Status != relay.Refused || out.Err == nil {
			t.Errorf("header %q: outcome %v, error %v; want refused", header, out, err)
		}
	}
}

// Connections are kept as many as lanes use, whether or not the response has a body.
func TestHTTPKeepsConnections(t *testing.T) {
	var opened atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write(make([]byte, 10_000))
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	h := newHTTP(t, httpConfig(srv.URL))
	for range 100 {
		if _, err := deliverOne(t, h, message()); err != nil {
			t.Fatal(err)
		}
	}
	// net/http gives a connection up if its writer gets no processor for 50 ms after the answer is there.
	if n := opened.Load(); n > 5 {
		t.Errorf("%d connections for 100 requests of one lane, want 1", n)
	}
}

func TestHTTPWithOwnAuthority(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := httpConfig(srv.URL)
	if out, err := deliverOne(t, newHTTP(t, cfg), message()); err == nil || out.Status != relay.Unconfirmed {
		t.Errorf("unknown authority: outcome %v, error %v; want an error", out, err)
	}
	cfg.TLS = &config.HTTPTLS{CA: ca}
	if out, err := deliverOne(t, newHTTP(t, cfg), message()); err != nil || out.Status != relay.Delivered {
		t.Errorf("with its authority: outcome %v, error %v; want delivered", out, err)
	}
}

func TestHTTPDeliverEndsWithItsContext(t *testing.T) {
	h := newHTTP(t, httpConfig("http://"+rawServer(t, func(c net.Conn) { io.Copy(io.Discard, c) })))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	out := make([]relay.Outcome, 1)
	if err := h.Deliver(ctx, []*relay.Message{message()}, out); err == nil || out[0].Status != relay.Unconfirmed {
		t.Errorf("outcome %v, error %v; want an error", out, err)
	}
}
