package sinks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
	"github.com/natsrelay/natsrelay/relay"
)

func TestJetStreamDelivers(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			createStream(t, srv.Client(), "")
			s := newJetStream(t, natstest.Config(srv.URL()), way)
			for from := 0; from < 6000; from += 1000 {
				if _, err := deliver(s, numbered(from, 1000)...); err != nil {
					t.Fatal(err)
				}
			}
			for n := 6000; n < 6100; n++ {
				if _, err := deliver(s, numbered(n, 1)...); err != nil {
					t.Fatal(err)
				}
			}
			checkInOrder(t, numbers(t, stored(t, srv.Client())), 6100)
		})
	}
}

// Headers go as they came, except those that are meant for the stream that the message comes from; the id is added where it is wanted.
func TestJetStreamHeaders(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			createStream(t, srv.Client(), "")
			s := newJetStream(t, natstest.Config(srv.URL()), way)
			header := relay.Header{
				"type": {"a", "b"}, "Nats-Expected-Last-Sequence": {"77"}, "Nats-Expected-Stream": {"ELSEWHERE"}, "Nats-Batch-Id": {"x"},
				"Nats-Batch-Sequence": {"1"}, "Nats-Stream-Source": {"S 1 > > t.x"}, "Status": {"503"},
			}
			for range 2 { // the second time by fast ingest, where that is the way
				if _, err := deliver(s, &relay.Message{Subject: "t.x", Header: header, Data: []byte("1"), ID: fmt.Sprint("id", time.Now().UnixNano())}); err != nil {
					t.Fatal(err)
				}
			}
			for _, m := range stored(t, srv.Client()) {
				h := m.Headers()
				if id := h.Get("Nats-Msg-Id"); (id != "") != s.dedupe {
					t.Errorf("Nats-Msg-Id %q with dedupe = %t", id, s.dedupe)
				}
				delete(h, "Nats-Msg-Id")
				if diff := cmp.Diff(nats.Header{"type": {"a", "b"}, "Status": {"503"}}, h); diff != "" {
					t.Errorf("headers (-want +got)\n%s", diff)
				}
			}
			if len(header) != 7 {
				t.Error("the message's own headers were changed")
			}
		})
	}
}

// What a message of a stream asks of that, and the target is not made for, stays behind; the message is stored.
func TestJetStreamHeadersForAnotherStream(t *testing.T) {
	header := relay.Header{
		"Nats-TTL": {"1h"}, "Nats-Rollup": {"sub"}, "Nats-Marker-Reason": {"MaxAge"},
		"Nats-Scheduler": {"t.every"}, "Nats-Schedule-Next": {"2026-01-01T00:00:00Z"}, // as a schedule leaves it with what it brings forth
	}
	permissive := `, "allow_msg_ttl": true, "allow_rollup_hdrs": true, "allow_msg_schedules": true`
	for settings, want := range map[string]nats.Header{
		"":         {"Nats-Marker-Reason": {"MaxAge"}},
		permissive: {"Nats-Marker-Reason": {"MaxAge"}, "Nats-TTL": {"1h"}, "Nats-Rollup": {"sub"}},
	} {
		for name, way := range ways {
			t.Run(fmt.Sprint(name, len(want)), func(t *testing.T) {
				srv := natstest.Start(t, natstest.JetStream(t), nil)
				createStream(t, srv.Client(), settings)
				s := newJetStream(t, natstest.Config(srv.URL()), way)
				batch := numbered(0, 6)
				batch[1].Header, batch[4].Header = header, maps.Clone(header)
				batch[4].Header["Nats-Schedule"], batch[4].Header["Nats-Schedule-Target"] = []string{"@every 1h"}, []string{"t.y"}
				if settings == "" {
					batch[4].Header["Nats-Incr"] = []string{"+1"}
				}
				for i, m := range batch {
					m.Subject = fmt.Sprint("t.", i)
				}
				deliverAll(t, s, batch)
				msgs := stored(t, srv.Client())
				if len(msgs) != 6 {
					t.Fatalf("%d messages are stored, want 6", len(msgs))
				}
				for _, m := range msgs {
					if i := string(m.Data()); i == "1" || i == "4" {
						h := m.Headers()
						delete(h, "Nats-Msg-Id")
						delete(h, headerExpectedLastID)
						if diff := cmp.Diff(want, h); diff != "" {
							t.Errorf("headers of message %s (-want +got)\n%s", i, diff)
						}
					}
				}
			})
		}
	}
}

