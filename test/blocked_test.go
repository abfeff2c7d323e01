package test

import (
	"flag"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

var blockedFor = flag.Duration("blocked.for", 10*time.Second, "how long the endpoint of TestBlockedEndpoint answers 401")

// A door answers 401 while it is closed, and notes how many probes there are at a time. Those are messages that were turned away before: what was on its way when the door
// closed comes for the first time, however late.
type door struct {
	mu             sync.Mutex
	closed         bool
	turnedAway     map[string]bool
	inside, crowds int
	probes         int
}

func (d *door) answer(payload string) int {
	d.mu.Lock()
	if !d.closed {
		d.mu.Unlock()
		return 0
	}
	if d.turnedAway[payload] {
		d.probes++
		d.inside++
		d.crowds = max(d.crowds, d.inside)
		defer func() {
			d.mu.Lock()
			d.inside--
			d.mu.Unlock()
		}()
	}
	d.turnedAway[payload] = true
	d.mu.Unlock()
	time.Sleep(20 * time.Millisecond) // so that two at a time would meet
	return http.StatusUnauthorized
}

func (d *door) set(closed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = closed
}

// An endpoint answers 401 to 1,000 messages a second, and is mended: all are delivered in order, it saw one probe at a time, and
// the log can still be read.
func TestBlockedEndpoint(t *testing.T) {
	t.Parallel()
	const rate = 1000
	edge := natstest.Start(t, "", nil)
	web := newEndpoint(t, newTally())
	entrance := door{turnedAway: map[string]bool{}}
	web.status = entrance.answer
	dir := t.TempDir()
	relay := newRelay(t, writeConfig(t, dir, strings.Replace(oneRoute, "debug", "info", 1), mkdir(t, dir+"/state"), edge.URL(), "", "", web.url()))
	relay.start()
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 1 }, "the relay subscribes")

	pub := edge.Client()
	publishAt(t, pub, 0, rate, rate)
	within(t, 60*time.Second, func() bool { return web.tally.count() == rate }, "the first second arrives")
	before := relay.log.count()
	entrance.set(true)
	blocked := int(blockedFor.Seconds() * rate)
	publishAt(t, pub, rate, blocked, rate)
	if n := web.tally.count(); n != rate {
		t.Errorf("%d arrived while the door was closed", n-rate)
	}
	entrance.set(false)
	publishAt(t, pub, rate+blocked, rate, rate)
	n := blocked + 2*rate
	within(t, 60*time.Second, func() bool { return web.tally.count() == n }, "all %d arrive", n)
	relay.stop()
	lines := relay.log.count() - before
	t.Logf("%d probes in %v, %d log lines", entrance.probes, *blockedFor, lines)
	if entrance.crowds != 1 || lines >= 20 || !relay.log.contains("sink is blocked") {
		t.Errorf("%d probes at a time, %d log lines; want one, and less than 20 that say that the sink is blocked", entrance.crowds, lines)
	}
	web.tally.check(t, "blocked", n, 0)
}
