package listen

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLine(t *testing.T) {
	long := strings.Repeat("x", excerptLen-1) + "ä" + "rest"
	tests := []struct {
		name, method, target, subject, id, body string
		want                                    string
	}{
		{"message", "POST", "/v1/orders", "orders.eu.1", "A1", `{"n":1}`, `200 POST /v1/orders  orders.eu.1  id=A1  7 B  {"n":1}`},
		{"bare", "GET", "/", "", "", "", `200 GET /  -  id=-  0 B`},
		{"escaped", "POST", "/a%0Ab", "s\tx", "\"q\"", "\x1b[31mred\xff", `200 POST /a\nb  s\tx  id="q"  9 B  \x1b[31mred\xff`},
		{"shortened", "POST", "/", "s", "1", long, "200 POST /  s  id=1  101 B  " + strings.Repeat("x", excerptLen-1) + "…"},
		{"refused", "POST", "/status/422/x", "s", "1", "", "422 POST /status/422/x  s  id=1  0 B"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			r := New(&out)
			r.now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC) }
			req := httptest.NewRequest(tt.method, tt.target, strings.NewReader(tt.body))
			req.Header.Set("Nats-Subject", tt.subject)
			req.Header.Set("Idempotency-Key", tt.id)
			r.ServeHTTP(httptest.NewRecorder(), req)
			if want := "03:04:05.006 " + tt.want + "\n"; out.String() != want {
				t.Errorf("got  %q\nwant %q", out.String(), want)
			}
		})
	}
}

func TestConduct(t *testing.T) {
	tests := []struct {
		path   string
		status int
		wait   time.Duration
	}{
		{"/", 200, 0},
		{"/v1/status/503", 200, 0},
		{"/status/503", 503, 0},
		{"/status/204/v1/orders", 204, 0},
		{"/status/100", 404, 0},
		{"/status", 404, 0},
		{"/slow/10s", 200, 10 * time.Second},
		{"/slow/1s/status/500/v1", 500, time.Second},
		{"/slow/soon", 404, 0},
		{"/slow/-1s", 404, 0},
		{"/flaky/0", 200, 0},
		{"/flaky/100", 503, 0},
		{"/flaky/101", 404, 0},
	}
	for _, tt := range tests {
		if got := conductOf(tt.path); got.status != tt.status || got.wait != tt.wait {
			t.Errorf("%s: status %d after %v, want %d after %v", tt.path, got.status, got.wait, tt.status, tt.wait)
		}
	}
}

func TestFlakyIsSometimes(t *testing.T) {
	failed := 0
	for range 1000 {
		if conductOf("/flaky/30").status != http.StatusOK {
			failed++
		}
	}
	if failed < 200 || failed > 400 {
		t.Errorf("/flaky/30 failed %d times in 1000", failed)
	}
}

func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		rec := httptest.NewRecorder()
		New(io.Discard).ServeHTTP(rec, httptest.NewRequest("POST", "/slow/10s", nil))
		if took := time.Since(start); rec.Code != http.StatusOK || took != 10*time.Second {
			t.Errorf("status %d after %v", rec.Code, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		rec = httptest.NewRecorder()
		New(io.Discard).ServeHTTP(rec, httptest.NewRequestWithContext(ctx, "POST", "/slow/10s", nil))
		if rec.Code != http.StatusServiceUnavailable {
			t.Errorf("status %d after its client has gone", rec.Code)
		}
	})
}

func TestBodyTooLarge(t *testing.T) {
	rec := httptest.NewRecorder()
	body := io.LimitReader(zeros{}, maxBody+1)
	New(io.Discard).ServeHTTP(rec, httptest.NewRequest("POST", "/", body))
	if rec.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d", rec.Code)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestServeStopsGracefully(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var out bytes.Buffer
	served := make(chan error, 1)
	go func() { served <- New(&out).Serve(ctx, ln) }()
	url := "http://" + ln.Addr().String()
	for _, path := range []string{"/", "/status/503", "/a"} {
		resp, err := http.Post(url+path, "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	stop()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if want := "3 requests, 15 bytes: 2 × 200, 1 × 503\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("got %q, want %q at its end", out.String(), want)
	}
	if _, err := http.Get(url); err == nil {
		t.Error("it still answers")
	}
}
