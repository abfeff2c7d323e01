package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// says runs a command that must succeed, and expects the texts in what it prints.
func (s *adminSetup) says(want []string, args ...string) {
	s.t.Helper()
	out := s.relay.command(args...)
	for _, w := range want {
		if !strings.Contains(out, w) {
			s.t.Errorf("natsrelay %q: no %q in %s", args, w, out)
		}
	}
}

// refuses runs a command that must fail, and expects the text in what it prints.
func (s *adminSetup) refuses(want string, args ...string) {
	s.t.Helper()
	if out, err := s.relay.try(args...); err == nil || !strings.Contains(out, want) {
		s.t.Errorf("natsrelay %q: error %v, no %q in %s", args, err, want, out)
	}
}

// The spool commands work through the running relay as they do on the files of a stopped one; what is replayed survives kill -9.
func TestSpoolThroughTheRunningRelay(t *testing.T) {
	t.Parallel()
	const n = 300
	s := newAdminSetup(t, "", "", "")
	s.ask("POST", "/api/v1/routes/web/pause", nil)
	publishAt(t, s.edge.Client(), 0, n, 5000)
	within(t, 60*time.Second, func() bool { return s.status().Routes[0].Disk.Messages == n }, "all are on disk")
	export := filepath.Join(t.TempDir(), "web.jsonl")

	s.says([]string{"web    300 ", " none"}, "spool", "ls")
	s.says([]string{`"subject":"test.1"`}, "spool", "cat", "web", "--subject", "test.1", "--limit", "1")
	s.says([]string{"300 messages exported"}, "spool", "export", "web", export)
	s.says([]string{"300 messages in 1 segment, damage: none"}, "spool", "verify", "web")
	s.refuses("only a stopped one's spool can be repaired", "spool", "repair", "web")
	s.refuses("this would delete 300 messages for good", "spool", "drop", "web")
	s.refuses(`route "none" has nothing on disk`, "spool", "export", "none", export+"2")
	text, err := os.ReadFile(export)
	if lines := strings.Count(string(text), "\n"); err != nil || lines != n {
		t.Fatalf("%d lines exported, %v", lines, err)
	}

	s.says([]string{" messages deleted"}, "spool", "drop", "web", "--yes")
	dropped := s.metrics()[`natsrelay_dropped_total{reason="purged",route="web"}`]
	if dropped < n-16 || dropped > n { // each lane has its next message already
		t.Errorf("%v counted as purged", dropped)
	}
	s.says([]string{"300 messages replayed"}, "spool", "replay", "web", export)
	s.relay.kill()
	s.relay.start() // and the pause is over
	within(t, 60*time.Second, func() bool { return s.web.tally.count() == n }, "what was replayed is delivered after kill -9")
	s.relay.stop()
	// What lanes had already was not dropped: it comes twice, and first.
	s.web.tally.disorder = nil
	s.web.tally.check(t, "web", n, n-int(dropped))
}

// A route that does not run keeps what it has: it can be looked into and dropped through the relay that does, and nothing is added.
func TestSpoolOfARouteThatDoesNotRun(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, "", "", "")
	s.relay.stop()
	state := filepath.Join(filepath.Dir(s.relay.config), "state")
	line := `{"id":"1","subject":"test.a","time":"2026-11-01T12:00:00Z","data":{"n":1}}` + "\n"
	export := filepath.Join(t.TempDir(), "old.jsonl")
	if err := os.WriteFile(export, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	other := &relayProcess{t: t, binary: s.relay.binary}
	other.config = writeConfig(t, t.TempDir(), strings.ReplaceAll(oneRoute, "[route.web", "[route.old"), state, "nats://127.0.0.1:1", "", "", "http://127.0.0.1:1")
	other.command("spool", "replay", "old", export)
	s.relay.start()
	s.becomesReady()
	s.says([]string{"old (does not run)  1 "}, "spool", "ls")
	s.says([]string{`"id":"1"`}, "spool", "cat", "old")
	s.refuses(`no route "old" runs here`, "spool", "replay", "old", export)
	s.says([]string{"1 message deleted"}, "spool", "drop", "old", "--yes")
	if out := s.relay.command("spool", "ls"); strings.Contains(out, "old") {
		t.Errorf("after the drop: %s", out)
	}
	// Another configuration finds the relay that has its state directory only if that has an address.
	if out, err := other.try("spool", "ls"); err == nil || !strings.Contains(out, state+" is in use by process ") || !strings.Contains(out, "hint: ") {
		t.Errorf("without an address: %v %s", err, out)
	}
	if out, err := other.try("spool", "ls", "--addr", s.addr); err != nil || !strings.Contains(out, "ROUTE") {
		t.Errorf("with --addr: %v %s", err, out)
	}
}

