package test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

var wedge = flag.Bool("wedge", false, "run TestWatchdogOfAWedgedRelay, which takes three minutes: so long a call may take before its route counts as stalled")

// The real program, wedged by the kernel: what looks like a segment of its dead letters is a pipe that nobody writes to, so that open(2) does not return,
// as on a disk that hangs. Its watchdog starves, until the call returns. Beside it, a relay whose endpoint is away for as long is fed all the time.
func TestWatchdogOfAWedgedRelay(t *testing.T) {
	if !*wedge {
		t.Skip("takes three minutes: -wedge runs it")
	}
	t.Parallel()
	const watchdog = 8 * time.Second
	web := newEndpoint(t, newTally())
	web.refuse = func(string) bool { return true }
	wedged, systemd, publish := newWatchedRelay(t, web.url(), watchdog)
	_, outageSystemd, publishIntoOutage := newWatchedRelay(t, "http://127.0.0.1:9/", watchdog)

	dead := mkdir(t, filepath.Join(filepath.Dir(wedged.config), "state", "dead", "web"))
	pipe := filepath.Join(dead, "00000000000000000001.seg")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	publish()
	publishIntoOutage()
	within(t, 4*time.Minute, func() bool { return wedged.log.contains("the watchdog is not fed while a route is stalled") }, "the route counts as stalled")
	systemd.await(`STATUS=.*web has stalled: it has been storing dead letters for 2m.*`)
	if hunger := systemd.hunger(); hunger > watchdog {
		t.Errorf("not fed for %v before the route counted as stalled", hunger)
	}
	within(t, time.Minute, func() bool { return systemd.hunger() > 2*watchdog }, "the watchdog starves")
	if wedged.ended() {
		t.Error("the relay has ended by itself")
	}
	if hunger := outageSystemd.longestHunger(); hunger > watchdog {
		t.Errorf("in an outage, the watchdog was not fed for %v", hunger)
	}

	writer, err := os.OpenFile(pipe, os.O_WRONLY, 0) // the call returns
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if err := os.Remove(pipe); err != nil {
		t.Fatal(err)
	}
	within(t, time.Minute, func() bool { return systemd.hunger() < watchdog/2 }, "the watchdog is fed again")
	within(t, time.Minute, func() bool { return wedged.log.contains("messages became dead letters") }, "the dead letter is stored")
	wedged.stop()
}

// newWatchedRelay returns a relay that is up, with a watchdog, and what publishes a message to it.
func newWatchedRelay(t *testing.T, url string, watchdog time.Duration) (relay *relayProcess, systemd *serviceManager, publish func()) {
	t.Helper()
	edge := natstest.Start(t, "", nil)
	dir := t.TempDir()
	systemd = newServiceManager(t)
	relay = newRelay(t, writeConfig(t, dir, oneRoute, mkdir(t, dir+"/state"), edge.URL(), "", "", url))
	relay.env = systemd.environment(watchdog)
	relay.start()
	systemd.await("READY=1")
	return relay, systemd, func() { t.Helper(); publishAt(t, edge.Client(), 0, 1, 1000) }
}
