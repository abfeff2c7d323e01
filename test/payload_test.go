package test

import (
	"strings"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

const payloadConfig = `
state_dir = %q
instance = "test"
[nats.edge]
urls = [%q]
[nats.cloud]
urls = [%q]
[route.web]
source = { type = "core", nats = "edge", subjects = ["test.>"] }
delivery = { ordering = "strict" }
sink = { type = "nats", nats = "cloud", %s }
%s`

// A message that is too large for the server it goes to, headers included, is a dead letter with that reason. Those behind it do not wait.
func TestMessagesTooLargeForTheTarget(t *testing.T) {
	t.Parallel()
	for name, sink := range map[string]string{"core": `mode = "core"`, "jetstream": `mode = "jetstream", stream = "TARGET"`} {
		t.Run(name, func(t *testing.T) {
			edge, cloud := natstest.Start(t, "", nil), natstest.Start(t, natstest.JetStream(t)+"\nmax_payload: 1000", nil)
			to := cloud.Client()
			makeStream(t, to, "TARGET", "")
			arrived, err := to.SubscribeSync("test.>")
			if err != nil {
				t.Fatal(err)
			}
			if err := to.Flush(); err != nil {
				t.Fatal(err)
			}
			dir, api := t.TempDir(), newAdminAPI(t)
			relay := newRelay(t, writeConfig(t, dir, payloadConfig, mkdir(t, dir+"/state"), edge.URL(), cloud.URL(), sink, api.table()))
			relay.start()
			within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 1 }, "the relay subscribes")
			pub := edge.Client()
			publish := func(subject string, size int) {
				t.Helper()
				if err := pub.Publish(subject, []byte(strings.Repeat("x", size))); err != nil {
					t.Fatal(err)
				}
			}
			publish("test.1", 10)
			publish("test.payload", 1001)
			publish("test.2", 10)
			publish("test.headers", 990) // the relay's own headers are too much for it
			publish("test.3", 10)
			for _, want := range []string{"test.1", "test.2", "test.3"} {
				m, err := arrived.NextMsg(time.Minute)
				if err != nil {
					t.Fatalf("%s: %v", want, err)
				}
				if m.Subject != want {
					t.Fatalf("%s arrives, not %s", m.Subject, want)
				}
			}
			// What is behind them need not wait until they are stored.
			within(t, 60*time.Second, func() bool { return strings.Contains(relay.command("dead", "ls"), "\nweb    2 ") }, "there are two dead letters")
			letters := relay.command("dead", "cat", "web")
			for _, want := range []string{`"subject":"test.payload"`, `"subject":"test.headers"`, `"Natsrelay-Reason":["refused"]`, `the server takes 1000 (max_payload)`} {
				if !strings.Contains(letters, want) {
					t.Errorf("dead cat: no %s in\n%s", want, letters)
				}
			}
			for series, want := range map[string]float64{`natsrelay_dead_letters_total{reason="refused",route="web"}`: 2, `natsrelay_delivered_total{route="web"}`: 3, `natsrelay_dropped_total{reason="refused",route="web"}`: 0} {
				within(t, 60*time.Second, func() bool { return api.metrics()[series] == want }, "%s is %v", series, want)
			}
			api.becomesReady()
			relay.stop()
		})
	}
}
