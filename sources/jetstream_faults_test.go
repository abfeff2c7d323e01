package sources

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
	"github.com/natsrelay/natsrelay/relay"
)

// Cuts at any instant cost neither a message nor the order, and nothing reaches the route twice.
func TestJetStreamThroughCuts(t *testing.T) {
	for _, policy := range []string{"explicit", "all"} {
		t.Run(policy, func(t *testing.T) {
			srv, stream := startStream(t)
			door := tcpproxy.Start(t, srv.Addr())
			cfg := jsConfig()
			cfg.AckPolicy = policy
			h := startJS(t, cfg, "nats://"+door.Addr())
			stop := make(chan struct{})
			cut := make(chan struct{})
			go func() {
				defer close(cut)
				for {
					select {
					case <-stop:
						return
					case <-time.After(15 * time.Millisecond):
						door.Cut()
					}
				}
			}()
			stream.publish(3000)
			close(stop)
			<-cut
			h.await(1, 3000)
			stream.awaitAcked()
			t.Logf("%d deliveries for 3000 messages, %d repeats seen by the source", stream.info().Delivered.Consumer, h.src.ledger.repeats)
		})
	}
}

// The server is killed and comes back, and may have forgotten some acknowledgements: the route sees each message once, and in order.
func TestJetStreamSurvivesServerKills(t *testing.T) {
	srv, stream := startStream(t)
	h := startJS(t, jsConfig(), srv.URL())
	for range 3 {
		stream.publish(200)
		srv.Kill()
		srv.Start()
	}
	stream.publish(200)
	h.await(1, 800)
	stream.awaitAcked()
}

func TestJetStreamConsumerDeletedWhileConnected(t *testing.T) {
	srv, stream := startStream(t)
	dir := t.TempDir()
	h := prepareJS(t, jsConfig(), dir, srv.URL()).run()
	stream.publish(100)
	h.await(1, 100)
	stream.awaitAcked()
	natstest.Eventually(t, "the position is stored", func() bool {
		data, err := os.ReadFile(filepath.Join(dir, markFile))
		p, _ := parsePosition(data)
		return err == nil && p.Next == 101
	})
	h.set(func() { h.hold = true })
	stream.publish(20)
	h.await(1, 120)
	if err := stream.js.DeleteConsumer(stream.ctx(), "S", "d"); err != nil {
		t.Fatal(err)
	}
	stream.publish(30)
	h.await(1, 150)
	h.set(func() { h.hold = false })
	h.settle(relay.FateDone)
	stream.awaitAcked()
	if h.log.Count("there was no consumer, it is created", `"resumed":true`) != 1 {
		t.Error("want one line that says so")
	}
	if start := stream.info().Config.OptStartSeq; start != 101 {
		t.Errorf("resumed at %d", start)
	}
}

// A consumer that vanishes while the relay is away is created again where the route was, by the position on the relay's disk.
func TestJetStreamConsumerDeletedWhileAway(t *testing.T) {
	srv, stream := startStream(t)
	dir := t.TempDir()
	h := prepareJS(t, jsConfig(), dir, srv.URL()).run()
	stream.publish(100)
	h.await(1, 100)
	stream.awaitAcked()
	h.stop()
	if err := stream.js.DeleteConsumer(stream.ctx(), "S", "d"); err != nil {
		t.Fatal(err)
	}
	stream.publish(50)
	cfg := jsConfig()
	cfg.Deliver.From = "new"
	next := prepareJS(t, cfg, dir, srv.URL()).run()
	next.await(101, 50)
}

// The consumer goes while the connection is down, so nobody tells the relay.
func TestJetStreamConsumerDeletedDuringACut(t *testing.T) {
	srv, stream := startStream(t)
	door := tcpproxy.Start(t, srv.Addr())
	h := startJS(t, jsConfig(), "nats://"+door.Addr())
	stream.publish(100)
	h.await(1, 100)
	stream.awaitAcked()
	door.Refuse()
	door.Cut()
	if err := stream.js.DeleteConsumer(stream.ctx(), "S", "d"); err != nil {
		t.Fatal(err)
	}
	stream.publish(50)
	if err := door.Accept(); err != nil {
		t.Fatal(err)
	}
	h.await(1, 150)
}

