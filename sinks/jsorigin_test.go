package sinks

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
	"github.com/natsrelay/natsrelay/relay"
)

// window is a duplicate_window, the shortest that a server takes; forgotten is how long it takes until an id is.
const (
	window    = 100 * time.Millisecond
	forgotten = 3 * window
)

// exactlyOnce makes a way of publishing exactly once.
func exactlyOnce(way string) func(*config.NATSSink, *JetStreamOptions) {
	return func(c *config.NATSSink, o *JetStreamOptions) {
		ways[way](c, o)
		c.JetStream.ExactlyOnce, o.Ordering = true, relay.OrderStrict
	}
}

func createForgetful(t *testing.T, nc *nats.Conn, settings string) {
	t.Helper()
	createStream(t, nc, fmt.Sprintf(`, "duplicate_window": %d %s`, window, settings))
}

// others writes messages that are not the route's: some have no headers, some another route's, some an origin of another stream.
func others(t *testing.T, nc *nats.Conn, n int) {
	t.Helper()
	for i := range n {
		m := &nats.Msg{Subject: "t.other", Data: []byte("0")}
		switch i % 3 {
		case 1:
			m.Header = nats.Header{relay.HeaderVia: {"vm-17/orders", "vm-18/orders"}, HeaderOrigin: {origin{"S", 1e6, 2e18}.String()}}
		case 2:
			m.Header = nats.Header{relay.HeaderVia: {"vm-17/orders"}, HeaderOrigin: {origin{"hub/S", 1e6, 2e18}.String()}}
		}
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func ourNumbers(t *testing.T, nc *nats.Conn) []int {
	t.Helper()
	msgs := stored(t, nc)
	return numbers(t, slices.DeleteFunc(msgs, func(m jsMsg) bool { return m.Subject() != "t.x" }))
}

// A relay that knows nothing finds out what the target holds, behind whatever others have written since, long after the stream has
// forgotten the ids.
func TestExactlyOnceFromScratch(t *testing.T) {
	for name, behind := range map[string]int{"nothing behind": 0, "a little": 10, "several chunks": 5000} {
		for _, way := range []string{"fast", "chained"} {
			t.Run(name+"/"+way, func(t *testing.T) {
				srv := natstest.Start(t, natstest.JetStream(t), nil)
				nc := srv.Client()
				createForgetful(t, nc, "")
				others(t, nc, 3000)
				deliverAll(t, newJetStream(t, natstest.Config(srv.URL()), exactlyOnce(way)), numbered(0, 700))
				others(t, nc, behind)
				time.Sleep(forgotten)
				s := newJetStream(t, natstest.Config(srv.URL()), exactlyOnce(way))
				deliverAll(t, s, numbered(200, 300)) // all of them are there
				deliverAll(t, s, numbered(500, 500)) // some are
				deliverAll(t, s, numbered(1000, 10))
				checkInOrder(t, ourNumbers(t, nc), 1010)
			})
		}
	}
}

// The stream may have given up its oldest messages; the newest of the route is what counts.
func TestExactlyOnceInAStreamThatDiscards(t *testing.T) {
	srv := natstest.Start(t, natstest.JetStream(t), nil)
	nc := srv.Client()
	createForgetful(t, nc, `, "max_msgs": 50`)
	deliverAll(t, newJetStream(t, natstest.Config(srv.URL()), exactlyOnce("fast")), numbered(0, 500))
	others(t, nc, 20)
	time.Sleep(forgotten)
	deliverAll(t, newJetStream(t, natstest.Config(srv.URL()), exactlyOnce("fast")), numbered(400, 120))
	got := ourNumbers(t, nc)
	for i, n := range got {
		if n != got[0]+i {
			t.Fatalf("the stream holds %v, want a run", got)
		}
	}
	if len(got) != 30 || got[29] != 519 { // 10 of the first relay's, others' 20, and 20 that were missing
		t.Errorf("the stream holds %v", got)
	}
}

// A source stream that was made anew counts from 1 again: its messages are not those of its namesake.
func TestExactlyOnceOfAStreamMadeAnew(t *testing.T) {
	srv := natstest.Start(t, natstest.JetStream(t), nil)
	nc := srv.Client()
	createForgetful(t, nc, "")
	deliverAll(t, newJetStream(t, natstest.Config(srv.URL()), exactlyOnce("fast")), numbered(0, 100))
	anew := numbered(100, 50)
	for i, m := range anew {
		m.Sequence, m.Time = uint64(i+1), time.Unix(1e9+1, int64(i))
	}
	s := newJetStream(t, natstest.Config(srv.URL()), exactlyOnce("fast"))
	deliverAll(t, s, anew[:30])
	s.failures.Add(1)
	deliverAll(t, s, anew[20:])
	checkInOrder(t, ourNumbers(t, nc), 150)
}

// Cuts anywhere in the batches, and outages longer than the stream remembers ids: each message is stored once, in order.
func TestExactlyOnceThroughLongOutages(t *testing.T) {
	for _, way := range []string{"fast", "chained"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			const cuts, perBatch = 20, 300
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			nc := srv.Client()
			createForgetful(t, nc, "")
			proxy := tcpproxy.Start(t, srv.Addr())
			s := newJetStream(t, natstest.Config("nats://"+proxy.Addr()), exactlyOnce(way))
			n := 0
			for range cuts {
				at := rand.IntN(perBatch)
				s.midBatch = func(i int) {
					if i == at {
						proxy.Cut()
						s.midBatch = nil
					}
				}
				for batch := numbered(n, perBatch); len(batch) > 0; {
					out, err := deliver(s, batch...)
					batch = slices.DeleteFunc(batch, func(m *relay.Message) bool {
						return out[slices.Index(batch, m)].Status == relay.Delivered
					})
					if err != nil {
						others(t, nc, rand.IntN(3))
						time.Sleep(forgotten)
					}
				}
				n += perBatch
			}
			checkInOrder(t, ourNumbers(t, nc), n)
		})
	}
}

