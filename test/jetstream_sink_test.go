package test

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

var sinkMessages = flag.Int("sink.messages", 4000, "messages of TestJetStreamSinkOnACluster; with 16000 and more it runs without fast ingest, too")

const streamSinkConfig = `
state_dir = %q
instance = "test"
drain_timeout = "2s"
[log]
level = "debug"
[nats.edge]
urls = ["%s"]
reconnect = { min = "20ms", max = "200ms" }
[nats.cloud]
urls = ["%s"]
reconnect = { min = "20ms", max = "200ms" }
[route.link.source]
nats = "edge"
%s
[route.link.delivery]
retry = { min = "50ms", max = "500ms" }
%s
[route.link.sink]
type = "nats"
nats = "cloud"
mode = "jetstream"
stream = "TARGET"
%s
`

func newStreamSink(t *testing.T, edge string, cloud []string, source, delivery, sink string) *relayProcess {
	dir := t.TempDir()
	return newRelay(t, writeConfig(t, dir, streamSinkConfig, mkdir(t, dir+"/state"), edge, strings.Join(cloud, `", "`), source, delivery, sink))
}

const (
	fromStream = "type = \"jetstream\"\nstream = \"SOURCE\""
	fromCore   = "type = \"core\"\nsubjects = [\"test.>\"]"
)

// From a stream into one of three replicas, by fast ingest and without: its leader steps down, is killed, two of three are gone for a while, the
// relay is killed: nothing is lost, nothing is there twice, and it is in order.
func TestJetStreamSinkOnACluster(t *testing.T) {
	t.Parallel()
	cluster := natstest.StartCluster(t, 3)
	source := natstest.StartProcess(t, natstest.JetStream(t))
	from, to := source.Client(), cluster.Client()
	n := *sinkMessages
	makeStream(t, from, "SOURCE", "")
	publishNumbers(t, from, 1, n)
	for name, c := range map[string]struct{ target, sink string }{
		"fast ingest": {`, "allow_batched": true`, ""},
		"spaced":      {"", `batch_publish = "off"`},
	} {
		if name == "spaced" && n < 16_000 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			_, _ = to.Request("$JS.API.STREAM.DELETE.TARGET", nil, 10*time.Second) // of the run before
			makeStream(t, to, "TARGET", `, "num_replicas": 3`+c.target)
			relay := newStreamSink(t, source.URL(), cluster.URLs(), fromStream+"\ndurable = \""+strings.ReplaceAll(name, " ", "-")+"\"", "ordering = \"strict\"\nrate_limit = 2000", c.sink)
			relay.start()
			stored := func() int { last, _ := lastSequence(to, "TARGET"); return last }
			reach := func(part int) {
				t.Helper()
				within(t, 120*time.Second, func() bool { return stored() >= part*n/6 }, "%d messages arrive", part*n/6)
			}
			reach(1)
			cluster.StepDown("TARGET")
			reach(2)
			leader := cluster.Leader("TARGET")
			leader.Kill()
			time.Sleep(time.Second)
			leader.Start()
			reach(3)
			relay.kill()
			relay.start()
			reach(4)
			cluster.Nodes[0].Kill()
			cluster.Nodes[1].Kill() // no quorum: what is published now is not acknowledged
			time.Sleep(4 * time.Second)
			cluster.Nodes[0].Start()
			cluster.Nodes[1].Start()
			reach(5)
			cluster.StepDown("TARGET")
			reach(6)
			relay.stop()
			checkEachOnce(t, streamContent(t, to, "TARGET"), n)
		})
	}
}

