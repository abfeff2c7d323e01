package test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

const secureRoute = `
state_dir = %q
instance = "test"
[nats.edge]
urls = ["tls://%s"]
creds = %q
tls = { ca = %q }
reconnect = { min = "20ms", max = "200ms" }
[route.web]
source = { type = "core", nats = "edge", subjects = ["test.>"] }
sink = { type = "http", url = %q }
`

// replace puts a new file in the place of another in one step.
func replace(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// The relay's JWT expires, and the server gets a certificate of another authority. Both files are renewed on disk: the relay goes
// on by itself, and what is published from then on arrives.
func TestCredentialsAndAuthorityAreRenewedOnDisk(t *testing.T) {
	t.Parallel()
	op := natstest.NewOperator(t)
	operator := op.Config(nil)
	conf := func(ca *natstest.CA) string {
		cert, key := ca.Issue("server")
		return operator + fmt.Sprintf("tls { cert_file: %q, key_file: %q }", cert, key)
	}
	authority := func(ca *natstest.CA) []byte {
		pem, err := os.ReadFile(ca.File())
		if err != nil {
			t.Fatal(err)
		}
		return pem
	}
	old, next := natstest.NewCA(t, "old"), natstest.NewCA(t, "next")
	edge := natstest.Start(t, conf(old), nil)
	web := newEndpoint(t, newTally())
	dir := t.TempDir()
	creds, ca, own := dir+"/edge.creds", dir+"/ca.pem", dir+"/own.creds"
	replace(t, own, op.Creds(nil))
	replace(t, ca, authority(old))
	relay := newRelay(t, writeConfig(t, dir, secureRoute, mkdir(t, dir+"/state"), edge.Addr(), creds, ca, web.url()))
	// Now that the binary is built.
	replace(t, creds, op.Creds(func(u *jwt.UserClaims) { u.Expires = time.Now().Add(20 * time.Second).Unix() }))
	relay.start()
	subscribed := func() bool { return edge.Interest("test.1") == 1 }
	within(t, 60*time.Second, subscribed, "the relay subscribes")
	pub := edge.Client(nats.RootCAs(old.File()), nats.UserCredentials(own))
	publishAt(t, pub, 0, 100, 1000)
	within(t, 60*time.Second, func() bool { return web.tally.count() == 100 }, "all arrive")
	pub.Close()

	within(t, time.Minute, func() bool { return relay.log.contains("authentication expired") }, "the relay says that it has expired")
	edge.Reload(conf(next))
	within(t, 60*time.Second, func() bool { return relay.log.contains("unknown authority") }, "the relay says that it does not know the authority")
	replace(t, ca, authority(next))
	replace(t, creds, op.Creds(nil))
	within(t, 60*time.Second, subscribed, "the relay subscribes again")
	pub = edge.Client(nats.RootCAs(next.File()), nats.UserCredentials(own))
	publishAt(t, pub, 100, 100, 1000)
	within(t, 60*time.Second, func() bool { return web.tally.count() == 200 }, "all arrive")
	relay.stop()
	web.tally.check(t, "http", 200, 0)
}

const sameCluster = `
state_dir = %q
instance = "test"
[nats.edge]
urls = [%q]
user = "relay"
password = "p"
reconnect = { min = "20ms", max = "200ms" }
[route.same]
source = { type = "core", nats = "edge", subjects = ["in.>"] }
transform = { subject = "test.>" }
delivery = { retry = { min = "20ms", max = "200ms" } }
sink = { type = "nats", nats = "edge", mode = "core" }
`

// A route within one cluster has a connection for its source and another one for its sink. The server permits it neither to subscribe
// nor to publish at first, and then one after the other, while it runs: nothing that it had received is lost.
func TestPermissionsAreGivenWhileTheRouteRuns(t *testing.T) {
	t.Parallel()
	conf := func(publish, subscribe string) string {
		return fmt.Sprintf(`authorization { users: [
			{ user: relay, password: p, permissions: { publish: %q, subscribe: %q } }
			{ user: all, password: p }
		] }`, publish, subscribe)
	}
	srv := natstest.Start(t, conf("nothing", "nothing"), nil)
	dir := t.TempDir()
	relay := newRelay(t, writeConfig(t, dir, sameCluster, mkdir(t, dir+"/state"), srv.URL()))
	relay.start()
	within(t, 60*time.Second, func() bool { return relay.log.contains("not permitted to subscribe") }, "the relay says that it may not subscribe")
	within(t, 60*time.Second, func() bool { return srv.NumClients() == 2 }, "there are two connections, one for the source and one for the sink")
	srv.Reload(conf("nothing", "in.>"))
	within(t, 60*time.Second, func() bool { return srv.Interest("in.1") == 1 }, "the relay subscribes")
	all := srv.Client(nats.UserInfo("all", "p"))
	arrived := newTally()
	arrived.collect(t, all)
	const n = 500
	for i := 1; i <= n; i++ {
		if err := all.Publish("in."+subjectOf(i)[len("test."):], fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	// Not before the whole first batch is denied: a permission that is given while the server reads that lets the rest of it pass, before what is sent again.
	within(t, 60*time.Second, func() bool { return relay.log.contains("sink is blocked") }, "the relay says that it may not publish")
	if got := arrived.count(); got != 0 {
		t.Errorf("%d arrived though nothing is permitted", got)
	}
	srv.Reload(conf("test.>", "in.>"))
	within(t, 60*time.Second, func() bool { return arrived.count() == n }, "all %d arrive", n)
	relay.stop()
	arrived.check(t, "nats", n, 0)
}
