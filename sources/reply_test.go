package sources

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/relay"
)

// startReplying is a source that answers as it is told; what it receives besides goes to the harness.
func startReplying(t *testing.T, conf string, answer relay.Answer) (*harness, *nats.Conn) {
	t.Helper()
	srv := natstest.Start(t, conf, nil)
	h := prepare(t, natstest.Config(srv.URL()), "", "s.>")
	h.src.cfg.Reply = true
	h.answer = func(m *relay.Message) error { return m.Respond(answer) }
	h.run()
	nc := srv.Client()
	h.waitSubscribed(nc)
	return h, nc
}

func TestReply(t *testing.T) {
	for name, tc := range map[string]struct {
		answer relay.Answer
		want   nats.Msg
	}{
		"body and headers": {
			relay.Answer{Header: relay.Header{"Content-Type": {"a/b"}, "x-two": {"1", "2"}}, Data: []byte("hello")},
			nats.Msg{Header: nats.Header{"Content-Type": {"a/b"}, "x-two": {"1", "2"}}, Data: []byte("hello")},
		},
		"nothing": {relay.Answer{}, nats.Msg{}},
		"service error": {
			relay.Answer{Header: relay.Header{"A": {"1"}}, Data: []byte("sorry"), Fault: &relay.AnswerFault{Code: 404, Text: "Not Found"}},
			nats.Msg{Header: nats.Header{"A": {"1"}, "Nats-Service-Error": {"Not Found"}, "Nats-Service-Error-Code": {"404"}}, Data: []byte("sorry")},
		},
		"more than the server takes": {
			relay.Answer{Data: make([]byte, 2000)},
			nats.Msg{Header: nats.Header{"Nats-Service-Error": {"response too large"}, "Nats-Service-Error-Code": {"502"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, nc := startReplying(t, "max_payload: 1000", tc.answer)
			got, err := nc.Request("s.x", []byte("q"), patience)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want.Header, got.Header); diff != "" || string(got.Data) != string(tc.want.Data) {
				t.Errorf("data %q, headers (-want +got):\n%s", got.Data, diff)
			}
		})
	}
}

// Nobody gets an answer who has not asked: neither messages without a reply subject, nor the server's own subjects, where an
// answer would be taken for an acknowledgement.
func TestReplyToRequestsOnly(t *testing.T) {
	h, nc := startReplying(t, "", relay.Answer{Data: []byte("answer")})
	all, err := nc.SubscribeSync("$KV.>")
	if err != nil {
		t.Fatal(err)
	}
	publish(t, nc, "s.ack", "message")
	for _, reply := range []string{"$KV.a", "$KV.a.b"} { // clients must not name $JS.ACK here, only the server does
		if err := nc.PublishRequest("s.ack", reply, []byte("message")); err != nil {
			t.Fatal(err)
		}
	}
	natstest.Eventually(t, "the messages arrive", func() bool { return strings.Count(strings.Join(h.data(), " "), "message") == 3 })
	// An answer would have been on its way before this one.
	if _, err := nc.Request("s.x", nil, patience); err != nil {
		t.Fatal(err)
	}
	if m, err := all.NextMsg(time.Millisecond); err == nil {
		t.Errorf("answered on %s: %q", m.Subject, m.Data)
	}
}

// Without reply = true the source answers nothing.
func TestNoReply(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	h := start(t, srv, "", "s")
	if err := srv.Client().PublishRequest("s", "_INBOX.x", []byte("request")); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "it arrives", func() bool { return h.count() > 0 })
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.msgs[0].Respond != nil {
		t.Error("the message can be answered")
	}
}