// max_ack_pending is reached: the rest waits in the stream, and comes when there is room.
func TestJetStreamMaxAckPending(t *testing.T) {
	srv, stream := startStream(t)
	cfg := jsConfig()
	cfg.MaxAckPending = 10
	h := prepareJS(t, cfg, t.TempDir(), srv.URL())
	h.hold = true
	h.run()
	stream.publish(100)
	h.await(1, 10)
	time.Sleep(300 * time.Millisecond)
	h.await(1, 10)
	for h.count() < 100 {
		h.settle(relay.FateDone)
		time.Sleep(time.Millisecond)
	}
	h.await(1, 100)
}

// Messages larger than pull_bytes come all the same, one at a time.
func TestJetStreamLargeMessages(t *testing.T) {
	srv, stream := startStream(t)
	cfg := jsConfig()
	cfg.PullBytes = 64 << 10
	h := startJS(t, cfg, srv.URL())
	large := bytes.Repeat([]byte("x"), 100<<10)
	for range 5 {
		stream.publish(1)
		stream.publishMsg(&nats.Msg{Subject: "s.large", Data: large})
		stream.publishMsg(&nats.Msg{Subject: "s.large", Data: large[:40<<10]})
	}
	natstest.Eventually(t, "all arrive", func() bool { return h.count() == 15 })
	stream.awaitAcked()
	if n := stream.info().Delivered.Consumer; n != 15 {
		t.Errorf("%d deliveries of 15 messages", n)
	}
}

// A message that does not fit into what is left of a request is asked for alone, and the next request follows at once.
func TestJetStreamMessagesThatFillARequest(t *testing.T) {
	srv, stream := startStream(t)
	cfg := jsConfig()
	cfg.PullBytes = 64 << 10
	h := prepareJS(t, cfg, t.TempDir(), srv.URL())
	h.src.times.look, h.src.times.heartbeat, h.src.times.expires = 2*patience, 2*patience, 4*patience // which would ask, too
	h.run()
	stream.publishLarge(20, 12<<10)
	h.awaitSequences(20)
}

