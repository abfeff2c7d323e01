package sinks

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/relay"
)

func TestHTTP2(t *testing.T) {
	for _, on := range []bool{true, false} {
		var proto string
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { proto = r.Proto }))
		ca := serveHTTP2(t, srv)
		cfg := httpConfig(srv.URL)
		cfg.TLS, cfg.HTTP2 = ca, on
		if out, err := deliverOne(t, newHTTP(t, cfg), message()); err != nil || out.Status != relay.Delivered {
			t.Fatalf("outcome %v, error %v", out, err)
		}
		if want := map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[on]; proto != want {
			t.Errorf("http2 = %v: %s, want %s", on, proto, want)
		}
	}
}

// A request that takes too long is said to, over HTTP/2 too.
func TestHTTP2Timeout(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	cfg := httpConfig("")
	cfg.TLS, cfg.HTTP2, cfg.Timeout = serveHTTP2(t, srv), true, 500*time.Millisecond
	cfg.URL = srv.URL
	if out, err := deliverOne(t, newHTTP(t, cfg), message()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("outcome %v, error %v", out, err)
	}
}

// A server that says goodbye has not processed the request: it goes out again on a new connection, and arrives once. If it says nothing
// but goodbye the attempt fails.
func TestHTTP2GoAway(t *testing.T) {
	for name, tc := range map[string]struct {
		goodbyes  int64
		timeout   time.Duration
		delivered bool
	}{"once": {1, time.Minute, true}, "always": {1 << 30, 2 * time.Second, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var arrived atomic.Int64
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived.Add(1) }))
			left := new(atomic.Int64)
			left.Store(tc.goodbyes)
			ca := serveHTTP2(t, srv)
			// In front of the real server stands one that only knows how to say goodbye.
			front := goodbyeServer(t, srv.TLS, left, srv.Listener.Addr().String())
			cfg := httpConfig("https://" + front)
			cfg.TLS, cfg.HTTP2, cfg.Timeout = ca, true, tc.timeout
			out, err := deliverOne(t, newHTTP(t, cfg), message())
			if got := out.Status == relay.Delivered; got != tc.delivered || got != (err == nil) {
				t.Errorf("outcome %v, error %v; want delivered: %v", out, err, tc.delivered)
			}
			if n := arrived.Load(); n > 1 || (n == 1) != tc.delivered {
				t.Errorf("arrived %d times", n)
			}
		})
	}
}

// serveHTTP2 starts the server with TLS and returns what a client needs to trust it.
func serveHTTP2(t *testing.T, srv *httptest.Server) *config.HTTPTLS {
	t.Helper()
	ca := natstest.NewCA(t, "authority")
	cert, key := ca.Issue("server")
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{*pair(t, cert, key)}, NextProtos: []string{"h2", "http/1.1"}}
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return &config.HTTPTLS{CA: ca.File()}
}

// goodbyeServer answers the first request of each connection with GOAWAY, as long as any goodbyes are left, and passes later connections on.
func goodbyeServer(t *testing.T, cfg *tls.Config, left *atomic.Int64, next string) string {
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
			if left.Add(-1) >= 0 {
				go goodbye(tls.Server(c, cfg))
			} else {
				go passOn(c, next)
			}
		}
	}()
	return l.Addr().String()
}

// goodbye is an HTTP/2 connection that ends with GOAWAY after its first HEADERS, with no stream processed (RFC 9113, section 6.8).
func goodbye(c net.Conn) {
	defer c.Close()
	const headers, settings, goAway = 1, 4, 7
	c.Write(frame(settings, nil))
	if _, err := io.CopyN(io.Discard, c, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return
	}
	for {
		var head [9]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, c, int64(head[0])<<16|int64(head[1])<<8|int64(head[2])); err != nil {
			return
		}
		if head[3] == headers {
			c.Write(frame(goAway, make([]byte, 8))) // last stream 0, no error
			io.Copy(io.Discard, c)
			return
		}
	}
}

// frame is an HTTP/2 frame of stream 0 without flags.
func frame(kind byte, payload []byte) []byte {
	f := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	return append(append(f, make([]byte, 5)...), payload...)
}

func passOn(c net.Conn, to string) {
	defer c.Close()
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	go io.Copy(far, c)
	io.Copy(c, far)
}

// A TLS handshake that fails is the endpoint's failure, and may pass: certificates are renewed.
func TestHTTPTLSFailures(t *testing.T) {
	ca := natstest.NewCA(t, "authority")
	cert, key := ca.Issue("server")
	for name, tc := range map[string]struct {
		server *tls.Config // nil: none, plain HTTP
		client config.HTTPTLS
	}{
		"unknown authority":      {&tls.Config{}, config.HTTPTLS{CA: natstest.NewCA(t, "other").File()}},
		"other name":             {&tls.Config{}, config.HTTPTLS{CA: ca.File(), ServerName: "other.example"}},
		"old TLS":                {&tls.Config{MaxVersion: tls.VersionTLS11}, config.HTTPTLS{CA: ca.File()}},
		"no certificate of ours": {&tls.Config{ClientAuth: tls.RequireAnyClientCert}, config.HTTPTLS{CA: ca.File()}},
		"plain HTTP":             {nil, config.HTTPTLS{CA: ca.File()}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }))
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			if tc.server == nil {
				srv.Start()
			} else {
				tc.server.Certificates = []tls.Certificate{*pair(t, cert, key)}
				srv.TLS = tc.server
				srv.StartTLS()
			}
			defer srv.Close()
			cfg := httpConfig("https://" + srv.Listener.Addr().String())
			cfg.TLS = &tc.client
			out, err := deliverOne(t, newHTTP(t, cfg), message())
			if err == nil || out.Status != relay.Unconfirmed {
				t.Errorf("outcome %v, error %v; want an error", out, err)
			}
		})
	}
}
