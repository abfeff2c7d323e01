package test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
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

// The active relay of a standby group loses its place, and lives on: it is cut off from the source alone, or somebody has the server choose anew. What it
// holds, the other one gets, too; each message is delivered by one of them.
func TestExactlyOnceStandbyWhoLivesOn(t *testing.T) {
	t.Parallel()
	for name, happens := range map[string]func(from *nats.Conn, near *tcpproxy.Proxy) error{
		"stall": func(_ *nats.Conn, near *tcpproxy.Proxy) error {
			near.Stall()
			return nil
		},
		"unpin": func(from *nats.Conn, _ *tcpproxy.Proxy) error {
			_, err := from.Request("$JS.API.CONSUMER.UNPIN.SOURCE.natsrelay-link", []byte(`{"group": "g"}`), 10*time.Second)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n = 2500
			source, target := natstest.StartProcess(t, natstest.JetStream(t)), natstest.StartProcess(t, natstest.JetStream(t))
			from, to := source.Client(), target.Client()
			makeStream(t, from, "SOURCE", "")
			makeStream(t, to, "TARGET", `, "allow_batched": true, "duplicate_window": 500000000`)
			publishNumbers(t, from, 1, n)
			reach := func(n int) {
				t.Helper()
				within(t, 120*time.Second, func() bool { last, _ := lastSequence(to, "TARGET"); return last >= n }, "%d messages arrive", n)
			}
			near := tcpproxy.Start(t, source.Addr())
			start := func(instance, url string, rate int) *relayProcess {
				r := newStreamSink(t, url, []string{target.URL()}, fromStream+"\nstandby = \"g\"", fmt.Sprintf("ordering = \"strict\"\nrate_limit = %d", rate), "exactly_once = true")
				rename(t, r.config, instance)
				r.start()
				return r
			}
			slow := start("vm-1", "nats://"+near.Addr(), 50) // it holds far more than it has delivered
			reach(100)
			fast := start("vm-2", source.URL(), 500)
			within(t, 60*time.Second, func() bool { return waiting(t, from) > 0 }, "the other one waits") // the slow one does not: it has what it may hold
			if err := happens(from, near); err != nil {
				t.Fatal(err)
			}
			reach(n)
			near.Cut()
			near.Resume()
			slow.stop()
			fast.stop()
			if !fast.log.contains("is the active one") {
				t.Error("the other one has not taken over")
			}
			checkEachOnce(t, streamContent(t, to, "TARGET"), n)
		})
	}
}

// waiting returns how many requests the consumer of the link has.
func waiting(t *testing.T, nc *nats.Conn) int {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := js.Consumer(ctx, "SOURCE", "natsrelay-link")
	if err != nil {
		t.Fatal(err)
	}
	return c.CachedInfo().NumWaiting
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
