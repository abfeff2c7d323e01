package test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

var (
	jsOutage = flag.Duration("jetstream.outage", 40*time.Second, "how long the sink of TestJetStreamSourceOutage is away; ack_wait is a third to a twelfth of it")
	jsKills  = flag.Int("jetstream.kills", 8, "how often TestJetStreamSourceKills kills something")
)

// A jsStream is the stream TEST on the subjects that tallies know, and its consumers.
type jsStream struct {
	t  *testing.T
	nc *nats.Conn
	js jetstream.JetStream
	n  int // stored
}

func newJSStream(t *testing.T, nc *nats.Conn, replicas int) *jsStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s := &jsStream{t: t, nc: nc, js: js}
	s.create(replicas)
	return s
}

func (s *jsStream) create(replicas int) {
	s.t.Helper()
	within(s.t, 60*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := s.js.CreateStream(ctx, jetstream.StreamConfig{Name: "TEST", Subjects: []string{"test.>"}, Replicas: replicas})
		return err == nil
	}, "the stream is created")
}

// publish stores n more numbers, each once.
func (s *jsStream) publish(n int) {
	s.t.Helper()
	for range n {
		s.n++
		m := &nats.Msg{Subject: subjectOf(s.n), Data: []byte(strconv.Itoa(s.n)), Header: nats.Header{"Nats-Msg-Id": {"n" + strconv.Itoa(s.n)}}}
		within(s.t, 60*time.Second, func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			_, err := s.js.PublishMsg(ctx, m)
			return err == nil
		}, "message %d is stored", s.n)
	}
}

// consumer returns the state of a consumer, nil if there is none or nobody answers.
func (s *jsStream) consumer(durable string) *jetstream.ConsumerInfo {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := s.js.Consumer(ctx, "TEST", durable)
	if err != nil {
		return nil
	}
	return c.CachedInfo()
}

// awaitAcked waits until a consumer has delivered everything, and all of it is acknowledged.
func (s *jsStream) awaitAcked(durable string) {
	s.t.Helper()
	within(s.t, 60*time.Second, func() bool {
		info := s.consumer(durable)
		return info != nil && info.NumPending == 0 && info.NumAckPending == 0
	}, "consumer %s has all acknowledged", durable)
}

func (s *jsStream) delete(what string, do func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := do(ctx); err != nil {
		s.t.Fatalf("delete %s: %v", what, err)
	}
}

const jsHead = `
state_dir = %q
instance = "test"
drain_timeout = "5s"
[log]
level = "debug"
[nats.edge]
urls = [%s]
reconnect = { min = "20ms", max = "200ms" }
connect_timeout = "30s"
`

// jsRoute is a route from the stream to an endpoint: its name, what is to be said of source, buffer and delivery, the URL.
const jsRoute = `
[route.%[1]s.source]
type = "jetstream"
nats = "edge"
stream = "TEST"
%[2]s
[route.%[1]s.buffer]
%[3]s
[route.%[1]s.delivery]
retry = { min = "50ms", max = "200ms" }
%[4]s
[route.%[1]s.sink]
type = "http"
timeout = "30s"
url = %[5]q
`

// jsConfig writes the configuration of a relay with one such route, called web.
func jsConfig(t *testing.T, urls []string, source, buffer, delivery, url string) string {
	t.Helper()
	dir := t.TempDir()
	head := fmt.Sprintf(jsHead, mkdir(t, dir+"/state"), `"`+strings.Join(urls, `", "`)+`"`)
	return writeConfig(t, dir, "%s", head+fmt.Sprintf(jsRoute, "web", source, buffer, delivery, url))
}