// What the relay had on disk comes again from the source, in one batch and in several, long after the stream has forgotten the ids.
func TestExactlyOnceOfRepeats(t *testing.T) {
	for _, way := range []string{"fast", "chained"} {
		t.Run(way, func(t *testing.T) {
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			nc := srv.Client()
			createForgetful(t, nc, "")
			s := newJetStream(t, natstest.Config(srv.URL()), exactlyOnce(way))
			s.midBatch = func(i int) {
				if i == 99 { // the batch takes longer than the stream remembers its ids
					time.Sleep(forgotten)
				}
			}
			deliverAll(t, s, slices.Concat(numbered(0, 100), numbered(50, 100), numbered(20, 10)))
			s.midBatch = nil
			time.Sleep(forgotten)
			deliverAll(t, s, numbered(0, 100))
			deliverAll(t, s, slices.Concat(numbered(100, 60), numbered(140, 30)))
			checkInOrder(t, ourNumbers(t, nc), 170)
		})
	}
}

// A message that the stream refuses is refused again when it repeats, and does not hold up the batch.
func TestExactlyOnceOfARefusedRepeat(t *testing.T) {
	srv := natstest.Start(t, natstest.JetStream(t), nil)
	nc := srv.Client()
	createForgetful(t, nc, `, "max_msg_size": 1000`)
	s := newJetStream(t, natstest.Config(srv.URL()), exactlyOnce("fast"))
	batch := slices.Concat(numbered(0, 3), numbered(2, 1), numbered(3, 2))
	batch[2].Data, batch[3].Data = make([]byte, 2000), make([]byte, 2000)
	out, err := deliver(s, batch...)
	for i := range out {
		if want := map[bool]relay.Status{true: relay.Refused, false: relay.Delivered}[i == 2 || i == 3]; out[i].Status != want || err != nil {
			t.Errorf("message %d of the batch: %+v, error %v", i, out[i], err)
		}
	}
	if got := ourNumbers(t, nc); !slices.Equal(got, []int{0, 1, 3, 4}) {
		t.Errorf("the stream holds %v", got)
	}
}

