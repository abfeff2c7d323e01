package test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

// traffic publishes now and then, for as long as the test wants.
func (s *adminSetup) traffic() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	pub := s.edge.Client()
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				_ = pub.Publish("test.1", []byte("1")) // while the server is away it cannot
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// Each trouble is made for real: /readyz is 503 with the reason while it lasts, and 200 afterwards.
func TestReadiness(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, `spill_after = "1h"`, "", "")
	var code atomic.Int64
	s.web.status = func(string) int { return int(code.Load()) }
	defer s.traffic()()
	for _, tc := range []struct {
		reason     string
		make, mend func()
	}{
		{"web: retrying: sink: POST http://" + s.web.addr + ": status 503", func() { code.Store(503) }, func() { code.Store(0) }},
		{"connection refused", s.web.down, s.web.up},
		{"web: blocked: somebody has to mend it: ", func() { code.Store(http.StatusUnauthorized) }, func() { code.Store(0) }},
		{"web: paused: somebody has to resume it", func() { s.relay.command("pause", "web") }, func() { s.relay.command("resume", "web") }},
		{"web: source: nothing arrives: not connected to edge: ", s.edge.Stop, s.edge.Restart},
	} {
		tc.make()
		s.becomesUnready(tc.reason)
		if out := s.relay.command("status"); !strings.Contains(out, "not ready") || !strings.Contains(out, "web is not ready: ") {
			t.Errorf("%s: status says %s", tc.reason, out)
		}
		if ready := s.metrics()[`natsrelay_route_ready{route="web"}`]; ready != 0 {
			t.Errorf("%s: natsrelay_route_ready is %v", tc.reason, ready)
		}
		tc.mend()
		s.becomesReady()
	}
	if out := s.relay.command("status"); !strings.Contains(out, ": ready, natsrelay") || strings.Contains(out, "not ready") {
		t.Errorf("in the end status says %s", out)
	}
}

func TestReadinessWhileSpilling(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, `spill_after = "0s"`, "", "")
	defer s.traffic()()
	s.web.down()
	s.becomesUnready("web: spilling: messages go to disk: ")
	s.web.up()
	s.becomesReady()
}

// A relay that starts while its server is away is not ready, and says why from the start.
func TestReadinessBeforeTheServer(t *testing.T) {
	t.Parallel()
	edge := natstest.Start(t, "", nil)
	edge.Stop()
	a := newAdminAPI(t)
	dir := t.TempDir()
	r := newRelay(t, writeConfig(t, dir, oneRoute+a.table(), mkdir(t, dir+"/state"), edge.URL(), "", "", "http://127.0.0.1:1"))
	r.start()
	a.isUp()
	a.becomesUnready("web: source: nothing arrives: not connected to edge: ")
	edge.Restart()
	a.becomesReady()
}

// A buffer that gives messages up is not ready until there is room again.
func TestReadinessWhenFull(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, "disk = 0\nmemory = \"1MiB\"", "", "")
	s.web.down()
	stop := s.traffic()
	defer func() { stop() }()
	pub := s.edge.Client()
	big := make([]byte, 100<<10)
	within(t, 60*time.Second, func() bool {
		_ = pub.Publish("test.2", big)
		code, text := s.ask("GET", "/readyz", nil)
		return code == http.StatusServiceUnavailable && strings.Contains(text, "web: full: messages are being given up")
	}, "full")
	s.web.up()
	s.becomesReady()
	if s.metrics()[`natsrelay_dropped_total{reason="buffer_full",route="web"}`] == 0 {
		t.Error("nothing is counted as dropped")
	}
}

// A subscription that the server denies blocks the route until somebody permits it.
func TestReadinessWhenDenied(t *testing.T) {
	t.Parallel()
	permitting := func(subjects string) string {
		return fmt.Sprintf(`authorization { users: [{user: u, password: p, permissions: {subscribe: [%s], publish: [">"]}}] }`, subjects)
	}
	edge := natstest.Start(t, permitting(`"_INBOX.>"`), nil)
	a := newAdminAPI(t)
	dir := t.TempDir()
	config := strings.Replace(oneRoute, "reconnect =", "user = \"u\"\npassword = \"p\"\nreconnect =", 1)
	r := newRelay(t, writeConfig(t, dir, config+a.table(), mkdir(t, dir+"/state"), edge.URL(), "", "", "http://127.0.0.1:1"))
	r.start()
	a.isUp()
	a.becomesUnready("web: blocked: somebody has to mend the source\nweb: source: nothing arrives: edge denies 1 of 1 subscriptions")
	edge.Reload(permitting(`"_INBOX.>", "test.>"`))
	a.becomesReady()
}
