package test

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

var (
	onceMessages = flag.Int("once.messages", 20_000, "messages of TestExactlyOnceThroughKills")
	onceKills    = flag.Int("once.kills", 5, "how often it kills something")
)

// Random kills of relay, source, target and link, at random moments of a transfer, with outages longer than the target remembers ids: the
// target stream holds each message exactly once, in order.
func TestExactlyOnceThroughKills(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ target, buffer, sink string }{
		"fast ingest": {`, "allow_batched": true`, `persist = "outage"`, ""},
		"chained":     {"", `persist = "always"`, `batch_publish = "off"`},
		"no disk":     {`, "allow_batched": true`, `disk = 0`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n, kills := *onceMessages, *onceKills
			l := newLink(t, n, `, "duplicate_window": 500000000`+c.target, c.buffer, "exactly_once = true\n"+c.sink)
			l.relay.start()
			count := map[string]int{}
			for k := range kills {
				// The next kill comes when about this much has arrived, wherever that is in a batch.
				l.awaitStored((k+1)*n/(kills+2)+rand.IntN(n/(kills+2)/2), 60*time.Second)
				count[l.killSomething(time.Duration(rand.Int64N(int64(1500*time.Millisecond))))]++
			}
			l.awaitStored(n, 120*time.Second)
			l.awaitAcked()
			l.relay.stop()
			t.Logf("%d messages, kills: %v", n, count)
			l.checkEachOnce(n)
		})
	}
}

// killSomething kills one of the four, and brings it back after a while.
func (l *link) killSomething(away time.Duration) string {
	switch rand.IntN(5) {
	case 0:
		l.relay.kill()
		time.Sleep(away)
		l.relay.start()
		return "relay"
	case 1:
		l.source.Kill()
		time.Sleep(away)
		l.source.Start()
		return "source"
	case 2:
		l.target.Kill()
		time.Sleep(away)
		l.target.Start()
		return "target"
	case 3:
		l.near.Cut()
		l.far.Cut()
		return "cut"
	}
	l.far.Stall() // what is written is neither delivered nor lost, until the cut
	time.Sleep(away)
	l.far.Cut()
	l.far.Resume()
	return "stall"
}