// What the stream has already counts as delivered, alone and among others.
func TestJetStreamDuplicates(t *testing.T) {
	for _, name := range []string{"fast", "chained", "unordered"} {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			createStream(t, srv.Client(), "")
			s := newJetStream(t, natstest.Config(srv.URL()), ways[name])
			for _, batch := range [][]*relay.Message{numbered(0, 10), numbered(5, 10), numbered(0, 15), numbered(3, 1), numbered(10, 10)} {
				if _, err := deliver(s, batch...); err != nil {
					t.Fatal(err)
				}
			}
			mixed := slices.Concat(numbered(20, 2), numbered(0, 3), numbered(22, 2), numbered(20, 1), numbered(24, 1))
			if _, err := deliver(s, mixed...); err != nil {
				t.Fatal(err)
			}
			checkInOrder(t, numbers(t, stored(t, srv.Client())), 25)
		})
	}
}

// A message that the stream will never take is refused, wherever in the batch it is; the others are stored, in order.
func TestJetStreamRefuses(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, natstest.JetStream(t)+"\nmax_payload: 4000", nil)
			createStream(t, srv.Client(), `, "max_msg_size": 2000`)
			s := newJetStream(t, natstest.Config(srv.URL()), way)
			deliverAll(t, s, numbered(0, 5))
			batch := numbered(5, 20)
			bad := map[int]string{0: "max_payload", 4: "message size exceeds maximum allowed (10054)", 5: "Nats-Rollup", 11: "per-message TTL is disabled", 19: "blank"}
			batch[0].Data = make([]byte, 4001)
			batch[4].Data = make([]byte, 2001)
			batch[5].Header = relay.Header{"Nats-Rollup": {"sub"}}
			batch[11].Header = relay.Header{"Nats-TTL": {"1h"}}
			batch[5].Stream, batch[11].Stream = "", "" // from a stream, they would be stored without these
			batch[19].Subject = "t.x y"
			bad[5] = "rollup not permitted (10111)"
			out, err := deliver(s, batch...)
			if err != nil {
				t.Fatal(err)
			}
			var want []int
			for i := range 25 {
				reason, refused := bad[i-5]
				switch {
				case i < 5:
				case !refused && out[i-5].Status != relay.Delivered:
					t.Errorf("message %d: %+v", i, out[i-5])
				case refused && (out[i-5].Status != relay.Refused || !strings.Contains(out[i-5].Err.Error(), reason)):
					t.Errorf("message %d: %+v, want it refused for %q", i, out[i-5], reason)
				}
				if !refused || i < 5 {
					want = append(want, i)
				}
			}
			got := numbers(t, stored(t, srv.Client()))
			if name == "unordered" {
				slices.Sort(got)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("stored (-want +got)\n%s", diff)
			}
		})
	}
}

// blockedOn expects that delivering blocks, for this reason.
func blockedOn(t *testing.T, s *JetStream, reason string) {
	t.Helper()
	_, err := deliver(s, numbered(0, 3)...)
	fault, ok := errors.AsType[*relay.Fault](err)
	if !ok || !fault.Blocked || !strings.Contains(err.Error(), reason) {
		t.Errorf("error %v, want a blocked fault with %q", err, reason)
	}
}

