package sinks

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/natsrelay/natsrelay/relay"
)

var _ relay.Responder = (*HTTP)(nil)

func TestHTTPRespond(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header()["Date"] = nil
		w.Header().Set("Content-Type", "a/b")
		w.Header().Add("X-Two", "1")
		w.Header().Add("X-Two", "2")
		w.Header().Set("Location", "/elsewhere")
		for _, key := range []string{"Status", "Nats-Service-Error", "Natsrelay-Via", "Keep-Alive"} {
			w.Header().Set(key, "503") // must not get through
		}
		code, _ := strconv.Atoi(r.Header.Get("Want"))
		w.WriteHeader(code)
		if code != 204 {
			io.WriteString(w, r.Header.Get("Nats-Subject")+" "+string(body))
		}
	}))
	defer srv.Close()
	h := newHTTP(t, httpConfig(srv.URL))
	for code, want := range map[int]relay.Answer{
		200: {Data: []byte("orders.eu.1 payload")},
		204: {Data: []byte{}},
		302: {Data: []byte("orders.eu.1 payload")},
		404: {Data: []byte("orders.eu.1 payload"), Fault: &relay.AnswerFault{Code: 404, Text: "Not Found"}},
		422: {Data: []byte("orders.eu.1 payload"), Fault: &relay.AnswerFault{Code: 422, Text: "Unprocessable Entity"}},
		503: {Data: []byte("orders.eu.1 payload"), Fault: &relay.AnswerFault{Code: 503, Text: "Service Unavailable"}},
		599: {Data: []byte("orders.eu.1 payload"), Fault: &relay.AnswerFault{Code: 599, Text: "status 599"}},
	} {
		m := message()
		m.Header["Want"] = []string{strconv.Itoa(code)}
		got, err := h.Respond(t.Context(), m)
		if err != nil {
			t.Errorf("%d: %v", code, err)
			continue
		}
		want.Header = relay.Header{"Content-Type": {"a/b"}, "X-Two": {"1", "2"}, "Location": {"/elsewhere"}, "Natsrelay-Status": {strconv.Itoa(code)}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d (-want +got):\n%s", code, diff)
		}
	}
}

func TestHTTPRespondFailures(t *testing.T) {
	const short = 3 * time.Second // of those that end with it
	for name, tc := range map[string]struct {
		answer func(net.Conn)
		want   string // of the error
	}{
		"closes at once": {func(net.Conn) {}, "EOF"},
		"silence":        {func(c net.Conn) { io.Copy(io.Discard, c) }, "deadline exceeded"},
		"slow body": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na")
			io.Copy(io.Discard, c)
		}, "deadline exceeded"},
		"body cut off": {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na") }, "unexpected EOF"},
		"endless body": {func(c net.Conn) { endless(c, "HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("x", 1<<20)) }, "502 response too large"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := httpConfig("http://" + rawServer(t, tc.answer))
			if tc.want == "deadline exceeded" {
				cfg.Timeout = short
			}
			a, err := newHTTP(t, cfg).Respond(t.Context(), message())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("answer %v, error %v; want %s", a, err, tc.want)
			}
			if got := errors.Is(err, context.DeadlineExceeded); got != (tc.want == "deadline exceeded") {
				t.Errorf("time-out: %v, of %v", got, err)
			}
		})
	}
}

func TestHTTPRespondToWhatCannotBeSent(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") }))
	defer srv.Close()
	m := message()
	m.Header = relay.Header{"Two Words": {"x"}}
	_, err := newHTTP(t, httpConfig(srv.URL)).Respond(t.Context(), m)
	if fault, ok := errors.AsType[*relay.AnswerFault](err); !ok || fault.Code != 400 {
		t.Errorf("error %v, want a fault 400", err)
	}
}