// Messages with an empty body and a header Status look like the server's own words on a pull. They are messages.
func TestJetStreamTakesStatusHeadersForMessages(t *testing.T) {
	srv, stream := startStream(t)
	h := startJS(t, jsConfig(), srv.URL())
	var want []string
	for _, status := range []string{"100", "400", "404", "408", "409", "423", "503"} {
		for _, description := range []string{"", "Consumer Deleted", "Message Size Exceeds MaxBytes"} {
			header := nats.Header{"Status": {status}, "Nats-Pending-Messages": {"1000"}, "Nats-Pending-Bytes": {"1000000"}}
			if description != "" {
				header["Description"] = []string{description}
			}
			stream.publishMsg(&nats.Msg{Subject: "s.status", Header: header})
			want = append(want, status+description)
		}
		stream.publish(1)
		want = append(want, "")
	}
	natstest.Eventually(t, "all arrive", func() bool { return h.count() == len(want) })
	var got []string
	for _, m := range h.msgs {
		got = append(got, m.Header.Get("Status")+m.Header.Get("Description"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	stream.awaitAcked()
	if n := h.log.Count("nothing can be received"); n != 0 {
		t.Errorf("the pull was ended %d times", n)
	}
}

func TestJetStreamOnACluster(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t, 3)
	stream := newStreamer(t, c.Client(), 3)
	h := startJS(t, jsConfig(), c.URLs()...)
	stream.publish(100)
	h.await(1, 100)
	c.StepDownConsumer("S", "d")
	stream.publish(100)
	h.await(1, 200)
	c.StepDown("S")
	stream.publish(100)
	h.await(1, 300)

	h.set(func() { h.hold = true })
	stream.publish(50)
	h.await(1, 350)
	c.Nodes[0].Kill() // no quorum
	c.Nodes[1].Kill()
	time.Sleep(2 * time.Second)
	c.Nodes[0].Start()
	c.Nodes[1].Start()
	h.set(func() { h.hold = false })
	h.settle(relay.FateDone)
	stream.publish(100)
	h.await(1, 450)
	stream.awaitAcked()

	c.ConsumerLeader("S", "d").Kill()
	stream.publish(50)
	h.await(1, 500)
}

// What cannot work is said, once, with what to change; and it works as soon as that is mended.
func TestJetStreamTellsWhatIsWrong(t *testing.T) {
	for name, tc := range map[string]struct {
		consumer jetstream.ConsumerConfig
		bind     bool
		want     []string
	}{
		"none":    {bind: true, want: []string{`there is no consumer d in stream S: create it, or set consumer = "ensure"`}},
		"policy":  {consumer: jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy}, want: []string{"its ack_policy is none"}},
		"all":     {consumer: jetstream.ConsumerConfig{AckPolicy: jetstream.AckAllPolicy}, want: []string{`its ack_policy is "all": set source.ack_policy to that`}},
		"deliver": {bind: true, consumer: jetstream.ConsumerConfig{MaxDeliver: 5, HeadersOnly: true}, want: []string{"its max_deliver is 5", "set it to -1", "unset headers_only"}},
		"filter":  {bind: true, consumer: jetstream.ConsumerConfig{FilterSubject: "s.1"}, want: []string{`its filter is ["s.1"]`}},
	} {
		t.Run(name, func(t *testing.T) {
			srv, stream := startStream(t)
			cfg := jsConfig()
			if tc.bind {
				cfg.Consumer = "bind"
			}
			if name == "filter" {
				cfg.Subjects = []string{"s.2"}
			}
			if name != "none" {
				tc.consumer.Durable = "d"
				if _, err := stream.js.CreateConsumer(stream.ctx(), "S", tc.consumer); err != nil {
					t.Fatal(err)
				}
			}
			h := startJS(t, cfg, srv.URL())
			natstest.Eventually(t, "it is said", func() bool {
				err := h.src.Trouble()
				fault, _ := errors.AsType[*relay.Fault](err)
				return fault != nil && fault.Blocked && !slices.ContainsFunc(tc.want, func(s string) bool { return !strings.Contains(err.Error(), s) })
			})
			time.Sleep(time.Second)
			if n := h.log.Count("until somebody mends it"); n != 1 {
				t.Errorf("said %d times", n)
			}
			if name != "none" {
				if err := stream.js.DeleteConsumer(stream.ctx(), "S", "d"); err != nil {
					t.Fatal(err)
				}
			}
			good := jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: strings.Join(cfg.Subjects, "")}
			if _, err := stream.js.CreateConsumer(stream.ctx(), "S", good); err != nil && !errors.Is(err, jetstream.ErrConsumerExists) {
				t.Fatal(err)
			}
			stream.publishMsg(&nats.Msg{Subject: "s.2"})
			natstest.Eventually(t, "it works", func() bool { return h.count() == 1 && h.src.Trouble() == nil })
		})
	}
}

func TestJetStreamEnsureChangesWhatDiffers(t *testing.T) {
	srv, stream := startStream(t)
	old := jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: 3, AckWait: time.Minute, FilterSubject: "s.1", Description: "ours"}
	if _, err := stream.js.CreateConsumer(stream.ctx(), "S", old); err != nil {
		t.Fatal(err)
	}
	created := stream.info().Created
	cfg := jsConfig()
	cfg.Subjects = []string{"s.1", "s.2"}
	h := startJS(t, cfg, srv.URL())
	stream.publishMsg(&nats.Msg{Subject: "s.2"})
	natstest.Eventually(t, "it arrives", func() bool { return h.count() == 1 })
	got := stream.info()
	if !got.Created.Equal(created) {
		t.Error("the consumer was created anew")
	}
	if c := got.Config; c.MaxDeliver != -1 || c.AckWait != 30*time.Second || c.MaxAckPending != 4096 || len(c.FilterSubjects) != 2 || c.Description != "ours" {
		t.Errorf("%+v", c)
	}
	h.stop()
	again := startJS(t, cfg, srv.URL())
	stream.publishMsg(&nats.Msg{Subject: "s.2"})
	natstest.Eventually(t, "it arrives", func() bool { return again.count() == 1 })
	if again.log.Count("the consumer is changed") != 0 {
		t.Error("changed although nothing differs")
	}
}

