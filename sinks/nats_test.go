package sinks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// testPatience is natsPatience for tests: a loaded machine is no server that has died.
const testPatience = 30 * time.Second

// newNATS returns a sink that is connected, and closed with the test.
func newNATS(t testing.TB, cfg *config.NATS) *NATS {
	t.Helper()
	log := natstest.NewLog(t)
	conn, err := natsconn.Open(cfg, natsconn.Options{Instance: "vm-17", Role: "sink", Log: log.Logger})
	if err != nil {
		t.Fatal(err)
	}
	s := NewNATS(conn, &config.NATSSink{NATS: "cloud", Mode: "core", Dedupe: true})
	s.wait = testPatience
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := errors.Join(s.Close(ctx), conn.Close(ctx)); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	waitConnected(t, s)
	return s
}

func waitConnected(t testing.TB, s *NATS) {
	t.Helper()
	natstest.Eventually(t, "connected", func() bool { _, up := s.conn.Epoch(); return up })
}

// received collects what arrives at a subscriber that is connected straight to the server.
type received struct {
	t   testing.TB
	nc  *nats.Conn
	sub *nats.Subscription

	mu   sync.Mutex
	msgs []*nats.Msg
}

func subscribe(t testing.TB, nc *nats.Conn, subject string) *received {
	t.Helper()
	r := &received{t: t, nc: nc}
	sub, err := nc.Subscribe(subject, func(m *nats.Msg) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.msgs = append(r.msgs, m)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sub.SetPendingLimits(-1, -1), nc.Flush()); err != nil {
		t.Fatal(err)
	}
	r.sub = sub
	return r
}

