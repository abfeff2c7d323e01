package test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

// rewrite replaces the relay's configuration, as a deployment tool does, and asks for it to be read again. It returns when the relay says
// the given words, which it had not said before.
func (p *relayProcess) rewrite(said, format string, args ...any) {
	p.t.Helper()
	if err := os.WriteFile(p.config, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.reload(said)
}

// reload sends HUP, and returns when the relay has said the given words.
func (p *relayProcess) reload(said string) {
	p.t.Helper()
	before := p.log.countOf(said)
	p.signal(syscall.SIGHUP)
	within(p.t, 60*time.Second, func() bool { return p.log.countOf(said) > before }, "the relay says %q", said)
}

var reloads = flag.Int("reloads", 4, "reloads of TestReloadUnderLoad, one every three seconds; 20 for the figure of docs/guarantees.md")

const refused = "the new configuration is refused, the one before stays in force"

// A wrong configuration changes nothing, and all that is wrong with it is logged. A right one may change the log's level at once; what
// cannot change without a restart is said.
func TestReloadWrongConfiguration(t *testing.T) {
	t.Parallel()
	edge := natstest.Start(t, "", nil)
	web := newEndpoint(t, newTally())
	dir := t.TempDir()
	right := fmt.Sprintf(oneRoute, mkdir(t, dir+"/state"), edge.URL(), "", "", web.url())
	relay := newRelay(t, writeConfig(t, dir, "%s", right))
	relay.start()
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 1 }, "the relay subscribes")

	wrong := strings.NewReplacer(`"debug"`, `"loud"`, `"edge"`, `"egde"`).Replace(right)
	relay.rewrite(refused, "%s", wrong)
	for _, problem := range []string{"relay.toml:5:1: log.level", "relay.toml:13:1: route.web.source.nats: there is no [nats.NAME] table"} {
		if !relay.log.contains(problem) {
			t.Errorf("the relay does not say %q", problem)
		}
	}
	relay.rewrite(refused, "this is not TOML")
	if err := os.Remove(relay.config); err != nil {
		t.Fatal(err)
	}
	relay.reload("the configuration cannot be reloaded, the one before stays in force")

	other := strings.NewReplacer(`"debug"`, `"error"`, dir+"/state", dir+"/elsewhere").Replace(right)
	relay.rewrite("this cannot change while the relay runs", "%s", other)
	if !relay.log.contains(`"key":"state_dir"`) {
		t.Error("the relay does not say what cannot change")
	}
	// At this level the relay says no more. That it has not restarted the route: it has been connected once.
	publishAt(t, edge.Client(), 0, 100, 1000)
	within(t, 60*time.Second, func() bool { return web.tally.count() == 100 }, "all arrive")
	lines := relay.log.count()
	relay.stop()
	if n := relay.log.count(); n != lines {
		t.Errorf("at the level error, a stop is logged: %d lines", n-lines)
	}
	if n := relay.log.countOf(`"message":"connected"`); n != 1 {
		t.Errorf("the source has connected %d times", n)
	}
	if _, err := os.Stat(dir + "/elsewhere"); err == nil {
		t.Error("the state directory has moved")
	}
}

// A route that is taken out of the configuration leaves its backlog on disk, and delivers it, in order, when it is there again.
func TestReloadRemovesRoute(t *testing.T) {
	t.Parallel()
	const n = 500
	edge := natstest.Start(t, "", nil)
	web, other := newEndpoint(t, newTally()), newEndpoint(t, newTally())
	web.down()
	dir := t.TempDir()
	without := fmt.Sprintf(oneRoute, mkdir(t, dir+"/state"), edge.URL(), "", "", other.url())
	without = strings.NewReplacer("route.web", "route.other", "test.>", "other.>").Replace(without)
	withRoute := without + oneRoute[strings.Index(oneRoute, "[route.web]"):]
	relay := newRelay(t, writeConfig(t, dir, withRoute, "", "", web.url()))
	relay.start()
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 1 && edge.Interest("other.1") == 1 }, "the relay subscribes")
	publishAt(t, edge.Client(), 0, n, 10_000)
	within(t, 60*time.Second, func() bool { return relay.log.contains("spilling to disk") }, "the route spills")

	relay.rewrite(`"removed":["web"]`, "%s", without)
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 0 }, "the route that was removed subscribes no more")
	if !relay.log.contains(fmt.Sprintf(`"route":"web","messages":%d,`, n)) {
		t.Errorf("the relay does not say that there are %d messages on disk", n)
	}
	web.up()
	relay.rewrite(`"added":["web"]`, withRoute, "", "", web.url())
	within(t, 60*time.Second, func() bool { return web.tally.count() == n }, "the backlog arrives")
	relay.stop()
	web.tally.check(t, "http", n, 0)
	if c := relay.log.countOf(`"route":"other"`); c == 0 || relay.log.countOf(`"unchanged":["other"]`) != 2 {
		t.Error("the other route was touched")
	}
}