// A change that the server refuses is said, and leaves the consumer as it is, with its place; it is made as soon as the server takes it.
func TestJetStreamEnsureIsRefused(t *testing.T) {
	srv, stream := startStream(t)
	limits := jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, ConsumerLimits: jetstream.StreamConsumerLimits{MaxAckPending: 100}}
	if _, err := stream.js.UpdateStream(stream.ctx(), limits); err != nil {
		t.Fatal(err)
	}
	cfg := jsConfig()
	cfg.MaxAckPending = 100
	dir := t.TempDir()
	h := prepareJS(t, cfg, dir, srv.URL()).run()
	stream.publish(10)
	h.await(1, 10)
	stream.awaitAcked()
	h.stop()
	created := stream.info().Created
	next := prepareJS(t, jsConfig(), dir, srv.URL()).run()
	natstest.Eventually(t, "it is said", func() bool {
		err := next.src.Trouble()
		fault, _ := errors.AsType[*relay.Fault](err)
		return fault != nil && fault.Blocked && strings.Contains(err.Error(), "change consumer d (max_ack_pending 100 to 4096)")
	})
	if got := stream.info(); !got.Created.Equal(created) || got.Config.MaxAckPending != 100 || got.AckFloor.Stream != 10 {
		t.Errorf("the consumer is not what it was: %+v", got)
	}
	stream.publish(10)
	limits.ConsumerLimits = jetstream.StreamConsumerLimits{}
	if _, err := stream.js.UpdateStream(stream.ctx(), limits); err != nil {
		t.Fatal(err)
	}
	next.await(11, 10)
	if got := stream.info(); !got.Created.Equal(created) || got.Config.MaxAckPending != 4096 {
		t.Errorf("the consumer was not changed: %+v", got)
	}
}

func TestJetStreamPausedConsumer(t *testing.T) {
	srv, stream := startStream(t)
	h := startJS(t, jsConfig(), srv.URL())
	stream.publish(1)
	h.await(1, 1)
	if _, err := stream.js.PauseConsumer(stream.ctx(), "S", "d", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "it is said", func() bool {
		err := h.src.Trouble()
		return err != nil && strings.Contains(err.Error(), "paused for another")
	})
	stream.publish(1)
	if _, err := stream.js.ResumeConsumer(stream.ctx(), "S", "d"); err != nil {
		t.Fatal(err)
	}
	h.await(1, 2)
	natstest.Eventually(t, "no trouble", func() bool { return h.src.Trouble() == nil })
}

// A consumer that has messages and delivers none, although it is asked and not held back, is pulled from anew, with its state in the log.
func TestJetStreamWatchdog(t *testing.T) {
	srv, stream := startStream(t)
	h := startJS(t, jsConfig(), srv.URL())
	stream.publish(1)
	h.await(1, 1)
	h.stop()
	stuck := jetstream.ConsumerInfo{NumPending: 10, Delivered: jetstream.SequenceInfo{Consumer: 1}, Config: jetstream.ConsumerConfig{MaxAckPending: 100}}
	for name, tc := range map[string]struct {
		change func(*jetstream.ConsumerInfo, *pull)
		stuck  bool
	}{
		"stuck":           {func(*jetstream.ConsumerInfo, *pull) {}, true},
		"nothing pending": {func(i *jetstream.ConsumerInfo, _ *pull) { i.NumPending = 0 }, false},
		"paused":          {func(i *jetstream.ConsumerInfo, _ *pull) { i.Paused = true }, false},
		"max_ack_pending": {func(i *jetstream.ConsumerInfo, _ *pull) { i.NumAckPending = 100 }, false},
		"not asked":       {func(_ *jetstream.ConsumerInfo, p *pull) { p.wanted = 0 }, false},
		"received":        {func(_ *jetstream.ConsumerInfo, p *pull) { p.count++ }, false},
		"delivered":       {func(i *jetstream.ConsumerInfo, _ *pull) { i.Delivered.Consumer++ }, false},
	} {
		p := &pull{s: h.src, b: h.src.bound, wanted: 5}
		info, err := stuck, error(nil)
		for look := 0; look < 2*mostStuck && err == nil; look++ {
			tc.change(&info, p)
			err = p.judge(&info)
		}
		if (err != nil) != tc.stuck {
			t.Errorf("%s: %v", name, err)
		}
	}
	if h.log.Count("the consumer has messages and delivers none", `"num_pending":10`) != 1 {
		t.Error("want one line with the consumer's state")
	}
}