func TestJetStreamBlocksOnWhatSomebodyHasToMend(t *testing.T) {
	exactly := func(c *config.NATSSink, o *JetStreamOptions) {
		c.JetStream.ExactlyOnce, o.Ordering = true, relay.OrderStrict
	}
	for name, c := range map[string]struct {
		stream string // settings of the API
		change func(*config.NATSSink, *JetStreamOptions)
		want   string
	}{
		"sealed":              {"", nil, "it is sealed"},
		"no acks":             {`, "no_ack": true`, nil, "it acknowledges nothing"},
		"mirror":              {`, "subjects": [], "allow_batched": false, "mirror": {"name": "X"}`, nil, "it is a mirror"},
		"exactly once, queue": {`, "retention": "workqueue"`, exactly, `"workqueue" forgets what was consumed`},
		"another subject":     {`, "subjects": ["u.>"]`, nil, `does not take subject "t.x", and no other stream does; its subjects are ["u.>"]`},
		"counters":            {`, "allow_msg_counter": true`, nil, "message counter increment is missing"},
		"another stream's":    {`, "name": "U"`, func(c *config.NATSSink, o *JetStreamOptions) { c.JetStream.Stream = "V" }, "does not exist; create it"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			if name == "another stream's" {
				createStream(t, srv.Client(), "")
			} else {
				createStream(t, srv.Client(), c.stream)
			}
			if name == "sealed" {
				if m, err := srv.Client().Request("$JS.API.STREAM.UPDATE.T", []byte(`{"name": "T", "subjects": ["t.>"], "sealed": true}`), 10*time.Second); err != nil {
					t.Fatal(err, m)
				}
			}
			s := newJetStream(t, natstest.Config(srv.URL()), c.change)
			natstest.Eventually(t, "blocked", func() bool { // one that does not listen is told from one that does not listen yet by looking again
				_, err := deliver(s, numbered(0, 3)...)
				fault, ok := errors.AsType[*relay.Fault](err)
				return ok && fault.Blocked
			})
			if name != "another subject" {
				blockedOn(t, s, c.want)
				return
			}
			for range 2 {
				if _, err := deliver(s, numbered(0, 3)...); err != nil && strings.Contains(err.Error(), c.want) {
					return
				}
			}
			t.Errorf("never blocked on %q", c.want)
		})
	}
}

// In a domain, what is asked of the stream goes to that domain, and its acknowledgements are read.
func TestJetStreamInADomain(t *testing.T) {
	for name, way := range map[string]func(*config.NATSSink, *JetStreamOptions){"fast": ways["fast"], "spaced": ways["spaced"], "exactly once": exactlyOnce("chained")} {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, fmt.Sprintf("jetstream: {store_dir: %q, domain: hub}", t.TempDir()), nil)
			createStream(t, srv.Client(), "")
			cfg := natstest.Config(srv.URL())
			cfg.JetStreamDomain = "hub"
			s := newJetStream(t, cfg, way)
			for n := 0; n < 100; n += 50 {
				deliverAll(t, s, numbered(n, 50))
			}
			checkInOrder(t, numbers(t, stored(t, srv.Client())), 100)
			cfg = natstest.Config(srv.URL())
			cfg.JetStreamDomain = "elsewhere"
			if _, err := deliver(newJetStream(t, cfg, way), numbered(100, 1)...); err == nil || !strings.Contains(err.Error(), "in this domain?") {
				t.Errorf("in another domain: %v", err)
			}
		})
	}
}

// A stream that another one's subjects belong to never makes a message count as delivered.
func TestJetStreamOfAnotherName(t *testing.T) {
	srv := natstest.Start(t, natstest.JetStream(t), nil)
	nc := srv.Client()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for name, subject := range map[string]string{"T": "other", "U": "t.>"} {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{subject}}); err != nil {
			t.Fatal(err)
		}
	}
	s := newJetStream(t, natstest.Config(srv.URL()), nil)
	blockedOn(t, s, `the subject is stream "U"'s, and not "T"'s`)
}

func TestJetStreamMissingThenCreated(t *testing.T) {
	srv := natstest.Start(t, natstest.JetStream(t), nil)
	s := newJetStream(t, natstest.Config(srv.URL()), nil)
	blockedOn(t, s, "it does not exist; create it, or let the relay do so with create_stream")
	createStream(t, srv.Client(), "")
	deliverAll(t, s, numbered(0, 100))
	if m, err := srv.Client().Request("$JS.API.STREAM.DELETE.T", nil, 10*time.Second); err != nil || strings.Contains(string(m.Data), "error") {
		t.Fatal(err, m)
	}
	natstest.Eventually(t, "blocked after the stream was deleted", func() bool {
		_, err := deliver(s, numbered(100, 3)...)
		fault, ok := errors.AsType[*relay.Fault](err)
		return ok && fault.Blocked
	})
	createStream(t, srv.Client(), "")
	deliverAll(t, s, numbered(0, 100))
	checkInOrder(t, numbers(t, stored(t, srv.Client())), 100)
}

