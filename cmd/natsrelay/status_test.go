package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/natsrelay/natsrelay/relay/spool"
)

// withAddress lets the relay of the configuration listen at the address.
func withAddress(t *testing.T, file, addr string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`admin = { listen = "" }`), []byte(`admin = { listen = "`+addr+`" }`), 1)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A syncBuffer may be written and read at the same time.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestStatus asks a relay in this process, in every way there is.
func TestStatus(t *testing.T) {
	nc := natstest.Start(t, "", nil).Client()
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer receiver.Close()
	file := writeConfig(t, nc.ConnectedUrl(), receiver.URL)
	addr := "127.0.0.1:" + strconv.Itoa(natstest.FreePort(t))
	withAddress(t, file, addr)
	ended := make(chan int, 1)
	var log syncBuffer
	go func() { ended <- run(t.Context(), []string{"run", "-c", file}, io.Discard, &log) }()
	client, err := admin.NewClient(addr, "")
	if err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the relay is ready", func() bool {
		st, err := client.Status(t.Context())
		return err == nil && st.Ready
	})

	out, _ := command(t, exitDone, "status", "-c", file)
	if !strings.Contains(out, ": ready, natsrelay ") || !strings.Contains(out, "\norders  flowing  0 ") {
		t.Errorf("status: %s", out)
	}
	out, _ = command(t, exitDone, "status", "--json", "--addr", addr)
	var st admin.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil || st.PID != os.Getpid() || len(st.Routes) != 1 {
		t.Errorf("status --json: %v %s", err, out)
	}
	if out, _ = command(t, exitDone, "pause", "orders", "-c", file); out != "orders is paused, 0 in memory\n" {
		t.Errorf("pause: %s", out)
	}
	if out, _ = command(t, exitDone, "resume", "orders", "--addr", "http://"+addr); out != "orders is flowing, 0 in memory\n" {
		t.Errorf("resume: %s", out)
	}
	if _, said := command(t, exitFailed, "pause", "none", "-c", file); !strings.Contains(said, `error: no route "none" runs here`) || !strings.Contains(said, "hint: natsrelay status, ") {
		t.Errorf("pause none: %s", said)
	}

	watching, stop := context.WithCancel(t.Context())
	var seen syncBuffer
	watched := make(chan int, 1)
	go func() { watched <- run(watching, []string{"status", "--watch", "-c", file}, &seen, io.Discard) }()
	natstest.Eventually(t, "it is shown twice, with rates", func() bool {
		return strings.Count(seen.String(), "ROUTE") >= 2 && strings.Contains(seen.String(), "IN/s  OUT/s") && strings.Count(seen.String(), "  0     0\n") >= 1
	})
	stop()
	<-watched

	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; got != exitDone {
		t.Errorf("exit status %d\n%s", got, log.String())
	}
	if _, said := command(t, exitFailed, "status", "-c", file); !strings.Contains(said, "no relay answers at "+addr) || !strings.Contains(said, "hint: is it running") {
		t.Errorf("status after the end: %s", said)
	}
}

// What is wrong with the address, or with who answers there, is said in words.
func TestStatusErrors(t *testing.T) {
	file := writeConfig(t, "nats://127.0.0.1:4222", "http://127.0.0.1:8080")
	if _, said := command(t, exitFailed, "status", "-c", file); !strings.Contains(said, "its admin server is off") {
		t.Errorf("off: %s", said)
	}
	for _, addr := range []string{"localhost", "ftp://localhost:1", "http://u:p@localhost:1", "http://"} {
		if _, said := command(t, exitUsage, "status", "--addr", addr); !strings.Contains(said, "is not the address of a relay") {
			t.Errorf("%s: %s", addr, said)
		}
	}
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>hello</html>") }))
	defer stranger.Close()
	if _, said := command(t, exitFailed, "status", "--addr", stranger.URL); !strings.Contains(said, "no relay answers at "+stranger.URL) {
		t.Errorf("a stranger: %s", said)
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "this host name is not one of the relay's", http.StatusMisdirectedRequest)
	}))
	defer elsewhere.Close()
	if _, said := command(t, exitFailed, "status", "--addr", elsewhere.URL); !strings.Contains(said, "refuses: this host name is not one of the relay's") || strings.Contains(said, "is it running") {
		t.Errorf("by a name that the relay does not know: %s", said)
	}
	locked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer right" {
			http.Error(w, "a token is needed", http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"instance": "there"}`)
	}))
	defer locked.Close()
	if _, said := command(t, exitFailed, "status", "--addr", locked.URL); !strings.Contains(said, "refuses: a token is needed") || !strings.Contains(said, "hint: --token TOKEN") {
		t.Errorf("without the token: %s", said)
	}
	if out, _ := command(t, exitDone, "status", "--addr", locked.URL, "--token", "right"); !strings.Contains(out, "there: not ready") {
		t.Errorf("with the token: %s", out)
	}
}

// The relay that answers must be the one that holds the state directory.
func TestSpoolAsksTheRightRelay(t *testing.T) {
	file, state := deadFixture(t, 1)
	lock, err := spool.LockDir(state)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, said := command(t, exitFailed, "dead", "ls", "-c", file); !strings.Contains(said, state+" is in use by process ") || !strings.Contains(said, "its admin server is off") {
		t.Errorf("without an address: %s", said)
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"pid": 1}`) }))
	defer other.Close()
	withAddress(t, file, other.Listener.Addr().(*net.TCPAddr).String())
	if _, said := command(t, exitFailed, "dead", "ls", "-c", file); !strings.Contains(said, "and the relay at ") {
		t.Errorf("another relay: %s", said)
	}
	if _, said := command(t, exitFailed, "dead", "ls", "--state-dir", state); !strings.Contains(said, "--addr ADDRESS asks it") {
		t.Errorf("with --state-dir: %s", said)
	}
}

func TestWaiting(t *testing.T) {
	pending := func(n uint64) *uint64 { return &n }
	for want, r := range map[string]admin.RouteStatus{
		"0 in memory":                      {SourcePending: pending(0)},
		"2 in memory, 1 on disk (1.0 KiB)": {Memory: admin.Depth{Messages: 2}, Disk: admin.Depth{Messages: 1, Bytes: 1024}},
		"2 in memory, 7 in the stream":     {Memory: admin.Depth{Messages: 2}, SourcePending: pending(7)},
	} {
		if got := waiting(&r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Nobody must take a route for well whose source is away, because its sink works.
func TestShownState(t *testing.T) {
	for want, r := range map[string]admin.RouteStatus{
		"flowing":             {State: relay.StateFlowing, Ready: true},
		"flowing, not ready":  {State: relay.StateFlowing},
		"draining, not ready": {State: relay.StateDraining},
		"blocked":             {State: relay.StateBlocked},
	} {
		if got := shown(&r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAge(t *testing.T) {
	for seconds, want := range map[float64]string{0: "-", 0.0123: "12ms", 840.4: "14m0s"} {
		if got := age(seconds); got != want {
			t.Errorf("%v s: %q, want %q", seconds, got, want)
		}
	}
}
