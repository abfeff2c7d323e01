package sources

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/natsrelay/natsrelay/relay"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// patience is how long anything may take on a loaded machine that should be done soon.
const patience = time.Minute

// A harness is a source that runs, and what it has passed on.
type harness struct {
	t    testing.TB
	src  *Core
	conn *natsconn.Conn
	log  *natstest.Log
	hold chan struct{} // accept waits until it is closed

	answer func(*relay.Message) error // what accept does with requests, if it is set

	stop func() error // ends Run, and returns what it returned

	mu   sync.Mutex
	msgs []*relay.Message
}

func (h *harness) accept(m *relay.Message) error {
	<-h.hold
	if h.answer != nil && m.Respond != nil {
		return h.answer(m)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.msgs = append(h.msgs, m)
	return nil
}

func (h *harness) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.msgs)
}

func (h *harness) data() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for _, m := range h.msgs {
		all = append(all, string(m.Data))
	}
	return all
}

// prepare returns a source that does not run yet; tune may be nil.
func prepare(t testing.TB, cfg *config.NATS, queue string, subjects ...string) *harness {
	t.Helper()
	h := &harness{t: t, log: natstest.NewLog(t), hold: make(chan struct{})}
	close(h.hold)
	var err error
	h.conn, err = natsconn.Open(cfg, natsconn.Options{Instance: "vm-17", Role: "source", Log: h.log.Logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.conn.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	h.src = NewCore(h.conn, &config.CoreSource{NATS: "test", Subjects: subjects, Queue: queue}, h.log.Logger)
	h.src.tick = 5 * time.Millisecond
	h.src.deniedPause = func(int) time.Duration { return 20 * time.Millisecond }
	return h
}

func (h *harness) run() {
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- h.src.Run(ctx, h.accept) }()
	h.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-result:
			return err
		case <-time.After(patience):
			return errors.New("Run did not return")
		}
	})
	h.t.Cleanup(func() {
		if err := h.stop(); err != nil {
			h.t.Errorf("Run: %v", err)
		}
	})
}

// start returns a source whose subscriptions the server knows.
func start(t testing.TB, srv *natstest.Server, queue string, subjects ...string) *harness {
	t.Helper()
	h := prepare(t, natstest.Config(srv.URL()), queue, subjects...)
	h.run()
	h.waitSubscribed(srv.Client())
	return h
}

// waitSubscribed publishes on the source's first subject until a message comes through.
func (h *harness) waitSubscribed(nc *nats.Conn) {
	h.t.Helper()
	probe := strings.NewReplacer("*", "probe", ">", "probe").Replace(h.src.cfg.Subjects[0])
	natstest.Eventually(h.t, "subscribed", func() bool {
		before := h.count()
		publish(h.t, nc, probe, "probe")
		return h.count() > before
	})
	// Every probe that was published arrives before what is published now.
	publish(h.t, nc, probe, "last probe")
	natstest.Eventually(h.t, "probes are in", func() bool { return slices.Contains(h.data(), "last probe") })
	h.mu.Lock()
	defer h.mu.Unlock()
	h.msgs = nil
}

