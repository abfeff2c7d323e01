package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"golang.org/x/sys/unix"
)

// A serviceManager is systemd as a service sees it: a socket that takes what sd_notify(3) sends.
type serviceManager struct {
	t    *testing.T
	path string

	mu    sync.Mutex
	heard []string // notifications, without those of the watchdog
	fed   []time.Time
}

func newServiceManager(t *testing.T) *serviceManager {
	// The path of a socket has 108 bytes at most, and t.TempDir's may be longer.
	dir, err := os.MkdirTemp("", "natsrelay")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &serviceManager{t: t, path: filepath.Join(dir, "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go m.listen(conn)
	return m
}

func (m *serviceManager) listen(conn *net.UnixConn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return // closed with the test
		}
		m.mu.Lock()
		if lines := string(buf[:n]); lines == "WATCHDOG=1" {
			m.fed = append(m.fed, time.Now())
		} else {
			m.heard = append(m.heard, lines)
		}
		m.mu.Unlock()
	}
}

// environment is what systemd gives a service of Type=notify.
func (m *serviceManager) environment(watchdog time.Duration) []string {
	return []string{"NOTIFY_SOCKET=" + m.path, fmt.Sprint("WATCHDOG_USEC=", watchdog.Microseconds())}
}

// await waits for a notification of which the pattern is a whole line, beginning with the one that was found last. It returns that one.
func (m *serviceManager) await(pattern string) string {
	m.t.Helper()
	line := regexp.MustCompile(`(?m)^` + pattern + `$`)
	var found string
	within(m.t, 60*time.Second, func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		for i, lines := range m.heard {
			if line.MatchString(lines) {
				found, m.heard = lines, m.heard[i:]
				return true
			}
		}
		return false
	}, "systemd hears %q", pattern)
	return found
}

// forget makes await see only what comes from now on.
func (m *serviceManager) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard = nil
}

// hunger returns for how long the watchdog has not been fed.
func (m *serviceManager) hunger() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.fed[len(m.fed)-1])
}

// longestHunger returns the longest time between two feedings of the watchdog, from the first one until now.
func (m *serviceManager) longestHunger() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	var longest time.Duration
	for i, fed := range m.fed {
		next := time.Now()
		if i+1 < len(m.fed) {
			next = m.fed[i+1]
		}
		longest = max(longest, next.Sub(fed))
	}
	return longest
}

// A relay that is a service of systemd tells it when it is ready, what it does, that it lives, and when it stops.
func TestNotifiesSystemd(t *testing.T) {
	t.Parallel()
	const watchdog = 8 * time.Second
	edge := natstest.Start(t, "", nil)
	web := newEndpoint(t, newTally())
	dir := t.TempDir()
	systemd := newServiceManager(t)
	relay := newRelay(t, writeConfig(t, dir, oneRoute, mkdir(t, dir+"/state"), edge.URL(), `spill_after = "0s"`, "", web.url()))
	relay.env = systemd.environment(watchdog)
	relay.start()
	if ready := systemd.await("READY=1"); ready != "READY=1\nSTATUS=1 route: 1 flowing" {
		t.Errorf("it says %q", ready)
	}
	if edge.Interest("test.1") != 1 {
		t.Error("the relay is ready before it has subscribed")
	}

	web.down()
	publishAt(t, edge.Client(), 0, 1000, 10_000)
	systemd.await(`STATUS=1 route: 1 spilling, [0-9.]+ KiB, oldest [0-9]+ s; web: .*connection refused`)
	web.up()
	systemd.await(`STATUS=1 route: 1 flowing`)

	systemd.forget()
	relay.signal(syscall.SIGHUP)
	checkMonotonic(t, systemd.await("RELOADING=1"))
	systemd.await("READY=1")

	systemd.forget()
	relay.signal(syscall.SIGTERM)
	systemd.await("STOPPING=1")
	if hunger := systemd.longestHunger(); hunger > watchdog {
		t.Errorf("the watchdog, which wants to be fed every %v, was not for %v", watchdog, hunger)
	}
	relay.wait()
	web.tally.check(t, "http", 1000, 16)
}

// checkMonotonic checks the time that Type=notify-reload insists on.
func checkMonotonic(t *testing.T, reloading string) {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(reloading, "MONOTONIC_USEC=")
	text, _, _ := strings.Cut(after, "\n")
	usec, err := strconv.ParseInt(text, 10, 64)
	if ago := now.Nano()/1000 - usec; err != nil || ago < 0 || ago > time.Minute.Microseconds() {
		t.Errorf("%q: %v; its time is %d µs ago", reloading, err, ago)
	}
}

// A relay whose server is away, and one with a route that cannot be opened, are ready all the same, and say why they do nothing.
func TestReadyWithoutServer(t *testing.T) {
	t.Parallel()
	edge := natstest.Start(t, "", nil)
	edge.Stop()
	dir := t.TempDir()
	systemd := newServiceManager(t)
	relay := newRelay(t, writeConfig(t, dir, oneRoute, mkdir(t, dir+"/state"), edge.URL(), "", "", "http://127.0.0.1:9/"))
	relay.env = systemd.environment(time.Minute)
	relay.start()
	systemd.await("READY=1")
	systemd.await(`STATUS=1 route: 1 flowing; web: not connected to edge: .*connection refused`)
	edge.Restart()
	systemd.await(`STATUS=1 route: 1 flowing`)
	relay.stop()
}