// all returns everything that the server had read when it was called: what it has sent here
// precedes its PONG.
func (r *received) all() []*nats.Msg {
	r.t.Helper()
	if err := r.nc.FlushTimeout(time.Minute); err != nil {
		r.t.Fatal(err)
	}
	natstest.Eventually(r.t, "callbacks done", func() bool {
		n, _, err := r.sub.Pending()
		return err == nil && n == 0
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.msgs
}

func batchOf(subject string, n int) []*relay.Message {
	batch := make([]*relay.Message, n)
	for i := range batch {
		batch[i] = &relay.Message{Subject: subject, ID: strconv.Itoa(i), Data: []byte(strconv.Itoa(i))}
	}
	return batch
}

func deliver(s relay.Sink, batch ...*relay.Message) ([]relay.Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out := make([]relay.Outcome, len(batch))
	err := s.Deliver(ctx, batch, out)
	return out, err
}

func checkStatus(t *testing.T, out []relay.Outcome, want ...relay.Status) {
	t.Helper()
	got := make([]relay.Status, len(out))
	for i := range out {
		got[i] = out[i].Status
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got)\n%s", diff)
	}
}

func TestNATSDeliversHeadersAndID(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	r := subscribe(t, srv.Client(), ">")
	s := newNATS(t, natstest.Config(srv.URL()))
	header := relay.Header{"Natsrelay-Via": {"a/b", "vm-17/orders"}, "type": {"new"}}
	own := relay.Header{"Nats-Msg-Id": {"own"}}
	out, err := deliver(s,
		&relay.Message{Subject: "with.header", Header: header, Data: []byte("x"), ID: "1"},
		&relay.Message{Subject: "own.id", Header: own, ID: "own"},
		&relay.Message{Subject: "bare", ID: "3"},
		&relay.Message{Subject: "status", Header: relay.Header{"Status": {"503"}}, ID: "4"},
	)
	if err != nil {
		t.Fatal(err)
	}
	checkStatus(t, out, relay.Delivered, relay.Delivered, relay.Delivered, relay.Delivered)
	got := map[string]nats.Header{}
	for _, m := range r.all() {
		got[m.Subject] = m.Header
	}
	want := map[string]nats.Header{
		"with.header": {"Natsrelay-Via": {"a/b", "vm-17/orders"}, "type": {"new"}, "Nats-Msg-Id": {"1"}},
		"own.id":      {"Nats-Msg-Id": {"own"}},
		"bare":        {"Nats-Msg-Id": {"3"}},
		"status":      {"Status": {"503"}, "Nats-Msg-Id": {"4"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("received (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(relay.Header{"Natsrelay-Via": {"a/b", "vm-17/orders"}, "type": {"new"}}, header); diff != "" {
		t.Errorf("the message's own headers were changed (-want +got)\n%s", diff)
	}
}

func TestNATSWithoutDedupeSendsNoID(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	r := subscribe(t, srv.Client(), ">")
	s := newNATS(t, natstest.Config(srv.URL()))
	s.dedupe = false
	if _, err := deliver(s, &relay.Message{Subject: "a", ID: "1"}); err != nil {
		t.Fatal(err)
	}
	if got := r.all(); len(got) != 1 || got[0].Header != nil {
		t.Errorf("received %+v, want one message without headers", got)
	}
}

func TestNATSRefusesWhatCannotBeSent(t *testing.T) {
	srv := natstest.Start(t, "max_payload: 1000", nil)
	r := subscribe(t, srv.Client(), ">")
	s := newNATS(t, natstest.Config(srv.URL()))
	fits := 1000 - len("NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n")
	header := func(k, v string) relay.Header { return relay.Header{k: {v}} }
	for name, c := range map[string]struct {
		m    relay.Message
		want string // "": it is delivered
	}{
		"largest payload":  {relay.Message{Subject: "a", Data: make([]byte, fits)}, ""},
		"too large":        {relay.Message{Subject: "a", Data: make([]byte, fits+1)}, "1001 bytes with its headers, and the server takes 1000 (max_payload)"},
		"headers too":      {relay.Message{Subject: "a", Header: header("K", "v"), Data: make([]byte, fits)}, "1006 bytes with its headers"},
		"longest subject":  {relay.Message{Subject: strings.Repeat("x", maxSubject)}, ""},
		"subject too long": {relay.Message{Subject: strings.Repeat("x", maxSubject+1)}, fmt.Sprintf("subject of %d bytes", maxSubject+1)},
		"no subject":       {relay.Message{}, `token "" cannot be published to`},
		"empty token":      {relay.Message{Subject: "a..b"}, `token "" cannot be published to`},
		"last token empty": {relay.Message{Subject: "a."}, `token "" cannot be published to`},
		"wildcard":         {relay.Message{Subject: "a.*.b"}, `token "*" cannot be published to`},
		"full wildcard":    {relay.Message{Subject: "a.>"}, `token ">" cannot be published to`},
		"star in a token":  {relay.Message{Subject: "a.b*"}, ""},
		"blank in subject": {relay.Message{Subject: "a b"}, "blank or control character"},
		"injection":        {relay.Message{Subject: "a 0\r\n\r\nPUB b"}, "blank or control character"},
		"value with lines": {relay.Message{Subject: "a", Header: header("K", "v\r\nEvil: 1")}, "more than one line"},
		"value with CR":    {relay.Message{Subject: "a", Header: header("K", "v\r")}, "more than one line"},
		"id with lines":    {relay.Message{Subject: "a", ID: "1\n2"}, `"Nats-Msg-Id": its value has more than one line`},
		"key with blank":   {relay.Message{Subject: "a", Header: header("a b", "v")}, `header key "a b"`},
		"key with colon":   {relay.Message{Subject: "a", Header: header("a:b", "v")}, `header key "a:b"`},
		"key with line":    {relay.Message{Subject: "a", Header: header("a\r\nb", "v")}, `header key "a\r\nb"`},
		"key not ASCII":    {relay.Message{Subject: "a", Header: header("ä", "v")}, "header key"},
		"empty key":        {relay.Message{Subject: "a", Header: header("", "v")}, `header key ""`},
	} {
		t.Run(name, func(t *testing.T) {
			if c.m.ID == "" {
				c.m.ID = "1"
			}
			before := len(r.all())
			out, err := deliver(s, &c.m, &relay.Message{Subject: "next", ID: "2"})
			if err != nil {
				t.Fatal(err)
			}
			arrived := 2
			if c.want == "" {
				checkStatus(t, out, relay.Delivered, relay.Delivered)
			} else {
				arrived = 1
				checkStatus(t, out, relay.Refused, relay.Delivered)
				if out[0].Err == nil || !strings.Contains(out[0].Err.Error(), c.want) {
					t.Errorf("error %v, want …%s…", out[0].Err, c.want)
				}
			}
			if n := len(r.all()) - before; n != arrived {
				t.Errorf("%d messages arrived, want %d", n, arrived)
			}
		})
	}
}

func TestNATSBatchOfRefusedOnly(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	s := newNATS(t, natstest.Config(srv.URL()))
	out, err := deliver(s, &relay.Message{Subject: "a b"}, &relay.Message{})
	if err != nil {
		t.Fatal(err)
	}
	checkStatus(t, out, relay.Refused, relay.Refused)
}

func permitting(subjects string) string {
	return fmt.Sprintf(`authorization { users: [{user: u, password: p, permissions: {publish: [%s]}}] }`, subjects)
}

func TestNATSPermissionViolationBlocksAndClears(t *testing.T) {
	srv := natstest.Start(t, permitting(`"ok.>"`), nil)
	cfg := natstest.Config(srv.URL())
	cfg.User, cfg.Password = "u", "p"
	s := newNATS(t, cfg)
	batch := []*relay.Message{{Subject: "ok.1", ID: "1"}, {Subject: "no.1", ID: "2"}, {Subject: "ok.2", ID: "3"}, {Subject: "no.2", ID: "4"}}
	for range 50 { // the violation reaches the sink on another way than the PONG: it must win every time
		out, err := deliver(s, batch...)
		checkStatus(t, out, relay.Delivered, relay.Unconfirmed, relay.Delivered, relay.Unconfirmed)
		fault, ok := errors.AsType[*relay.Fault](err)
		if !ok || !fault.Blocked || !strings.Contains(err.Error(), `not permitted to publish to "no.1"`) {
			t.Fatalf("error %v, want a blocked fault that names the subject", err)
		}
	}
	out, err := deliver(s, batch[0], batch[2])
	checkStatus(t, out, relay.Delivered, relay.Delivered)
	if err != nil {
		t.Errorf("a batch without a denied subject: %v", err)
	}
	srv.Reload(permitting(`"ok.>", "no.>"`))
	natstest.Eventually(t, "permitted", func() bool {
		out, err = deliver(s, batch...)
		return err == nil
	})
	checkStatus(t, out, relay.Delivered, relay.Delivered, relay.Delivered, relay.Delivered)
}

// Somebody permits a subject in the middle of a batch that was denied before: nothing arrives before what comes before it, and nothing twice.
func TestNATSPermissionInMidBatch(t *testing.T) {
	srv := natstest.Start(t, permitting(`"ok.>"`), nil)
	cfg := natstest.Config(srv.URL())
	cfg.User, cfg.Password = "u", "p"
	s := newNATS(t, cfg)
	r := subscribe(t, srv.Client(nats.UserInfo("u", "p")), "no.>")
	permit := sync.OnceFunc(func() { srv.Reload(permitting(`"ok.>", "no.>"`)) })
	batch := batchOf("no.1", 3)
	for range 2 {
		out, err := deliver(s, batch...)
		checkStatus(t, out, relay.Unconfirmed, relay.Unconfirmed, relay.Unconfirmed)
		if err == nil {
			t.Fatal("it was not denied")
		}
		s.midBatch = func(i int) {
			if i != 1 {
				return
			}
			epoch, _ := s.conn.Epoch()
			if err := epoch.Conn().Flush(); err != nil { // the server has read what comes before
				t.Error(err)
			}
			permit()
		}
	}
	permit()
	if _, err := deliver(s, batch...); err != nil {
		t.Fatal(err)
	}
	var got string
	for _, m := range r.all() {
		got += string(m.Data)
	}
	if got != "012" {
		t.Errorf("what arrived, in its order: %s", got)
	}
}

// A violation of one lane's batch is not another's, unless they share the subject.
func TestNATSPermissionViolationStaysInItsLane(t *testing.T) {
	srv := natstest.Start(t, permitting(`"ok.>"`), nil)
	cfg := natstest.Config(srv.URL())
	cfg.User, cfg.Password = "u", "p"
	s := newNATS(t, cfg)
	var wg sync.WaitGroup
	for lane := range 4 {
		wg.Go(func() {
			for range 100 {
				_, err := deliver(s, batchOf([]string{"ok.1", "no.1", "ok.2", "no.2"}[lane], 50)...)
				if denied := err != nil; denied != (lane%2 == 1) {
					t.Errorf("lane %d: %v", lane, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// The first Deliver of an outage reports it, the probe after it waits and delivers at once when the server is back.
func TestNATSDownIsReportedOnceThenWaitedFor(t *testing.T) {
	srv := natstest.StartProcess(t, "")
	s := newNATS(t, natstest.Config(srv.URL()))
	if _, err := deliver(s, batchOf("a", 1)...); err != nil {
		t.Fatal(err)
	}
	srv.Kill()
	begun := time.Now()
	natstest.Eventually(t, "the outage is reported", func() bool {
		_, err := deliver(s, batchOf("a", 1)...)
		return err != nil
	})
	if took := time.Since(begun); took > testPatience/2 {
		t.Errorf("reported after %v", took)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Deliver(ctx, batchOf("a", 1), make([]relay.Outcome, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a probe that was given up: %v", err)
	}
	if _, err := deliver(s, batchOf("a", 1)...); err == nil {
		t.Error("delivered to a server that is down")
	}

	probe := make(chan error, 1)
	go func() {
		_, err := deliver(s, batchOf("a", 3)...)
		probe <- err
	}()
	srv.Start()
	if err := <-probe; err != nil {
		t.Errorf("the probe did not outlast the outage: %v", err)
	}
}

// A server that no longer answers is given up after natsPatience, and the batch with it.
func TestNATSStalledServerIsCut(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	proxy := tcpproxy.Start(t, srv.Addr())
	s := newNATS(t, natstest.Config("nats://"+proxy.Addr()))
	s.wait = 50 * time.Millisecond
	proxy.Stall()
	out, err := deliver(s, batchOf("a", 10)...)
	if err == nil || !strings.Contains(err.Error(), "did not confirm in time") {
		t.Errorf("error %v", err)
	}
	for i := range out {
		if out[i].Status != relay.Unconfirmed {
			t.Errorf("message %d: %v", i, out[i])
		}
	}
	proxy.Resume()
	s.wait = testPatience
	natstest.Eventually(t, "works again", func() bool {
		_, err := deliver(s, batchOf("a", 10)...)
		return err == nil
	})
}

// An ended ctx ends Deliver, and leaves the connection to the other lanes.
func TestNATSEndedContextDoesNotCut(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	proxy := tcpproxy.Start(t, srv.Addr())
	s := newNATS(t, natstest.Config("nats://"+proxy.Addr()))
	before, _ := s.conn.Epoch()
	proxy.Stall()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	out := make([]relay.Outcome, 1)
	if err := s.Deliver(ctx, batchOf("a", 1), out); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	checkStatus(t, out, relay.Unconfirmed)
	proxy.Resume()
	if _, err := deliver(s, batchOf("a", 1)...); err != nil {
		t.Error(err)
	}
	if now, up := s.conn.Epoch(); !up || now != before {
		t.Error("the connection was cut")
	}
}

// The heart of the sink: whatever it reports as delivered has arrived, with cuts anywhere in the batches.
// It loses thousands of messages when the epoch is not compared in confirm.
func TestNATSLosesNothingInSixtyCuts(t *testing.T) {
	const cuts, lanes, perBatch = 60, 4, 300
	srv := natstest.Start(t, "", nil)
	r := subscribe(t, srv.Client(), "t.>")
	proxy := tcpproxy.Start(t, srv.Addr())
	s := newNATS(t, natstest.Config("nats://"+proxy.Addr()))

	var made atomic.Int64
	var published atomic.Int64
	next := atomic.Int64{}
	next.Store(500)
	s.midBatch = func(int) {
		// Every other cut holds up the lane until the connection is back: the rest of its batch, and its
		// flush, go well. That is the worst case: only the epoch tells that the first part is gone.
		n, at := published.Add(1), next.Load()
		if n < at || !next.CompareAndSwap(at, 1<<62) {
			return
		}
		before := s.conn.Stats().Reconnects
		proxy.Cut()
		if made.Add(1)%2 == 0 {
			natstest.Eventually(t, "reconnected", func() bool { return s.conn.Stats().Reconnects > before })
		}
		if made.Load() < cuts {
			next.Store(published.Load() + 200 + rand.Int64N(2000))
		}
	}

	var wg sync.WaitGroup
	delivered := make([]int, lanes)
	for lane := range lanes {
		wg.Go(func() {
			delivered[lane] = deliverUntil(t, s, lane, perBatch, func() bool { return made.Load() >= cuts })
		})
	}
	wg.Wait()
	arrived := map[string]bool{}
	for _, m := range r.all() {
		arrived[m.Subject+" "+string(m.Data)] = true
	}
	lost, total := 0, 0
	for lane, n := range delivered {
		total += n
		for i := range n {
			if !arrived[fmt.Sprintf("t.%d %d", lane, i)] {
				lost++
			}
		}
	}
	t.Logf("%d cuts, %d messages reported delivered, %d of them lost, %d arrived twice", made.Load(), total, lost, len(r.msgs)-len(arrived))
	if lost > 0 || made.Load() < cuts {
		t.Errorf("%d of %d messages reported as delivered never arrived, in %d cuts", lost, total, made.Load())
	}
}

// deliverUntil delivers numbered messages in batches, each again until it is confirmed, and returns how many.
func deliverUntil(t *testing.T, s *NATS, lane, perBatch int, done func() bool) (n int) {
	for !done() {
		batch := make([]*relay.Message, perBatch)
		for i := range batch {
			id := strconv.Itoa(n + i)
			batch[i] = &relay.Message{Subject: "t." + strconv.Itoa(lane), ID: id, Data: []byte(id)}
		}
		for rest := batch; len(rest) > 0; {
			out, err := deliver(s, rest...)
			unconfirmed := rest[:0:0]
			for i := range out {
				if out[i].Status == relay.Unconfirmed {
					unconfirmed = append(unconfirmed, rest[i])
				}
			}
			if rest = unconfirmed; (err == nil) != (len(rest) == 0) {
				t.Errorf("lane %d: error %v with %d unconfirmed", lane, err, len(rest))
				return n
			}
		}
		n += perBatch
	}
	return n
}