func TestJetStreamCreatesTheStream(t *testing.T) {
	srv := natstest.Start(t, natstest.JetStream(t), nil)
	s := newJetStream(t, natstest.Config(srv.URL()), func(c *config.NATSSink, o *JetStreamOptions) {
		c.JetStream.Create = &config.CreateStream{
			Subjects: []string{"t.>"}, Replicas: 1, Storage: "memory", Retention: "limits", Discard: "new", MaxMessages: 1000, MaxBytes: 1 << 20,
			MaxAge: time.Hour, DuplicateWindow: time.Minute, Compression: "s2",
		}
	})
	deliverAll(t, s, numbered(0, 100))
	info, err := streamAPI(t.Context(), s.conn, srv.Client(), "STREAM.INFO", "T", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := streamConfig{
		Name: "T", Subjects: []string{"t.>"}, Replicas: 1, Storage: "memory", Retention: "limits", Discard: "new", MaxMsgs: 1000, MaxBytes: 1 << 20,
		MaxAge: time.Hour, DuplicateWindow: time.Minute, Compression: "s2", AllowDirect: true, AllowBatched: true, MaxMsgSize: -1,
	}
	if diff := cmp.Diff(want, info.Config); diff != "" {
		t.Errorf("stream (-want +got)\n%s", diff)
	}
}

// A stream that is full takes a part of the batch; the rest goes when there is room, in order.
func TestJetStreamFullThenFreed(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			nc := srv.Client()
			createStream(t, nc, `, "discard": "new", "max_msgs": 50`)
			s := newJetStream(t, natstest.Config(srv.URL()), way)
			deliverAll(t, s, numbered(0, 20))
			batch := numbered(20, 60)
			out, err := deliver(s, batch...)
			fault, ok := errors.AsType[*relay.Fault](err)
			if !ok || fault.Blocked || !strings.Contains(err.Error(), "maximum messages exceeded") {
				t.Fatalf("error %v, want one that is tried again: maximum messages exceeded", err)
			}
			for i := range out {
				if delivered := out[i].Status == relay.Delivered; delivered != (i < 30) || out[i].Status == relay.Refused {
					t.Fatalf("message %d of the batch: %+v", i, out[i])
				}
			}
			first := numbers(t, stored(t, nc))
			checkInOrder(t, first, 50)
			if _, err := nc.Request("$JS.API.STREAM.PURGE.T", nil, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			deliverAll(t, s, batch[30:])
			checkInOrder(t, slices.Concat(first, numbers(t, stored(t, nc))), 80)
		})
	}
}

func TestJetStreamPermissions(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			users := func(allowed string) string {
				return fmt.Sprintf(`%s
					accounts { A: { jetstream: enabled, users: [{user: admin, password: p}, {user: u, password: p, permissions: {publish: [%s]}}] } }`,
					jsConf(t), allowed)
			}
			srv := natstest.Start(t, users(`"nothing"`), nil)
			createStream(t, srv.Client(nats.UserInfo("admin", "p")), "")
			cfg := natstest.Config(srv.URL())
			cfg.User, cfg.Password = "u", "p"
			s := newJetStream(t, cfg, way)
			blockedOn(t, s, `not permitted to publish to "$JS.API.STREAM.INFO.T"`)
			srv.Reload(users(`"$JS.API.STREAM.INFO.T"`))
			natstest.Eventually(t, "the look at the stream is permitted", func() bool {
				_, err := deliver(s, numbered(0, 3)...)
				return err != nil && strings.Contains(err.Error(), `not permitted to publish to "t.x"`)
			})
			srv.Reload(users(`"$JS.API.STREAM.INFO.T", "t.>"`))
			deliverAll(t, s, numbered(0, 10))
			checkInOrder(t, numbers(t, stored(t, srv.Client(nats.UserInfo("admin", "p")))), 10)
		})
	}
}

// jsConf is natstest.JetStream, the same for every call of a test.
func jsConf(t *testing.T) string {
	return fmt.Sprintf("jetstream: {store_dir: %q, max_mem: 64MB, max_file: 1GB}", t.TempDir()[:strings.LastIndex(t.TempDir(), "/")]+"/js")
}

