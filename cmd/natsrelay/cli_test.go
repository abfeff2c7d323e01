package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/relay/spool"
)

func TestListen(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var stdout bytes.Buffer
	stderr, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		defer w.Close()
		status <- run(ctx, []string{"listen", "127.0.0.1:0"}, &stdout, w)
	}()
	said := make([]byte, 100)
	n, err := stderr.Read(said)
	if err != nil {
		t.Fatal(err)
	}
	url := regexp.MustCompile(`http://[^,]+`).FindString(string(said[:n]))
	resp, err := http.Post(url+"/status/503", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	stop()
	if got := <-status; got != exitDone {
		t.Errorf("exit status %d", got)
	}
	want := regexp.MustCompile(`^\S+ 503 POST /status/503  -  id=-  5 B  hello\n1 request, 5 bytes: 1 × 503\n$`)
	if !want.MatchString(stdout.String()) {
		t.Errorf("it printed %q", stdout.String())
	}
}

func TestListenAddressTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var stderr bytes.Buffer
	if got := run(t.Context(), []string{"listen", ln.Addr().String()}, io.Discard, &stderr); got != exitFailed {
		t.Errorf("exit status %d", got)
	}
	if got := stderr.String(); !strings.Contains(got, "address already in use") || !strings.Contains(got, "hint: give another address") {
		t.Errorf("it said %q", got)
	}
}

// TestRun relays a message with the program's own wiring, and stops it with a signal. On the way it reports what is on
// disk of a route that is not configured any more.
func TestRun(t *testing.T) {
	nc := natstest.Start(t, "", nil).Client()
	arrived := make(chan string, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		select {
		case arrived <- r.Header.Get("Nats-Subject") + " " + string(body):
		default: // one is enough
		}
	}))
	defer receiver.Close()
	file := writeConfig(t, nc.ConnectedUrl(), receiver.URL)
	writeSpool(t, spoolDir(filepath.Join(filepath.Dir(file), "state"), "gone"))

	var stderr bytes.Buffer
	status := make(chan int, 1)
	go func() { status <- run(t.Context(), []string{"run", "-c", file}, io.Discard, &stderr) }()
	got := publishUntil(t, nc, arrived)
	if got != "orders.1 hello" {
		t.Errorf("got %q", got)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := <-status; got != exitDone {
		t.Errorf("exit status %d", got)
	}
	for _, want := range []string{`"message":"stopped"`, `"route":"gone","messages":1,`} {
		if log := stderr.String(); !strings.Contains(log, want) {
			t.Errorf("no %s in the log:\n%s", want, log)
		}
	}
}

// publishUntil publishes until something has arrived: core NATS keeps nothing for a relay that has not subscribed yet.
func publishUntil(t *testing.T, nc *nats.Conn, arrived <-chan string) string {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case got := <-arrived:
			return got
		case <-tick.C:
			if err := nc.Publish("orders.1", []byte("hello")); err != nil {
				t.Fatal(err)
			}
		case <-deadline:
			t.Fatal("nothing has arrived")
		}
	}
}

// TestRunStateDirTaken is the second relay on one state directory.
func TestRunStateDirTaken(t *testing.T) {
	file := writeConfig(t, "nats://127.0.0.1:4222", "http://127.0.0.1:8080")
	lock, err := spool.LockDir(filepath.Join(filepath.Dir(file), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	var stderr bytes.Buffer
	if got := run(t.Context(), []string{"run", "-c", file}, io.Discard, &stderr); got != exitFailed {
		t.Errorf("exit status %d", got)
	}
	if got := stderr.String(); !strings.Contains(got, "is in use by process "+strconv.Itoa(os.Getpid())+"\n") {
		t.Errorf("it said %q", got)
	}
}

func TestDescribeBuild(t *testing.T) {
	info := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: settings}
	}
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123"}
	for want, info := range map[string]*debug.BuildInfo{
		"(devel)":                     info(""),
		"v1.2.3":                      info("v1.2.3"),
		"v1.2.3 0123456789ab":         info("v1.2.3", revision),
		"v1.2.3 0123456789ab+changes": info("v1.2.3", revision, debug.BuildSetting{Key: "vcs.modified", Value: "true"}),
	} {
		if got := describeBuild(info); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// writeConfig writes a configuration with one route and returns its path; the state directory is beside it.
func writeConfig(t *testing.T, natsURL, httpURL string) string {
	t.Helper()
	dir := t.TempDir()
	text := `state_dir = "` + filepath.Join(dir, "state") + `"
admin = { listen = "" }
[nats.edge]
urls = ["` + natsURL + `"]
[route.orders]
source = { type = "core", nats = "edge", subjects = ["orders.>"] }
sink = { type = "http", url = "` + httpURL + `" }
`
	file := filepath.Join(dir, "relay.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// writeSpool makes a spool with one record.
func writeSpool(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(dir, spool.Options{MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Append([]spool.Record{{Seq: 1, Time: time.Now().UnixNano(), Data: []byte("hello")}})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
}