// From core NATS into a stream, with every way to persist: it is missing, then created; full, then freed; deleted, then made anew; its server
// is killed in the middle. The route is blocked where somebody has to mend it, says why, and goes on, in order.
func TestJetStreamSinkThroughTroubles(t *testing.T) {
	for name, buffer := range map[string]string{"overflow": `persist = "overflow"`, "outage": `persist = "outage"`, "always": `persist = "always"`, "no disk": `disk = 0`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			edge, cloud := natstest.Start(t, "", nil), natstest.StartProcess(t, natstest.JetStream(t))
			pub, to := edge.Client(), cloud.Client()
			relay := newStreamSink(t, edge.URL(), []string{cloud.URL()}, fromCore, "ordering = \"strict\"\n[route.link.buffer]\n"+buffer, "")
			relay.start()
			within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 1 }, "the relay subscribes")
			publish := func(from, n int) { t.Helper(); publishAt(t, pub, from-1, n, 20_000) }
			arrived := func(n int) {
				t.Helper()
				within(t, 60*time.Second, func() bool { last, _ := lastSequence(to, "TARGET"); return last >= n }, "%d messages arrive", n)
			}
			api := func(what, body string) {
				t.Helper()
				if _, err := to.Request("$JS.API.STREAM."+what+".TARGET", []byte(body), 20*time.Second); err != nil {
					t.Fatal(err)
				}
			}

			publish(1, 500)
			within(t, 60*time.Second, func() bool { return relay.log.contains("it does not exist; create it") }, "the relay says that the stream is missing")
			makeStream(t, to, "TARGET", `, "discard": "new", "max_msgs": 1000, "allow_batched": true`)
			arrived(500)
			publish(501, 1000) // 500 of them are too many
			within(t, 60*time.Second, func() bool { return relay.log.contains("maximum messages exceeded") }, "the relay says that the stream is full")
			first := streamContent(t, to, "TARGET")
			api("PURGE", "")
			arrived(1500)
			cloud.Kill()
			publish(1501, 300)
			cloud.Start()
			arrived(1800)
			second := streamContent(t, to, "TARGET")
			checkEachOnce(t, slices.Concat(first, second), 1800)

			api("DELETE", "")
			publish(1801, 100)
			within(t, 60*time.Second, func() bool { return strings.Count(relay.log.tail(1_000_000), "it does not exist; create it") > 1 }, "the relay says that the stream is gone")
			makeStream(t, to, "TARGET", "")
			within(t, 60*time.Second, func() bool { last, _ := lastSequence(to, "TARGET"); return last >= 100 }, "100 messages arrive in the new stream")
			relay.stop()
			third := streamContent(t, to, "TARGET")
			if len(third) != 100 || third[0] != 1801 || third[99] != 1900 {
				t.Errorf("the new stream has %d messages, %v …", len(third), third[:1])
			}
		})
	}
}

// create_stream makes the stream, once; dedupe = false leaves the id out.
func TestJetStreamSinkCreatesTheStream(t *testing.T) {
	t.Parallel()
	edge, cloud := natstest.Start(t, "", nil), natstest.StartProcess(t, natstest.JetStream(t))
	pub, to := edge.Client(), cloud.Client()
	relay := newStreamSink(t, edge.URL(), []string{cloud.URL()}, fromCore, "", "dedupe = false\n"+`create_stream = { subjects = ["test.>"], storage = "memory" }`)
	relay.start()
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 1 }, "the relay subscribes")
	publishAt(t, pub, 0, 10, 1000)
	within(t, 60*time.Second, func() bool { last, _ := lastSequence(to, "TARGET"); return last >= 10 }, "10 messages arrive")
	relay.stop()
	m, err := to.Request("$JS.API.STREAM.MSG.GET.TARGET", []byte(`{"seq": 3}`), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if !relay.log.contains("stream created") || strings.Contains(fmt.Sprint(decodedHeaders(t, m)), "Nats-Msg-Id") {
		t.Errorf("log %s, message %s", relay.log.tail(5), m.Data)
	}
}

// decodedHeaders returns the headers in an answer to STREAM.MSG.GET.
func decodedHeaders(t *testing.T, m *nats.Msg) string {
	t.Helper()
	var answer struct {
		Message struct{ Hdrs []byte }
	}
	decodeJSON(t, m.Data, &answer)
	return string(answer.Message.Hdrs)
}