// fill publishes n numbers on the subjects in turn, which the route takes once hold is closed, and waits until the client has them.
func (h *harness) fill(nc *nats.Conn, n int, subjects ...string) {
	h.t.Helper()
	h.hold = make(chan struct{})
	client, _, err := h.conn.Attach(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	before := client.Stats().InMsgs
	for i := range n {
		_ = nc.Publish(subjects[i%len(subjects)], []byte(strconv.Itoa(i)))
	}
	publish(h.t, nc, "other", "")
	natstest.Eventually(h.t, "the client has it all", func() bool { return client.Stats().InMsgs >= before+uint64(n) })
}

func publish(t testing.TB, nc *nats.Conn, subject, data string) {
	t.Helper()
	if err := errors.Join(nc.Publish(subject, []byte(data)), nc.FlushTimeout(patience)); err != nil {
		t.Fatal(err)
	}
}

func TestCoreMessage(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	h := start(t, srv, "", "a.>")
	nc := srv.Client()
	answered, err := nc.SubscribeSync("reply.to")
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for _, m := range []*nats.Msg{
		{Subject: "a.1", Data: []byte("plain")},
		{Subject: "a.2", Data: []byte("own id"), Header: nats.Header{"Nats-Msg-Id": {"mine"}, "lower": {"x", "y"}}},
		{Subject: "a.3", Data: []byte("request"), Reply: "reply.to"},
		{Subject: "a.4", Header: nats.Header{"Status": {"503"}}}, // JetStream clients take this for a control message
	} {
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	natstest.Eventually(t, "received", func() bool { return h.count() == 4 })
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, m := range h.msgs {
		ids[m.ID] = true
		if m.Time.Before(begun) || m.Time.After(time.Now()) {
			t.Errorf("%s: time %v", m.Subject, m.Time)
		}
		if m.ID == "" {
			t.Errorf("%s: no id", m.Subject)
		}
	}
	if len(ids) != 4 || h.msgs[1].ID != "mine" {
		t.Errorf("ids %v: want four different ones, the second its own", ids)
	}
	want := []relay.Header{nil, {"Nats-Msg-Id": {"mine"}, "lower": {"x", "y"}}, nil, {"Status": {"503"}}}
	for i, m := range h.msgs {
		if diff := cmp.Diff(want[i], m.Header); diff != "" {
			t.Errorf("%s: header (-want +got)\n%s", m.Subject, diff)
		}
	}
	if n, _, _ := answered.Pending(); n != 0 {
		t.Error("the source has answered a request")
	}
}

func TestCorePlainSubscriptionsSeeEverything(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	subjects := []string{"a.*", "b", "c.>"}
	one, two := start(t, srv, "", subjects...), start(t, srv, "", subjects...)
	nc := srv.Client()
	for i := range 300 {
		_ = nc.Publish([]string{"a.x", "b", "c.y.z", "d"}[i%4], []byte(strconv.Itoa(i)))
	}
	var want []string
	for i := range 300 {
		if i%4 != 3 {
			want = append(want, strconv.Itoa(i))
		}
	}
	for name, h := range map[string]*harness{"one": one, "two": two} {
		natstest.Eventually(t, name+" has all", func() bool {
			got := slices.DeleteFunc(h.data(), func(d string) bool { return strings.HasSuffix(d, "probe") })
			slices.SortFunc(got, func(a, b string) int { return slices.Index(want, a) - slices.Index(want, b) })
			return slices.Equal(got, want)
		})
	}
}

func TestCoreQueueGroupSharesTheMessages(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	nc := srv.Client()
	one, two := start(t, srv, "g", "a.>"), prepare(t, natstest.Config(srv.URL()), "g", "a.>")
	two.run()
	natstest.Eventually(t, "both are members", func() bool {
		publish(t, nc, "a.probe", "probe")
		return two.count() > 0
	})
	const n = 1000
	for i := range n {
		_ = nc.Publish("a.x", []byte(strconv.Itoa(i)))
	}
	publish(t, nc, "a.x", "end")
	if err := errors.Join(one.stop(), two.stop()); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, d := range append(one.data(), two.data()...) {
		seen[d]++
	}
	for i := range n {
		if c := seen[strconv.Itoa(i)]; c != 1 {
			t.Errorf("message %d was received %d times", i, c)
		}
	}
}

func TestCoreSurvivesRestartAndKill(t *testing.T) {
	srv := natstest.StartProcess(t, "")
	h := prepare(t, natstest.Config(srv.URL()), "g", "a.*", "b")
	h.run()
	h.waitSubscribed(srv.Client())
	for round := range 3 {
		srv.Kill()
		srv.Start()
		h.waitSubscribed(srv.Client())
		publish(t, srv.Client(), "b", strconv.Itoa(round))
		natstest.Eventually(t, "the other subject works too", func() bool { return slices.Contains(h.data(), strconv.Itoa(round)) })
	}
}

func TestCoreStartsBeforeTheServer(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	srv.Stop()
	h := prepare(t, natstest.Config(srv.URL()), "", "a")
	h.run()
	srv.Restart()
	h.waitSubscribed(srv.Client())
}

func TestCoreFollowsTheClusterOnLameDuck(t *testing.T) {
	pa, pb := natstest.FreePort(t), natstest.FreePort(t)
	conf := `server_name: %s
		cluster { name: c, listen: "127.0.0.1:%d", routes: ["nats://127.0.0.1:%d"] }`
	tune := func(o *server.Options) { o.LameDuckGracePeriod, o.LameDuckDuration = 2*patience, 3*patience }
	a := natstest.Start(t, fmt.Sprintf(conf, "a", pa, pb), tune)
	b := natstest.Start(t, fmt.Sprintf(conf, "b", pb, pa), tune)
	h := start(t, a, "", "x")
	nc, _, err := h.conn.Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "b is discovered", func() bool { return len(nc.Servers()) > 1 })
	a.LameDuck()
	natstest.Eventually(t, "moved", func() bool { return strings.HasSuffix(nc.ConnectedUrl(), b.Addr()) })
	h.waitSubscribed(b.Client())
}

// nats.go closes a connection for good after some errors, and its subscriptions with it.
func TestCoreSubscribesAgainOnANewConnection(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	h := start(t, srv, "", "a", "b")
	nc, closed, err := h.conn.Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.Publish(strings.Repeat("x", 5000), nil) // longer than max_control_line
	<-closed
	h.waitSubscribed(srv.Client())
}

func TestCoreSlowConsumerIsCountedAndLoggedOnce(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	h := prepare(t, natstest.Config(srv.URL()), "", "a")
	h.src.pendingMessages = 100
	h.run()
	nc := srv.Client()
	h.waitSubscribed(nc)
	const n = 5000
	h.fill(nc, n, "a")
	natstest.Eventually(t, "drops are counted", func() bool { return h.src.Stats().Dropped >= n-100-1 })
	close(h.hold)
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if got := h.src.Lost()[LostSlowConsumer]; got != h.src.Stats().Dropped {
		t.Errorf("%d lost, %d dropped", got, h.src.Stats().Dropped)
	}
	if got := h.count() + int(h.src.Stats().Dropped); got != n {
		t.Errorf("%d passed on + %d dropped, want %d", h.count(), h.src.Stats().Dropped, n)
	}
	want := fmt.Sprintf(`"dropped":%d,`, h.src.Stats().Dropped)
	if h.log.Count("slow consumer: messages arrive faster") != 1 || h.log.Count("slow consumer: over", want) != 1 {
		t.Errorf("want one line at the beginning of the episode and one at its end with %s", want)
	}
	if got := h.conn.Stats().Errors[natsconn.KindSlowConsumer]; got == 0 {
		t.Error("not counted by the connection")
	}
}

func TestCoreLimitsHoldForAllSubscriptionsTogether(t *testing.T) {
	c := NewCore(nil, nil, natstest.NewLog(t).Logger)
	for _, want := range []struct{ n, messages, bytes int }{
		{1, 128 << 10, 32 << 20},
		{4, 32 << 10, 8 << 20},
		{100, 1310, 2 << 20}, // a share must hold the largest message
	} {
		if m, b := c.limits(want.n, 1<<20); m != want.messages || b != want.bytes {
			t.Errorf("%d subscriptions: %d messages, %d bytes each; want %d, %d", want.n, m, b, want.messages, want.bytes)
		}
	}
}

// The source says why nothing can arrive, from before the first connection on.
func TestCoreTrouble(t *testing.T) {
	srv := natstest.Start(t, permitting(`"ok"`), nil)
	cfg := natstest.Config(srv.URL())
	cfg.User, cfg.Password = "u", "p"
	srv.Stop()
	h := prepare(t, cfg, "", "ok", "no")
	if err := h.src.Trouble(); err == nil {
		t.Error("no trouble, though it does not run")
	}
	h.run()
	trouble := func(what string, is func(error) bool) {
		t.Helper()
		natstest.Eventually(t, what, func() bool { return is(h.src.Trouble()) })
	}
	refused := func(err error) bool {
		return err != nil && !errors.Is(err, relay.ErrStarting) && strings.Contains(err.Error(), "not connected to test: ") && strings.Contains(err.Error(), "refused")
	}
	blocked := func(err error) bool {
		fault, _ := errors.AsType[*relay.Fault](err)
		return fault != nil && fault.Blocked && strings.Contains(err.Error(), "denies 1 of 2 subscriptions")
	}
	trouble("it says why it has not come up", refused)
	srv.Restart()
	trouble("a subscription is denied", blocked)
	srv.Reload(permitting(`"ok", "no"`))
	trouble("all is well", func(err error) bool { return err == nil })
	srv.Stop()
	trouble("it says why it is cut off", refused)
	want := map[string]uint64{LostSlowConsumer: 0, relay.DropShutdown: 0}
	if diff := cmp.Diff(want, h.src.Lost()); diff != "" {
		t.Errorf("lost (-want +got):\n%s", diff)
	}
}

func TestCoreRunEndsOnlyForWhatCanNeverWork(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	for _, c := range []struct{ subject, queue string }{{"a..b", ""}, {"a b", ""}, {"a", "q q"}} {
		h := prepare(t, natstest.Config(srv.URL()), c.queue, c.subject)
		if err := h.src.Run(t.Context(), h.accept); err == nil || !strings.Contains(err.Error(), strconv.Quote(c.subject)) {
			t.Errorf("%q in %q: %v", c.subject, c.queue, err)
		}
	}
}

func TestEpisode(t *testing.T) {
	log := natstest.NewLog(t)
	e := episode{log: log.Logger}
	now := time.Now()
	at := func(s float64, n int) { e.observe(n, now.Add(time.Duration(s*float64(time.Second)))) }
	at(0, 0)
	at(1, 10) // begins
	at(2, 0)
	at(3, 5) // the same one: nats.go would call it another
	at(70, 1)
	at(71, 0)
	at(75, 0) // over
	at(76, 0)
	at(80, 2) // a new one
	e.finish()
	var got []string
	for line := range bytes.Lines([]byte(log.String())) {
		got = append(got, string(bytes.TrimSpace(line)))
	}
	want := []string{
		`{"level":"warn","dropped":10,"message":"slow consumer: messages arrive faster than the route takes them and are dropped"}`,
		`{"level":"warn","dropped":16,"lasted":69000,"message":"slow consumer: messages are still being dropped"}`,
		`{"level":"warn","dropped":16,"lasted":69000,"message":"slow consumer: over"}`,
		`{"level":"warn","dropped":2,"message":"slow consumer: messages arrive faster than the route takes them and are dropped"}`,
		`{"level":"warn","dropped":2,"lasted":0,"message":"slow consumer: over"}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got)\n%s", diff)
	}
}
