package test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
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

// Two relays stand by for each other, on two machines. Whichever is active is killed, over and over, when the source has not heard for a while what it has
// delivered: the other one finds that in the target, which has long forgotten the ids.
func TestExactlyOnceStandby(t *testing.T) {
	t.Parallel()
	const n, kills = 8000, 3
	source, target := natstest.StartProcess(t, natstest.JetStream(t)), natstest.StartProcess(t, natstest.JetStream(t))
	from, to := source.Client(), target.Client()
	makeStream(t, from, "SOURCE", "")
	makeStream(t, to, "TARGET", `, "allow_batched": true, "duplicate_window": 500000000`)
	publishNumbers(t, from, 1, n)
	var relays [2]*relayProcess
	var near [2]*tcpproxy.Proxy
	for i := range relays {
		near[i] = tcpproxy.Start(t, source.Addr())
		relays[i] = newStreamSink(t, "nats://"+near[i].Addr(), []string{target.URL()}, fromStream+"\nack_wait = \"5s\"\nstandby = \"g\"",
			"ordering = \"strict\"\nrate_limit = 1000", "exactly_once = true")
		rename(t, relays[i].config, fmt.Sprintf("vm-%d", i))
		relays[i].start()
	}
	reach := func(n int) {
		t.Helper()
		within(t, 120*time.Second, func() bool { last, _ := lastSequence(to, "TARGET"); return last >= n }, "%d messages arrive", n)
	}
	reach(n / (kills + 1) / 2)
	active := 0
	if relays[1].log.contains("is the active one") {
		active = 1
	}
	for k := range kills {
		near[active].Stall()
		reach((k + 1) * n / (kills + 1))
		relays[active].kill()
		near[active].Cut() // what was acknowledged meanwhile is lost
		near[active].Resume()
		within(t, 60*time.Second, func() bool { last, _ := lastSequence(to, "TARGET"); return last > (k+1)*n/(kills+1)+n/(kills+1)/2 }, "the other one delivers")
		relays[active].start()
		active = 1 - active
	}
	reach(n)
	for _, r := range relays {
		r.stop()
	}
	checkEachOnce(t, streamContent(t, to, "TARGET"), n)
}

// rename gives the relay of a configuration another instance.
func rename(t *testing.T, config, instance string) {
	t.Helper()
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`instance = "test"`), fmt.Appendf(nil, "instance = %q", instance), 1)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