// From the stream to HTTP, to core NATS and to other streams, with every way to persist and both ways to acknowledge, through an outage and a restart:
// everything once, each subject in order, and all of it acknowledged.
func TestJetStreamSourceWithEveryBuffer(t *testing.T) {
	t.Parallel()
	edge, cloud := natstest.StartProcess(t, natstest.JetStream(t)), natstest.Start(t, natstest.JetStream(t), nil)
	stream := newJSStream(t, edge.Client(), 1)
	dir := t.TempDir()
	config := fmt.Sprintf(jsHead+"[nats.cloud]\nurls = [%[3]q]\n", mkdir(t, dir+"/state"), `"`+edge.URL()+`"`, cloud.URL())
	tallies, endpoints := map[string]*tally{}, []*endpoint{}
	for _, persist := range []string{"overflow", "outage", "always"} {
		for _, ack := range []string{"delivered", "stored"} {
			web := persist + "-" + ack + "-web"
			tallies[web] = newTally()
			e := newEndpoint(t, tallies[web])
			endpoints = append(endpoints, e)
			route := fmt.Sprintf(jsRoute, web, "ack = \""+ack+"\"", "spill_after = \"100ms\"\npersist = \""+persist+"\"", "", e.url())
			config += route
			for kind, sink := range map[string]string{"core": `mode = "core"`, "stream": "mode = \"jetstream\"\nstream = \"NAME\"\ncreate_stream = { subjects = [\"NAME.>\"] }"} {
				name := persist + "-" + ack + "-" + kind
				tallies[name] = newTally()
				to := "nats = \"cloud\"\n" + strings.ReplaceAll(sink, "NAME", name)
				config += strings.NewReplacer(web, name, `type = "http"`, `type = "nats"`, fmt.Sprintf("timeout = \"30s\"\nurl = %q", e.url()), to).Replace(route)
				config += fmt.Sprintf("[route.%s.transform]\nsubject = \"%[1]s.>\"\n", name)
				count(t, cloud.Client(), name, tallies[name])
			}
		}
	}
	relay := newRelay(t, writeConfig(t, dir, "%s", config))
	relay.start()
	const n = 600
	stream.publish(n / 3)
	for name, tally := range tallies {
		within(t, 60*time.Second, func() bool { return tally.count() > 0 }, "the first ones arrive by %s", name)
	}
	for _, e := range endpoints {
		e.retire()
	}
	stream.publish(n / 3)
	relay.stop()
	for _, e := range endpoints {
		e.up()
	}
	relay.start()
	stream.publish(n / 3)
	for name, tally := range tallies {
		within(t, 60*time.Second, func() bool { return tally.count() == n }, "all arrive by %s", name)
		stream.awaitAcked("natsrelay-" + name)
	}
	relay.stop()
	for name, tally := range tallies {
		tally.check(t, name, n, 0)
		if info := stream.consumer("natsrelay-" + name); strings.Contains(name, "overflow-stored") && info.NumRedelivered != 0 {
			t.Errorf("%s: %d delivered again", name, info.NumRedelivered)
		}
	}
}