// While a consumer has messages, says that it is there, and delivers none, it is pulled from anew, again and again, until it delivers.
func TestJetStreamWatchdogPullsAnew(t *testing.T) {
	const next = "$JS.API.CONSUMER.MSG.NEXT.S.d"
	conf := natstest.JetStream(t) + "\nmappings: {%q: stuck}"
	srv := natstest.Start(t, fmt.Sprintf(conf, next), nil)
	stream := newStreamer(t, srv.Client(), 1)
	var requests atomic.Int64
	_, err := stream.nc.Subscribe("stuck", func(m *nats.Msg) {
		requests.Add(1)
		if err := m.RespondMsg(&nats.Msg{Header: nats.Header{"Status": {"100"}, "Description": {"Idle Heartbeat"}}}); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	h := startJS(t, jsConfig(), srv.URL())
	stream.publish(10)
	natstest.Eventually(t, "it pulls anew, and again", func() bool {
		return h.log.Count("the consumer has messages and delivers none", `"num_pending":10`) >= 2 && requests.Load() >= 3
	})
	natstest.Eventually(t, "that is its trouble", func() bool {
		err := h.src.Trouble()
		return err != nil && strings.Contains(err.Error(), "has 10 messages and delivers none")
	})
	srv.Reload(fmt.Sprintf(conf, "another")) // with no mappings at all, the server would keep these
	h.await(1, 10)
	stream.awaitAcked()
	natstest.Eventually(t, "no trouble", func() bool { return h.src.Trouble() == nil })
}

// What the server does not permit is said, and works as soon as it is permitted.
func TestJetStreamDenied(t *testing.T) {
	conf := func(denied string) string {
		return `jetstream: {store_dir: "` + t.TempDir() + `"}
			authorization { users: [{user: u, password: p, permissions: {publish: {deny: ["` + denied + `"]}}}, {user: admin, password: p}] }`
	}
	const next = "$JS.API.CONSUMER.MSG.NEXT.>"
	first := conf(next)
	srv := natstest.Start(t, first, nil)
	stream := newStreamer(t, srv.Client(nats.UserInfo("admin", "p")), 1)
	cfg := natstest.Config(srv.URL())
	cfg.User, cfg.Password = "u", "p"
	h := prepareOn(t, cfg, jsConfig(), t.TempDir()).run()
	natstest.Eventually(t, "it is said", func() bool {
		err := h.src.Trouble()
		fault, _ := errors.AsType[*relay.Fault](err)
		return fault != nil && fault.Blocked && strings.Contains(err.Error(), "not permitted to publish")
	})
	srv.Reload(strings.Replace(first, next, "nothing", 1))
	stream.publish(5)
	h.await(1, 5)
	natstest.Eventually(t, "no trouble", func() bool { return h.src.Trouble() == nil })
}

// In a domain, ids begin with its name: streams of one name in two domains must not be taken for one.
func TestJetStreamDomain(t *testing.T) {
	srv := natstest.Start(t, `jetstream: {store_dir: "`+t.TempDir()+`", domain: hub}`, nil)
	stream := newStreamer(t, srv.Client(), 1)
	cfg := natstest.Config(srv.URL())
	cfg.JetStreamDomain = "hub"
	h := prepareOn(t, cfg, jsConfig(), t.TempDir()).run()
	stream.publishMsg(&nats.Msg{Subject: "s.a"})
	natstest.Eventually(t, "it arrives", func() bool { return h.count() == 1 })
	if id := h.msgs[0].ID; id != "hub:S:1" {
		t.Errorf("id %q", id)
	}
	stream.awaitAcked()
}