// A route that cannot be opened keeps neither the others from running nor itself from being opened later.
func TestRouteThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	edge := natstest.Start(t, "", nil)
	web := newEndpoint(t, newTally())
	dir := t.TempDir()
	obstacle := mkdir(t, dir+"/state/spool") + "/web"
	if err := os.WriteFile(obstacle, []byte("a file where the route's folder should be"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := strings.NewReplacer("route.web", "route.other", "test.>", "other.>").Replace(oneRoute[strings.Index(oneRoute, "[route.web]"):])
	systemd := newServiceManager(t)
	relay := newRelay(t, writeConfig(t, dir, oneRoute+other, dir+"/state", edge.URL(), "", "", web.url(), "", "", web.url()))
	relay.env = systemd.environment(time.Minute)
	relay.start()
	systemd.await("READY=1")
	systemd.await(`STATUS=2 routes: 1 flowing, 1 starting; web cannot be opened: route web: open its spool .*: .*not a directory`)
	if edge.Interest("other.1") != 1 || edge.Interest("test.1") != 0 {
		t.Error("the routes are not as they say")
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	systemd.await(`STATUS=2 routes: 2 flowing`)
	publishAt(t, edge.Client(), 0, 100, 1000)
	within(t, 60*time.Second, func() bool { return web.tally.count() == 100 }, "all arrive")
	relay.stop()
}

// Three routes at 5,000 messages a second together, and a reload every three seconds that changes one of them: nothing is lost or out of
// order on any, nothing comes twice but what was in flight, and no source is ever disconnected.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	edge := natstest.Start(t, "", nil)
	names := []string{"a", "b", "c"}
	webs := map[string]*endpoint{}
	for _, name := range names {
		webs[name] = newEndpoint(t, newTally())
	}
	dir := t.TempDir()
	state := mkdir(t, dir+"/state")
	inFlight := map[string]int{"a": 16, "b": 16, "c": 16}
	// The subjects are the same on all routes: each gets every message.
	config := func() string {
		text := fmt.Sprintf(oneRoute[:strings.Index(oneRoute, "[route.web]")], state, edge.URL())
		for _, name := range names {
			route := fmt.Sprintf(oneRoute[strings.Index(oneRoute, "[route.web]"):], "", fmt.Sprint("in_flight = ", inFlight[name]), webs[name].url())
			route = strings.ReplaceAll(route, "route.web", "route."+name)
			text += strings.Replace(route, `nats = "edge"`, `nats = "edge"`+"\nqueue = \""+name+"\"", 1)
		}
		return text
	}
	relay := newRelay(t, writeConfig(t, dir, "%s", config()))
	relay.start()
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 3 }, "the relay subscribes")

	const rate = 5000 / 3
	n := rate * 3 * (*reloads + 1)
	published := make(chan struct{})
	go func() {
		defer close(published)
		publishAt(t, edge.Client(), 0, n, rate)
	}()
	for i := range *reloads {
		time.Sleep(3 * time.Second)
		name := names[i%3]
		inFlight[name]++
		relay.rewrite(fmt.Sprintf(`"changed":[%q]`, name), "%s", config())
	}
	<-published
	for name, web := range webs {
		within(t, 60*time.Second, func() bool { return web.tally.count() == n }, "all %d arrive on route %s", n, name)
	}
	if c := relay.log.countOf(`"message":"connected"`); c != 3 {
		t.Errorf("the sources connected %d times, want once each", c)
	}
	for _, bad := range []string{`"message":"disconnected`, "dropped", "slow consumer"} {
		if relay.log.countOf(`"message":"`+bad) > 0 {
			t.Errorf("the log has %q", bad)
		}
	}
	relay.stop()
	for name, web := range webs {
		web.tally.check(t, name, n, *reloads*20)
	}
}