// A server whose JetStream is off says so, and is not a reason to drop anything.
func TestJetStreamNotEnabled(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	s := newJetStream(t, natstest.Config(srv.URL()), nil)
	out, err := deliver(s, numbered(0, 2)...)
	checkStatus(t, out, relay.Unconfirmed, relay.Unconfirmed)
	if err == nil || !strings.Contains(err.Error(), "JetStream does not answer; is it enabled") {
		t.Errorf("error %v", err)
	}
}

// A duplicate_window that is shorter than the pauses between attempts is warned of, once.
func TestJetStreamWarnsOfAShortWindow(t *testing.T) {
	srv := natstest.Start(t, natstest.JetStream(t), nil)
	createStream(t, srv.Client(), fmt.Sprintf(`, "duplicate_window": %d`, time.Second))
	log := natstest.NewLog(t)
	s := newJetStream(t, natstest.Config(srv.URL()), func(_ *config.NATSSink, o *JetStreamOptions) {
		o.Log, o.RetryMax = log.Logger, 30*time.Second
	})
	deliverAll(t, s, numbered(0, 1))
	s.target.doubt()
	deliverAll(t, s, numbered(1, 1))
	if n := log.Count("duplicate_window"); n != 1 {
		t.Errorf("warned %d times", n)
	}
}

// An ended ctx ends Deliver, whatever it waits for.
func TestJetStreamEndedContext(t *testing.T) {
	srv := natstest.Start(t, natstest.JetStream(t), nil)
	createStream(t, srv.Client(), "")
	proxy := tcpproxy.Start(t, srv.Addr())
	s := newJetStream(t, natstest.Config("nats://"+proxy.Addr()), nil)
	deliverAll(t, s, numbered(0, 10))
	proxy.Stall()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	out := make([]relay.Outcome, 10)
	if err := s.Deliver(ctx, numbered(10, 10), out); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	proxy.Resume()
	deliverAll(t, s, numbered(10, 10))
	checkInOrder(t, numbers(t, stored(t, srv.Client())), 20)
}

// A server that has stopped answering is given up, and what it may have stored is not stored again.
func TestJetStreamStalledServer(t *testing.T) {
	for _, name := range []string{"fast", "chained", "unordered"} {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			createStream(t, srv.Client(), "")
			proxy := tcpproxy.Start(t, srv.Addr())
			s := newJetStream(t, natstest.Config("nats://"+proxy.Addr()), ways[name])
			deliverAll(t, s, numbered(0, 10))
			s.wait = 50 * time.Millisecond
			proxy.Stall()
			if _, err := deliver(s, numbered(10, 10)...); !errors.Is(err, errNATSNoPong) {
				t.Errorf("error %v", err)
			}
			s.wait = testPatience
			proxy.Resume()
			deliverAll(t, s, numbered(10, 10))
			checkInOrder(t, numbers(t, stored(t, srv.Client())), 20)
		})
	}
}

// Whoever asks for the stream when the line is cut does not wait for the answer.
func TestJetStreamCutWhileLooking(t *testing.T) {
	srv := natstest.Start(t, natstest.JetStream(t), nil)
	createStream(t, srv.Client(), "")
	proxy := tcpproxy.Start(t, srv.Addr())
	s := newJetStream(t, natstest.Config("nats://"+proxy.Addr()), ways["fast"])
	deliverAll(t, s, numbered(0, 10))
	s.target.doubt()
	proxy.Stall()
	epoch, _ := s.conn.Epoch()
	nc := epoch.Conn()
	sent := nc.Stats().OutMsgs
	go func() {
		for nc.Stats().OutMsgs == sent { // until it has asked
			time.Sleep(time.Millisecond)
		}
		proxy.Cut()
	}()
	if _, err := deliver(s, numbered(10, 10)...); !errors.Is(err, errNATSCut) {
		t.Errorf("error %v, want the cut", err)
	}
	proxy.Resume()
	deliverAll(t, s, numbered(10, 10))
	checkInOrder(t, numbers(t, stored(t, srv.Client())), 20)
}
