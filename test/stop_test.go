package test

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/relay/spool"
)

// The first signal waits for deliveries, the second does not: what is left is on disk then, and arrives after the next start.
func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	const n = 5000
	edge := natstest.Start(t, "", nil)
	web := newEndpoint(t, newTally())
	slow := make(chan struct{})
	web.status = func(string) int {
		<-slow // a receiver that answers at its leisure: one delivery would take it longer than drain_timeout
		return 0
	}
	dir := t.TempDir()
	relay := newRelay(t, writeConfig(t, dir, `drain_timeout = "3m"`+"\n"+oneRoute, mkdir(t, dir+"/state"), edge.URL(), "", "", web.url()))
	relay.start()
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 1 }, "the relay subscribes")
	publishAt(t, edge.Client(), 0, n, 100_000)
	relay.signal(syscall.SIGTERM)
	within(t, 60*time.Second, func() bool { return relay.log.contains("stopping: sources first") }, "the relay begins to stop")
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 0 }, "the source stops first")
	if relay.ended() {
		t.Fatal("the first signal did not wait for the deliveries")
	}
	began := time.Now()
	relay.signal(syscall.SIGTERM)
	relay.wait()
	if took := time.Since(began); took > time.Minute { // much less than drain_timeout
		t.Errorf("the second signal took %v", took)
	}
	report, err := spool.Inspect(filepath.Join(dir, "state", "spool", "web"))
	if err != nil {
		t.Fatal(err)
	}
	if report.Stats.Records+web.tally.count() < n {
		t.Errorf("%d on disk and %d delivered, of %d", report.Stats.Records, web.tally.count(), n)
	}
	close(slow)
	relay.start()
	within(t, 60*time.Second, func() bool { return web.tally.count() == n }, "all arrive after the next start")
	relay.stop()
	web.tally.check(t, "http", n, 2*16)
}