// Dead letters are listed, exported, put back and dropped through the running relay.
func TestDeadLettersThroughTheRunningRelay(t *testing.T) {
	t.Parallel()
	const n = 200
	s := newAdminSetup(t, "", "", "")
	var mended atomic.Bool
	s.web.refuse = func(payload string) bool {
		i, _ := strconv.Atoi(payload)
		return i%2 == 1 && !mended.Load()
	}
	publishAt(t, s.edge.Client(), 0, n, 2000)
	stored := func() float64 { return s.metrics()[`natsrelay_dead_letters_stored{route="web"}`] }
	within(t, 60*time.Second, func() bool { return s.web.tally.count() == n/2 && stored() == n/2 }, "half of them become dead letters")
	s.says([]string{"web    100 "}, "dead", "ls")
	s.says([]string{`"Natsrelay-Reason":["refused"]`}, "dead", "cat", "web", "--limit", "1")
	s.says([]string{"100 messages exported"}, "dead", "export", "web", filepath.Join(t.TempDir(), "dead.jsonl"))
	s.refuses("this would delete 100 messages for good", "dead", "drop", "web")

	mended.Store(true)
	s.says([]string{"5 messages replayed"}, "dead", "replay", "web", "--limit", "5")
	s.says([]string{"95 messages replayed"}, "dead", "replay", "web")
	within(t, 60*time.Second, func() bool { return s.web.tally.count() == n }, "they arrive")
	if left := stored(); left != 0 {
		t.Errorf("%v are still dead", left)
	}
	mended.Store(false)
	publishAt(t, s.edge.Client(), n, 10, 1000)
	within(t, 60*time.Second, func() bool { return stored() == 5 }, "more dead letters")
	s.says([]string{"5 messages deleted"}, "dead", "drop", "web", "--yes")
	publishAt(t, s.edge.Client(), n+10, 10, 1000)
	within(t, 60*time.Second, func() bool { return stored() == 5 }, "and more after the drop")
	s.relay.stop()
	if missing := s.web.tally.missing(1, n); len(missing) > 0 || s.web.tally.duplicates > 0 {
		t.Errorf("missing %v, %d duplicates", missing, s.web.tally.duplicates)
	}
}

// Bad input to the endpoints of what is on disk is refused, and what came before it stays.
func TestStorageEndpointsRefuseBadInput(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, "", "", "")
	s.ask("POST", "/api/v1/routes/web/pause", nil)
	good := `{"id":"1","subject":"test.a","time":"2026-11-01T12:00:00Z","data":1}` + "\n"
	for _, tc := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/api/v1/routes/none/spool", "", 404},
		{"GET", "/api/v1/routes/none/spool/verify", "", 404},
		{"GET", "/api/v1/routes/..%2f..%2fetc/spool", "", 404},
		{"GET", "/api/v1/routes/web/spool?limit=-1", "", 400},
		{"GET", "/api/v1/routes/web/spool?since=yesterday", "", 400},
		{"GET", "/api/v1/routes/web/spool/drop", "", 405},
		{"POST", "/api/v1/routes/web/spool/drop", "", 400},
		{"POST", "/api/v1/routes/web/spool/drop", `{"yes": false}`, 400},
		{"POST", "/api/v1/routes/none/spool/drop", `{"yes": true}`, 404},
		{"POST", "/api/v1/routes/..%2f..%2fetc/spool/drop", `{"yes": true}`, 404},
		{"POST", "/api/v1/routes/none/spool/replay", good, 409},
		{"POST", "/api/v1/routes/web/spool/replay", good + "nonsense\n" + good, 400},
		{"POST", "/api/v1/routes/web/spool/replay", good + `{"id":"2"}`, 400},
		{"POST", "/api/v1/routes/web/dead/replay", "", 404},
		{"POST", "/api/v1/routes/web/spool/repair", "", 404},
	} {
		code, text := s.ask(tc.method, tc.path, strings.NewReader(tc.body))
		if code != tc.want {
			t.Errorf("%s %s %q: %d %s, want %d", tc.method, tc.path, tc.body, code, text, tc.want)
		}
	}
	// A line without an end is not gathered without bounds.
	endless := strings.NewReader(good + `{"id":"` + strings.Repeat("x", 1<<20) + `"`)
	if code, _ := s.ask("POST", "/api/v1/routes/web/spool/replay", endless); code != http.StatusBadRequest {
		t.Errorf("a line that is cut off: %d", code)
	}
	if waiting := s.status().Routes[0].Memory.Messages; waiting != 3 {
		t.Errorf("%d messages wait, want the 3 that came before what was wrong", waiting)
	}
	s.says([]string{fmt.Sprintf("web    %d ", 3)}, "spool", "ls")
}

// The files are read while the route writes, reads and unlinks them all the time: nothing looks damaged, and no request fails.
func TestSpoolIsReadWhileItIsInUse(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, "persist = \"always\"\ndisk = \"16MiB\"\nwhen_full = \"drop_oldest\"", "", "")
	pub := s.edge.Client()
	done, ended := make(chan struct{}), make(chan struct{})
	var published atomic.Int64
	go func() {
		defer close(ended)
		payload := make([]byte, 4<<10)
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := pub.Publish("test.1", payload); err != nil {
				t.Error(err)
			}
			if published.Add(1)%200 == 0 {
				time.Sleep(20 * time.Millisecond) // 10,000 a second at most: five segments or more are written and unlinked in each
			}
		}
	}()
	looks := 0
	for began := time.Now(); time.Since(began) < 4*time.Second || looks < 5 || published.Load() < 2000; looks++ {
		for _, path := range []string{"/api/v1/spool", "/api/v1/routes/web/spool/verify", "/api/v1/routes/web/spool?limit=100"} {
			code, text := s.ask("GET", path, nil)
			damaged := strings.Contains(path, "verify") && !strings.Contains(text, `"damage":[]`) || path == "/api/v1/spool" && !strings.Contains(text, `"damage":"none"`)
			if code != http.StatusOK || damaged || strings.Contains(text, `"error"`) {
				t.Fatalf("%s: %d %.500s", path, code, text)
			}
		}
	}
	close(done)
	<-ended
	t.Logf("%d looks while %d messages went through the disk", looks, published.Load())
	if n := s.metrics()[`natsrelay_corrupt_records_total{route="web"}`]; n != 0 {
		t.Errorf("%v messages are corrupt", n)
	}
}
