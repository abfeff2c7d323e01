package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// dial opens a connection that sends what it is given, byte by byte or at once.
func (a *adminAPI) dial(text string) net.Conn {
	a.t.Helper()
	conn, err := net.Dial("tcp", a.addr)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		a.t.Fatal(err)
	}
	return conn
}

// closedWithin reports whether the server closes the connection, with or without an answer.
func closedWithin(conn net.Conn, limit time.Duration) bool {
	conn.SetReadDeadline(time.Now().Add(limit))
	_, err := io.Copy(io.Discard, conn)
	netErr, ok := errors.AsType[net.Error](err)
	return !(ok && netErr.Timeout())
}

// Requests that are too large are refused, whatever is too large about them.
func TestAdminLargeRequests(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, "", "", "")
	large := strings.Repeat("x", 1<<20)
	for name, header := range map[string]string{"one header": "X: " + large[:100<<10], "credentials": "Authorization: Bearer " + large[:100<<10]} {
		if code, _, err := s.try("GET", "/livez", nil, header); err == nil && code != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: %d", name, code)
		}
	}
	if code, _, err := s.try("GET", "/livez?"+large[:100<<10], nil); err == nil && code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("query: %d", code)
	}
	if code, text, err := s.try("POST", "/api/v1/routes/web/spool/drop", strings.NewReader(`{"x": "`+large+`", "yes": true}`)); err == nil && code != http.StatusBadRequest {
		t.Errorf("body: %d %s", code, text)
	}
	// One without an end: it is answered, and not read.
	conn := s.dial("POST /api/v1/routes/web/resume HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
	go func() {
		chunk := fmt.Appendf(nil, "%x\r\n%s\r\n", 1<<16, large[:1<<16])
		for {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	}()
	if !closedWithin(conn, 40*time.Second) {
		t.Error("a body without an end is read on and on")
	}
	if code, _ := s.ask("GET", "/livez", nil); code != http.StatusOK {
		t.Errorf("afterwards: %d", code)
	}
}

// Clients that are slow on purpose are shown out, and nobody else notices them.
func TestAdminSlowClients(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, "", "", "")
	var waiting sync.WaitGroup
	slow := func(name string, limit time.Duration, conn net.Conn, drip string) {
		waiting.Go(func() {
			done := make(chan struct{})
			go func() {
				defer close(done)
				for i := 0; ; i++ {
					if _, err := conn.Write([]byte{drip[i%len(drip)]}); err != nil {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			}()
			if !closedWithin(conn, limit) {
				t.Errorf("%s: still there after %v", name, limit)
			}
			conn.Close()
			<-done
		})
	}
	for range 20 {
		slow("headers, byte by byte", 40*time.Second, s.dial("GET /livez HTTP/1.1\r\nHost: localhost\r\n"), "X: y\r\n")
		slow("a body, byte by byte", 40*time.Second, s.dial("POST /api/v1/routes/web/spool/drop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n"), " ")
	}
	for range 50 {
		if code, _ := s.ask("GET", "/readyz", nil); code != http.StatusOK {
			t.Errorf("readyz meanwhile: %d", code)
		}
		time.Sleep(50 * time.Millisecond)
	}
	waiting.Wait()
}

// A thousand idle connections keep neither messages nor requests from getting through, and are not kept.
func TestAdminIdleConnections(t *testing.T) {
	t.Parallel()
	const idle, kept, n = 1000, 128, 2000
	s := newAdminSetup(t, "", "", "")
	conns := make([]net.Conn, idle)
	for i := range conns {
		text := ""
		if i%2 == 1 { // half of them have been of use before
			text = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
		}
		conns[i] = s.dial(text)
	}
	publishAt(t, s.edge.Client(), 0, n, 2000)
	within(t, 60*time.Second, func() bool { return s.web.tally.count() == n }, "all messages arrive")
	for range 20 {
		if code, _ := s.ask("GET", "/readyz", nil); code != http.StatusOK {
			t.Errorf("readyz: %d", code)
		}
		s.client.CloseIdleConnections() // a new one each time
	}
	const soon = 40 * time.Second // by themselves idle connections end after a minute
	var closed atomic.Int32
	for _, conn := range conns {
		go func() {
			if closedWithin(conn, soon) {
				closed.Add(1)
			}
		}()
	}
	within(t, soon, func() bool { return closed.Load() >= idle-kept }, "all but %d idle connections are closed", kept)
	s.web.tally.check(t, "web", n, 0)
}

// Streams are bounded, and one that ends makes room for another.
func TestAdminStreams(t *testing.T) {
	t.Parallel()
	const most = 16
	s := newAdminSetup(t, "", "", "")
	var open []*http.Response
	for i := range most + 1 {
		res, err := http.Get("http://" + s.addr + "/api/v1/events")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		want := http.StatusOK
		if i == most {
			want = http.StatusServiceUnavailable
		}
		if res.StatusCode != want {
			t.Errorf("stream %d: %d, want %d", i, res.StatusCode, want)
		}
		open = append(open, res)
	}
	if code, _ := s.ask("GET", "/api/v1/status", nil); code != http.StatusOK {
		t.Errorf("status meanwhile: %d", code)
	}
	open[0].Body.Close()
	within(t, 60*time.Second, func() bool {
		res, err := http.Get("http://" + s.addr + "/api/v1/events")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		first := make([]byte, 13)
		_, err = io.ReadFull(res.Body, first)
		return err == nil && bytes.Equal(first, []byte("event: status"))
	}, "a place is free again")
}
