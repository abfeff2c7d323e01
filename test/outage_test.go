package test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
)

const oneRoute = `
state_dir = %q
instance = "test"
[log]
level = "debug"
[nats.edge]
urls = [%q]
reconnect = { min = "20ms", max = "200ms" }
connect_timeout = "30s" # a loaded machine is no outage
[route.web]
[route.web.source]
type = "core"
nats = "edge"
subjects = ["test.>"]
[route.web.buffer]
%s
[route.web.delivery]
retry = { min = "50ms", max = "500ms" }
%s
[route.web.sink]
type = "http"
timeout = "30s"
url = %q
`

const cloudRoute = `
[nats.cloud]
urls = [%q]
reconnect = { min = "20ms", max = "200ms" }
[route.cloud]
[route.cloud.source]
type = "core"
nats = "edge"
subjects = ["test.>"]
queue = "cloud"
[route.cloud.delivery]
retry = { min = "50ms", max = "500ms" }
[route.cloud.sink]
type = "nats"
nats = "cloud"
mode = "core"
`

// Both sinks are away for 10 s at 2,000 messages a second, in memory large enough: nothing is lost, nothing out of order.
//
// The relay reaches the cloud through a door: a server confirms what it has read, whether or not anybody is subscribed, or still
// connected. So the door closes first and opens last, or the test would count as lost what no relay can know of.
func TestSinksAwayForTenSeconds(t *testing.T) {
	t.Parallel()
	edge, cloud := natstest.Start(t, "", nil), natstest.Start(t, "", nil)
	door := tcpproxy.Start(t, cloud.Addr())
	web := newEndpoint(t, newTally())
	viaCloud := newTally()
	subscriber := cloud.Client()
	viaCloud.collect(t, subscriber)
	dir := t.TempDir()
	relay := newRelay(t, writeConfig(t, dir, oneRoute+cloudRoute, mkdir(t, dir+"/state"), edge.URL(), "disk = 0", "", web.url(), "nats://"+door.Addr()))
	relay.start()
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 2 }, "the relay subscribes")

	const rate = 2000
	pub := edge.Client()
	publishAt(t, pub, 0, 2*rate, rate)
	web.down()
	door.Refuse()
	door.Cut()
	within(t, 60*time.Second, func() bool { return cloud.NumClients() == 1 }, "the cloud notices the cut")
	if err := subscriber.Flush(); err != nil { // what the cloud has confirmed is on its way to the subscriber before this
		t.Fatal(err)
	}
	cloud.Stop()
	publishAt(t, pub, 2*rate, 10*rate, rate)
	cloud.Restart()
	within(t, 60*time.Second, func() bool { return cloud.Interest("test.1") == 1 }, "the subscriber is back")
	back := time.Now()
	web.up()
	if err := door.Accept(); err != nil {
		t.Fatal(err)
	}
	publishAt(t, pub, 12*rate, 2*rate, rate)
	const n = 14 * rate
	within(t, 60*time.Second, func() bool { return web.tally.count() == n && viaCloud.count() == n },
		"all %d arrive", n)
	t.Logf("all arrived %v after the sinks were back, while publishing for 2 s more", time.Since(back).Round(10*time.Millisecond))
	relay.stop()
	web.tally.check(t, "http", n, 16)
	// What the cloud had received when it was cut off, and not yet confirmed, comes again.
	viaCloud.check(t, "nats", n, 4*1024)
}

// An endpoint that fails in every way that time mends costs neither a message nor the order.
func TestEndpointFailsInManyWays(t *testing.T) {
	t.Parallel()
	for _, ordering := range []string{"strict", "subject", "none"} {
		t.Run(ordering, func(t *testing.T) {
			t.Parallel()
			edge := natstest.Start(t, "", nil)
			web := newEndpoint(t, newTally())
			web.status = func(string) int {
				if i := rand.IntN(100); i < 5 {
					return []int{500, 502, 503, 429, 408}[i]
				}
				return 0
			}
			dir := t.TempDir()
			relay := newRelay(t, writeConfig(t, dir, oneRoute, mkdir(t, dir+"/state"), edge.URL(), "", `ordering = "`+ordering+`"`, web.url()))
			relay.start()
			within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 1 }, "the relay subscribes")
			pub := edge.Client()
			for round := range 5 {
				publishAt(t, pub, round*400, 400, 2000)
				web.down()
				time.Sleep(100 * time.Millisecond)
				web.up()
			}
			within(t, 60*time.Second, func() bool { return web.tally.count() == 2000 }, "all arrive")
			relay.stop()
			if ordering == "none" {
				web.tally.disorder = nil
			}
			web.tally.check(t, ordering, 2000, 5*16)
		})
	}
}

// The source's server is killed and started again: what is published once the relay is back arrives.
func TestSourceServerKilled(t *testing.T) {
	t.Parallel()
	edge := natstest.StartProcess(t, "")
	web := newEndpoint(t, newTally())
	dir := t.TempDir()
	relay := newRelay(t, writeConfig(t, dir, oneRoute, mkdir(t, dir+"/state"), edge.URL(), "", "", web.url()))
	relay.start()
	for round := range 5 {
		pub := edge.Client()
		awaitSubscription(t, pub)
		publishAt(t, pub, round*500, 500, 5000)
		within(t, 60*time.Second, func() bool { return len(web.tally.missing(round*500+1, round*500+500)) == 0 }, "round %d arrives", round)
		pub.Close()
		edge.Kill()
		edge.Start()
	}
	relay.stop()
	web.tally.check(t, "http", 2500, 0)
}

// awaitSubscription waits until a request on a subject of the relay finds somebody there: a server that knows of no subscription
// says so (NATS ADR-4, status 503), and does it before it answers the ping of a flush. The relay itself never answers.
func awaitSubscription(t *testing.T, nc *nats.Conn) {
	t.Helper()
	inbox, err := nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	defer inbox.Unsubscribe()
	within(t, 60*time.Second, func() bool {
		if err := errors.Join(nc.PublishRequest(probeSubject, inbox.Subject, nil), nc.Flush()); err != nil {
			t.Fatal(err)
		}
		_, err := inbox.NextMsg(time.Millisecond)
		return errors.Is(err, nats.ErrTimeout)
	}, "the relay subscribes")
}
