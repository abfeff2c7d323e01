package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
)

// A killer kills the relay at random instants, and keeps account of what was stored when.
//
// Each round publishes a burst and waits until it is stored, then publishes on, and kills the relay in the middle. What was stored, by
// the relay's own account of its disk after the kill, must arrive in the end. What was still on its way into the relay
// may be missing, but only of that second part.
type killer struct {
	t     *testing.T
	edge  *natstest.Server
	pub   *nats.Conn
	relay *relayProcess
	spool string
	web   *endpoint

	published int
	last      uint64       // highest record ever stored, as of the last kill
	owed      map[int]bool // stored, or delivered: must arrive
}

func newKiller(t *testing.T, buffer string) *killer {
	k := &killer{t: t, edge: natstest.Start(t, "", nil), web: newEndpoint(t, newTally()), owed: map[int]bool{}}
	dir := t.TempDir()
	k.spool = filepath.Join(dir, "state", "spool", "web")
	k.pub = k.edge.Client()
	k.relay = newRelay(t, writeConfig(t, dir, oneRoute, mkdir(t, dir+"/state"), k.edge.URL(), buffer, "", k.web.url()))
	return k
}

// round runs the relay, gives it messages, and kills it a while after the first of them are stored.
func (k *killer) round(settle time.Duration) {
	k.t.Helper()
	k.relay.start()
	within(k.t, 60*time.Second, func() bool { return k.edge.Interest("test.1") == 1 }, "the relay subscribes")
	first := 100 + rand.IntN(400)
	publishAt(k.t, k.pub, k.published, first, 20_000)
	within(k.t, 60*time.Second, func() bool { return k.newest() == k.last+uint64(first) }, "%d messages are stored behind record %d", first, k.last)
	for n := k.published + 1; n <= k.published+first; n++ {
		k.owed[n] = true
	}
	k.published += first

	second := 1 + rand.IntN(400)
	done := make(chan struct{})
	go func() {
		defer close(done)
		publishAt(k.t, k.pub, k.published, second, 20_000)
	}()
	time.Sleep(time.Duration(rand.Int64N(int64(settle))))
	k.relay.kill()
	<-done
	k.published += second
	within(k.t, 60*time.Second, func() bool { return k.edge.Interest("test.1") == 0 }, "the server notices the kill")
	k.account()
}

// newest returns the highest record in a segment. It is 0 if there is none, or if a file was just going away: the relay may be at work on them.
func (k *killer) newest() uint64 {
	report, err := spool.Inspect(k.spool)
	if err != nil {
		return 0
	}
	return report.Stats.Last
}

// account notes what is on disk after the kill. The segment that was being written is still there, also if all of it was settled, until the
// next start.
func (k *killer) account() {
	k.t.Helper()
	k.last = max(k.last, k.newest())
	err := spool.Walk(context.Background(), k.spool, 0, func(rec spool.Record) error {
		m, err := relay.DecodeRecord(rec)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(m.Data))
		k.owed[n] = true
		return err
	})
	if err != nil {
		k.t.Fatal(err)
	}
}

// finish lets everything arrive and checks it.
func (k *killer) finish(duplicates int) {
	k.t.Helper()
	k.relay.start()
	within(k.t, 60*time.Second, func() bool { return k.missing() == 0 }, "all that was stored arrives")
	k.relay.stop()
	k.web.tally.mu.Lock()
	arrived := len(k.web.tally.seen)
	k.web.tally.mu.Unlock()
	k.t.Logf("%d published, %d stored, %d arrived", k.published, len(k.owed), arrived)
	k.web.tally.check(k.t, "after the kills", 0, duplicates)
}

func (k *killer) missing() int {
	k.web.tally.mu.Lock()
	defer k.web.tally.mu.Unlock()
	n := 0
	for owed := range k.owed {
		if !k.web.tally.seen[owed] {
			n++
		}
	}
	return n
}

const kills = 30

// kill -9 at any instant of an outage, 30 times over: whatever was stored is delivered, in order, and nothing twice,
// since nothing was in flight.
func TestKillNineInAnOutage(t *testing.T) {
	t.Parallel()
	k := newKiller(t, `persist = "outage"`+"\n"+`spill_after = "0s"`)
	k.web.down()
	for range kills {
		k.round(40 * time.Millisecond)
	}
	k.web.up()
	k.finish(0)
}

// kill -9 at any instant of normal flow, with every message on disk before it is sent: whatever was stored is delivered, in
// order, and no more of it twice than was in flight at each kill.
func TestKillNineInNormalFlow(t *testing.T) {
	t.Parallel()
	k := newKiller(t, `persist = "always"`)
	var slow atomic.Bool
	slow.Store(true)
	k.web.status = func(string) int {
		if slow.Load() {
			time.Sleep(5 * time.Millisecond) // so that the kill finds something in flight
		}
		return 0
	}
	for range kills {
		k.round(150 * time.Millisecond)
	}
	slow.Store(false)
	const inFlight = 16
	k.finish(kills * inFlight)
}

// A second relay on the same state directory ends with status 1 and names the first one's pid.
func TestSecondRelayIsRefused(t *testing.T) {
	t.Parallel()
	edge := natstest.Start(t, "", nil)
	dir := t.TempDir()
	config := writeConfig(t, dir, oneRoute, mkdir(t, dir+"/state"), edge.URL(), "", "", "http://127.0.0.1:9/")
	first, second := newRelay(t, config), newRelay(t, config)
	first.start()
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 1 }, "the first relay subscribes")
	second.start()
	err := second.cmd.Wait()
	pid := fmt.Sprint("process ", first.cmd.Process.Pid)
	if second.cmd.ProcessState.ExitCode() != 1 || !second.log.contains(pid) {
		t.Errorf("second relay: %v, it says\n%s\nwant exit status 1 and %q", err, second.log.tail(5), pid)
	}
	second.cmd = nil
	out, err := exec.Command(first.binary, "spool", "ls", "-c", config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), pid) {
		t.Errorf("natsrelay spool ls beside a running relay: %v, it says\n%s\nwant a failure and %q", err, out, pid)
	}
	first.stop()
}