// count tallies what is published to PREFIX.>, as if to the subjects below.
func count(t *testing.T, nc *nats.Conn, prefix string, c *tally) {
	t.Helper()
	sub, err := nc.Subscribe(prefix+".>", func(m *nats.Msg) {
		if endOfBatch := len(m.Data) == 0 && strings.HasSuffix(m.Reply, ".$FI"); !endOfBatch { // of fast ingest: it is no message
			c.add(strings.TrimPrefix(m.Subject, prefix+"."), string(m.Data))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	sub.SetPendingLimits(-1, -1)
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

// The sink is away for many times ack_wait. Nothing is delivered again, neither by the server nor by the relay; then everything comes in order.
func TestJetStreamSourceOutage(t *testing.T) {
	t.Parallel()
	edge := natstest.StartProcess(t, natstest.JetStream(t))
	stream := newJSStream(t, edge.Client(), 1)
	web := newEndpoint(t, newTally())
	ackWait := max(12*time.Second, *jsOutage/12) // half of which a loaded machine may be late to extend what is held
	relay := newRelay(t, jsConfig(t, []string{edge.URL()}, fmt.Sprintf("ack_wait = %q", ackWait), "", `ordering = "strict"`, web.url()))
	relay.start()
	stream.publish(500)
	within(t, 60*time.Second, func() bool { return web.tally.count() == 500 }, "the first arrive")
	web.down()
	for end := time.Now().Add(*jsOutage); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		stream.publish(50)
	}
	held := stream.consumer("natsrelay-web")
	web.up()
	within(t, 60*time.Second, func() bool { return web.tally.count() == stream.n }, "all %d arrive", stream.n)
	stream.awaitAcked("natsrelay-web")
	after := stream.consumer("natsrelay-web")
	relay.stop()
	t.Logf("%d messages, %d held through an outage of %v with ack_wait %v, %d deliveries", stream.n, held.NumAckPending, *jsOutage, ackWait, after.Delivered.Consumer)
	if held.NumAckPending == 0 || int(after.Delivered.Consumer) != stream.n {
		t.Errorf("%d deliveries of %d messages, %d held in the outage", after.Delivered.Consumer, stream.n, held.NumAckPending)
	}
	web.tally.check(t, "http", stream.n, 0)
}

// Relay and server are killed at random instants: nothing is lost, each subject comes in order, and no more comes twice than was under way.
func TestJetStreamSourceKills(t *testing.T) {
	t.Parallel()
	for _, ack := range []string{"delivered", "stored"} {
		t.Run(ack, func(t *testing.T) {
			t.Parallel()
			edge := natstest.StartProcess(t, natstest.JetStream(t))
			stream := newJSStream(t, edge.Client(), 1)
			web := newEndpoint(t, newTally())
			web.status = func(string) int { time.Sleep(time.Millisecond); return 0 } // so that a kill finds something under way
			buffer := ""
			if ack == "stored" {
				buffer = `persist = "always"`
			}
			relay := newRelay(t, jsConfig(t, []string{edge.URL()}, fmt.Sprintf("ack = %q", ack), buffer, "", web.url()))
			relay.start()
			kills, forgotten := 0, 0
			for range *jsKills {
				stream.publish(100 + rand.IntN(200))
				time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
				if rand.IntN(3) == 0 {
					edge.Kill()
					edge.Start()
					forgotten += 350
				} else {
					relay.kill()
					kills++
					stream.publish(50)
					relay.start()
				}
			}
			stream.publish(100)
			within(t, 90*time.Second, func() bool { return web.tally.count() == stream.n }, "all %d arrive (%d have)", stream.n, web.tally.count())
			stream.awaitAcked("natsrelay-web")
			relay.stop()
			// What the endpoint has confirmed and the relay not yet acknowledged: by 16 lanes, and on its way to the server.
			twice := 64
			if ack == "stored" {
				twice = 350 // what is on disk and not yet fsynced, at most all of a round, is on the server, too
			}
			// A server that is killed forgets the acknowledgements that it has not written down, of a round at most: the relay knows better, unless it
			// is killed, too.
			web.tally.check(t, ack, stream.n, kills*twice+forgotten)
			if relay.log.contains("has lost its end") {
				t.Error("a stream that has all of its messages is taken for one that has lost some")
			}
		})
	}
}

// The consumer is deleted under the running relay, then while it is stopped; then the stream is deleted and created anew.
func TestJetStreamSourceConsumerAndStreamVanish(t *testing.T) {
	t.Parallel()
	edge := natstest.StartProcess(t, natstest.JetStream(t))
	stream := newJSStream(t, edge.Client(), 1)
	web := newEndpoint(t, newTally())
	relay := newRelay(t, jsConfig(t, []string{edge.URL()}, "", "", "", web.url()))
	deleteConsumer := func() {
		stream.delete("the consumer", func(ctx context.Context) error { return stream.js.DeleteConsumer(ctx, "TEST", "natsrelay-web") })
	}
	arrive := func(n int) {
		t.Helper()
		within(t, 60*time.Second, func() bool { return web.tally.count() == n }, "%d arrive", n)
	}
	relay.start()
	stream.publish(200)
	arrive(200)
	deleteConsumer()
	stream.publish(200)
	arrive(400)
	stream.awaitAcked("natsrelay-web")
	relay.stop()
	deleteConsumer()
	stream.publish(200)
	relay.start()
	arrive(600)
	stream.delete("the stream", func(ctx context.Context) error { return stream.js.DeleteStream(ctx, "TEST") })
	within(t, 60*time.Second, func() bool { return relay.log.contains("stream not found") }, "the relay says so")
	stream.create(1)
	stream.publish(200)
	arrive(800)
	within(t, 60*time.Second, func() bool { return relay.log.contains("the stream was deleted and created anew") }, "the relay says so")
	relay.stop()
	web.tally.check(t, "http", 800, 0)
}

// Two relays share a durable. One is killed: the other gets what that held, after ack_wait.
func TestJetStreamSourceShared(t *testing.T) {
	t.Parallel()
	edge := natstest.StartProcess(t, natstest.JetStream(t))
	stream := newJSStream(t, edge.Client(), 1)
	web := newEndpoint(t, newTally())
	web.status = func(string) int { time.Sleep(2 * time.Millisecond); return 0 }
	start := func() *relayProcess {
		r := newRelay(t, jsConfig(t, []string{edge.URL()}, "ack_wait = \"12s\"\nmax_ack_pending = 200", "", "", web.url()))
		r.start()
		return r
	}
	one, two := start(), start()
	within(t, 60*time.Second, func() bool { c := stream.consumer("natsrelay-web"); return c != nil && c.NumWaiting >= 2 }, "both pull")
	stream.publish(1500)
	one.kill()
	stream.publish(500)
	within(t, 60*time.Second, func() bool { return web.tally.count() == stream.n }, "all arrive")
	stream.awaitAcked("natsrelay-web")
	two.stop()
	web.tally.disorder = nil // two relays keep no order between them
	web.tally.check(t, "shared", stream.n, 200)
}

// Two relays in a standby group. The active one is killed: the other takes over, in strict order, and nothing is lost.
func TestJetStreamSourceStandby(t *testing.T) {
	t.Parallel()
	edge := natstest.StartProcess(t, natstest.JetStream(t))
	stream := newJSStream(t, edge.Client(), 1)
	web := newEndpoint(t, newTally())
	web.status = func(string) int { time.Sleep(time.Millisecond); return 0 }
	relays := map[string]*relayProcess{}
	for _, name := range []string{"one", "two"} {
		relays[name] = newRelay(t, jsConfig(t, []string{edge.URL()}, `standby = "g"`, "", `ordering = "strict"`, web.url()))
		relays[name].start()
	}
	within(t, 60*time.Second, func() bool { c := stream.consumer("natsrelay-web"); return c != nil && c.NumWaiting >= 2 }, "both are there")
	stream.publish(300)
	within(t, 60*time.Second, func() bool { return web.tally.count() > 100 }, "messages flow")
	active, passive := relays["one"], relays["two"]
	within(t, 60*time.Second, func() bool {
		active, passive = passive, active
		return active.log.contains("is the active one")
	}, "one relay is active")
	if passive.log.contains("is the active one") {
		t.Fatal("both relays are active")
	}
	active.kill()
	stream.publish(300)
	within(t, 60*time.Second, func() bool { return web.tally.count() == 600 }, "the other one delivers")
	stream.awaitAcked("natsrelay-web")
	passive.stop()
	web.tally.check(t, "standby", 600, 64)
}

// A stream of three replicas: its leader and the consumer's step down, quorum is lost and regained, the leader is killed.
func TestJetStreamSourceOnACluster(t *testing.T) {
	t.Parallel()
	c := natstest.StartCluster(t, 3)
	stream := newJSStream(t, c.Client(), 3)
	web := newEndpoint(t, newTally())
	relay := newRelay(t, jsConfig(t, c.URLs(), "", "", `ordering = "strict"`, web.url()))
	relay.start()
	arrive := func() {
		t.Helper()
		within(t, 60*time.Second, func() bool { return web.tally.count() == stream.n }, "%d arrive", stream.n)
	}
	stream.publish(200)
	arrive()
	c.StepDownConsumer("TEST", "natsrelay-web")
	stream.publish(200)
	c.StepDown("TEST")
	stream.publish(200)
	arrive()
	c.Nodes[0].Kill()
	c.Nodes[1].Kill()
	time.Sleep(time.Second)
	c.Nodes[0].Start()
	c.Nodes[1].Start()
	stream.publish(200)
	arrive()
	c.ConsumerLeader("TEST", "natsrelay-web").Kill()
	stream.publish(200)
	arrive()
	stream.awaitAcked("natsrelay-web")
	relay.stop()
	web.tally.check(t, "cluster", stream.n, 0)
}

// Messages that look like the server's word on a pull are delivered like all others, and max_ack_pending holds back the rest, no more.
func TestJetStreamSourceStatusHeaders(t *testing.T) {
	t.Parallel()
	edge := natstest.StartProcess(t, natstest.JetStream(t))
	stream := newJSStream(t, edge.Client(), 1)
	web := newEndpoint(t, newTally())
	empty := make(chan string, 100)
	web.refuse = func(payload string) bool {
		if payload == "" {
			empty <- payload
		}
		return payload == ""
	}
	relay := newRelay(t, jsConfig(t, []string{edge.URL()}, "max_ack_pending = 5", "", "", web.url()))
	relay.start()
	statuses := []string{"100 Idle Heartbeat", "400 Bad Request", "404 No Messages", "408 Request Timeout", "409 Consumer Deleted", "409 Leadership Change", "503"}
	for _, status := range statuses {
		stream.publish(20)
		code, text, _ := strings.Cut(status, " ")
		if err := stream.nc.PublishMsg(&nats.Msg{Subject: "test.status", Header: nats.Header{"Status": {code}, "Description": {text}}}); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 60*time.Second, func() bool { return web.tally.count() == stream.n && len(empty) == len(statuses) }, "all arrive")
	stream.awaitAcked("natsrelay-web")
	relay.stop()
	web.tally.check(t, "http", stream.n, 0)
	if relay.log.contains("nothing can be received") {
		t.Error("the pull was ended")
	}
	if said := relay.command("dead", "cat", "web"); strings.Count(said, "\n") != len(statuses) {
		t.Errorf("the endpoint has refused %d empty bodies, dead letters are\n%s", len(statuses), said)
	}
}

// A stream that is deleted and made anew gives old sequences to new messages. The target still knows those of the old ones: nothing new is
// taken for a duplicate.
func TestJetStreamSourceMadeAnew(t *testing.T) {
	t.Parallel()
	for name, sink := range map[string]string{"dedupe": "", "exactly once": "exactly_once = true"} {
		t.Run(name, func(t *testing.T) {
			const n = 500
			l := newLink(t, n, "", `persist = "outage"`, sink)
			l.relay.start()
			l.awaitStored(n, 60*time.Second)
			l.awaitAcked()
			if _, err := l.from.Request("$JS.API.STREAM.DELETE.SOURCE", nil, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			makeStream(t, l.from, "SOURCE", "")
			publishNumbers(t, l.from, n+1, n)
			l.awaitStored(2*n, 60*time.Second)
			l.awaitAcked()
			l.relay.stop()
			l.checkEachOnce(2 * n)
		})
	}
}