// What repeats in a batch that has grown waits until all before it is stored, too.
func TestExactlyOnceOfRepeatsThatComeLater(t *testing.T) {
	s := &JetStream{js: &config.JetStreamSink{Stream: "T"}, resume: new(resumption), opts: JetStreamOptions{Log: zerolog.Nop()}}
	a := &attempt{Batch: &relay.Batch{Messages: numbered(0, 10), Outcomes: make([]relay.Outcome, 30)}}
	s.admit(a)
	if a.upTo != 10 {
		t.Fatalf("the first %d messages may be published, want 10", a.upTo)
	}
	a.Messages = append(a.Messages, numbered(10, 10)...)
	a.Messages = append(a.Messages, numbered(15, 10)...)
	s.admit(a)
	s.admit(a)
	if a.upTo != 20 {
		t.Fatalf("the first %d messages may be published, want 20: then 15 comes again", a.upTo)
	}
	s.resume.last, a.newest = s.origin(a.Messages[19]), origin{} // they are stored
	s.admit(a)
	for i := range 30 {
		if held := a.Outcomes[i].Status == relay.Delivered; held != (i >= 20 && i < 25) {
			t.Errorf("message %s in place %d is taken to be held: %t", a.Messages[i].ID, i, held)
		}
	}
	if a.upTo != 30 {
		t.Errorf("the first %d messages may be published, want all", a.upTo)
	}
}

// The source's new leader has a clock that is behind: its messages are older than those before.
func TestExactlyOnceThroughAChangeOfClocks(t *testing.T) {
	for _, way := range []string{"fast", "chained"} {
		t.Run(way, func(t *testing.T) {
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			nc := srv.Client()
			createForgetful(t, nc, "")
			batch := numbered(0, 200)
			for _, m := range batch[100:] {
				m.Time = m.Time.Add(-time.Second)
			}
			s := newJetStream(t, natstest.Config(srv.URL()), exactlyOnce(way))
			deliverAll(t, s, batch[:10])
			deliverAll(t, s, batch[10:150])
			time.Sleep(forgotten)
			deliverAll(t, s, batch[60:160])
			for from := 80; from < 110; from += 10 {
				time.Sleep(forgotten)
				s = newJetStream(t, natstest.Config(srv.URL()), exactlyOnce(way))
				deliverAll(t, s, batch[from:from+90])
			}
			checkInOrder(t, ourNumbers(t, nc), 190)
		})
	}
}

// A dead letter that is put back into its route is sent, though the target holds messages from behind it; and it does not make the relay forget that.
func TestExactlyOnceOfWhatIsPutBack(t *testing.T) {
	for _, way := range []string{"fast", "chained"} {
		t.Run(way, func(t *testing.T) {
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			nc := srv.Client()
			createForgetful(t, nc, "")
			late := numbered(40, 2)
			for _, m := range late {
				m.Late = true
			}
			s := newJetStream(t, natstest.Config(srv.URL()), exactlyOnce(way))
			deliverAll(t, s, slices.Concat(numbered(0, 40), numbered(42, 58)))
			deliverAll(t, s, late[:1])
			time.Sleep(forgotten)
			deliverAll(t, s, numbered(90, 20))
			s = newJetStream(t, natstest.Config(srv.URL()), exactlyOnce(way))
			deliverAll(t, s, late[1:]) // the first thing that it hears of
			time.Sleep(forgotten)
			deliverAll(t, s, numbered(100, 20))
			want := slices.Concat(numbered(0, 40), numbered(42, 58), late[:1], numbered(100, 10), late[1:], numbered(110, 10))
			got := ourNumbers(t, nc)
			if !slices.EqualFunc(want, got, func(m *relay.Message, n int) bool { return string(m.Data) == strconv.Itoa(n) }) {
				t.Errorf("the stream holds %v", got)
			}
		})
	}
}

// Another relay, of another name, stands in for this one, and this one comes back: what the other has delivered is not delivered again. Whoever is not the active
// one delivers nothing, but learns what the other has delivered of what it holds.
func TestExactlyOnceStandby(t *testing.T) {
	for _, way := range []string{"fast", "chained"} {
		t.Run(way, func(t *testing.T) {
			srv := natstest.Start(t, natstest.JetStream(t), nil)
			nc := srv.Client()
			createForgetful(t, nc, "")
			active, pin := "", 0
			newOne := func(via string) (s *JetStream, numbered func(from, n int) []*relay.Message, activate func()) {
				s = newJetStream(t, natstest.Config(srv.URL()), func(c *config.NATSSink, o *JetStreamOptions) {
					exactlyOnce(way)(c, o)
					o.Standby, o.Via = "natsrelay-orders", via
					o.Pin = func() string {
						if active != via {
							return ""
						}
						return strconv.Itoa(pin)
					}
				})
				s.pinWait = 100 * time.Millisecond
				numbered = func(from, n int) []*relay.Message { return numberedVia(via, from, n) }
				return s, numbered, func() { active, pin = via, pin+1 }
			}
			a, fromA, activateA := newOne("vm-17/orders")
			b, fromB, activateB := newOne("vm-18/orders")
			activateA()
			deliverAll(t, a, fromA(0, 100))
			time.Sleep(forgotten)
			activateB()
			deliverAll(t, b, fromB(50, 100)) // a's acknowledgements upstream were lost
			out, err := deliver(a, fromA(100, 60)...)
			if !errors.Is(err, errStandby) {
				t.Errorf("error %v", err)
			}
			for i, o := range out {
				if got, want := o.Status == relay.Delivered, i < 50; got != want {
					t.Errorf("message %d: delivered %v, want %v", 100+i, got, want)
				}
			}
			late := fromA(1000, 1)
			late[0].Late = true // nobody else has it
			deliverAll(t, a, late)
			time.Sleep(forgotten)
			activateA()
			deliverAll(t, a, fromA(120, 100)) // and b's were, too
			got := ourNumbers(t, nc)
			checkInOrder(t, slices.DeleteFunc(got, func(n int) bool { return n == 1000 }), 220)
		})
	}
}

// A lookup that fails is an attempt that has failed, not a licence to send.
func TestExactlyOnceWithoutALookup(t *testing.T) {
	users := fmt.Sprintf(`%s
		accounts { A: { jetstream: enabled, users: [{user: admin, password: p}, {user: u, password: p, permissions: {publish: {deny: ["$JS.API.CONSUMER.>"]}}}] } }`, jsConf(t))
	srv := natstest.Start(t, users, nil)
	nc := srv.Client(nats.UserInfo("admin", "p"))
	createForgetful(t, nc, "")
	others(t, nc, 1)
	cfg := natstest.Config(srv.URL())
	cfg.User, cfg.Password = "u", "p"
	s := newJetStream(t, cfg, exactlyOnce("fast"))
	_, err := deliver(s, numbered(0, 3)...)
	if err == nil || !strings.Contains(err.Error(), `look up what stream "T" holds of this route`) {
		t.Errorf("error %v", err)
	}
	if got := ourNumbers(t, nc); len(got) > 0 {
		t.Errorf("%d messages were sent all the same", len(got))
	}
}

// What comes from no stream, as from a route's disk that it once filled from core NATS, is sent.
func TestExactlyOnceOfNoStream(t *testing.T) {
	srv := natstest.Start(t, natstest.JetStream(t), nil)
	nc := srv.Client()
	createForgetful(t, nc, "")
	batch := numbered(0, 10)
	for _, m := range batch[:5] {
		m.Stream, m.Sequence = "", 0
	}
	deliverAll(t, newJetStream(t, natstest.Config(srv.URL()), exactlyOnce("fast")), batch)
	checkInOrder(t, ourNumbers(t, nc), 10)
}

func TestParseOrigin(t *testing.T) {
	o := origin{"hub/ORDERS", 1 << 63, 1764000000123456789}
	for durable, header := range map[string]string{"": o.String(), "d": o.String() + " d"} {
		if got, by, ok := parseOrigin(header); !ok || got != o || by != durable {
			t.Errorf("%q is read as %+v, %q, %t", header, got, by, ok)
		}
	}
	for _, bad := range []string{"", "S", "S 1", "S x 1", "S 1 x", " 1 1", "S -1 1"} {
		if got, _, ok := parseOrigin(bad); ok {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}
