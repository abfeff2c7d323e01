package test

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/relay"
)

// adminSetup is a relay with one route, "web", from test.> to an endpoint, and its admin server.
type adminSetup struct {
	*adminAPI
	edge  *natstest.Server
	web   *endpoint
	relay *relayProcess
}

// newAdminSetup starts it, with lines for the tables buffer and delivery, and whole tables.
func newAdminSetup(t *testing.T, buffer, delivery, tables string) *adminSetup {
	t.Helper()
	s := &adminSetup{adminAPI: newAdminAPI(t), edge: natstest.Start(t, "", nil), web: newEndpoint(t, newTally())}
	dir := t.TempDir()
	s.relay = newRelay(t, writeConfig(t, dir, oneRoute+s.table()+tables, mkdir(t, dir+"/state"), s.edge.URL(), buffer, delivery, s.web.url()))
	s.relay.start()
	s.isUp()
	s.becomesReady()
	return s
}

func TestAdminEndpoints(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, "", "", "")
	for path, want := range map[string]string{
		"/livez":         "ok\n",
		"/readyz":        "ready\nweb: flowing\n",
		"/metrics":       "natsrelay_received_total{",
		"/":              "GET  /readyz",
		"/api/v1/status": `"instance":"test"`,
	} {
		if code, text := s.ask("GET", path, nil); code != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("GET %s: %d %s", path, code, text)
		}
	}
	if st := s.status(); !st.Ready || st.Routes[0].State != relay.StateFlowing || st.PID != s.relay.cmd.Process.Pid || !st.Connections[0].Connected {
		t.Errorf("status %+v", st)
	}

	pub := s.edge.Client()
	if code, text := s.ask("POST", "/api/v1/routes/web/pause", nil); code != http.StatusOK || !strings.Contains(text, `"state":"paused"`) {
		t.Errorf("pause: %d %s", code, text)
	}
	publishAt(t, pub, 0, 500, 5000)
	within(t, 60*time.Second, func() bool { return s.status().Routes[0].Received == 500 }, "the relay has all")
	if n := s.web.tally.count(); n != 0 {
		t.Errorf("%d messages delivered by a paused route", n)
	}
	within(t, 60*time.Second, func() bool { return s.status().Routes[0].Disk.Messages == 500 }, "a pause lets messages go to disk")
	if code, text := s.ask("POST", "/api/v1/routes/web/resume", nil); code != http.StatusOK || strings.Contains(text, `"state":"paused"`) {
		t.Errorf("resume: %d %s", code, text)
	}
	within(t, 60*time.Second, func() bool { return s.web.tally.count() == 500 }, "all arrive after the pause")
	s.relay.stop()
	s.web.tally.check(t, "web", 500, 0)
}

// What an endpoint does not offer is refused, and changes nothing.
func TestAdminRefusesWhatItDoesNotOffer(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, "", "", "")
	for _, tc := range []struct {
		method, path string
		want         int
	}{
		{"POST", "/livez", 405},
		{"POST", "/readyz", 405},
		{"PUT", "/metrics", 405},
		{"POST", "/api/v1/status", 405},
		{"DELETE", "/api/v1/events", 405},
		{"GET", "/api/v1/routes/web/pause", 405},
		{"PUT", "/api/v1/routes/web/pause", 405},
		{"GET", "/api/v1/routes/web/resume", 405},
		{"POST", "/api/v1/routes/none/pause", 404},
		{"POST", "/api/v1/routes/..%2f..%2fweb/pause", 404},
		{"POST", "/api/v1/routes/web/stop", 404},
		{"GET", "/api/v2/status", 404},
		{"GET", "/debug/pprof/", 404},
		{"TRACE", "/livez", 405},
	} {
		if code, text := s.ask(tc.method, tc.path, nil); code != tc.want {
			t.Errorf("%s %s: %d %s, want %d", tc.method, tc.path, code, text, tc.want)
		}
	}
	if st := s.status(); st.Routes[0].Paused {
		t.Error("the route is paused")
	}
}

func TestAdminEvents(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, "", "", "")
	res, err := http.Get("http://" + s.addr + "/api/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	time.AfterFunc(time.Minute, func() { res.Body.Close() }) // or the test would hang
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	next := func(event string, v any) {
		t.Helper()
		for lines.Scan() {
			if lines.Text() != "event: "+event {
				continue
			}
			lines.Scan()
			data, _ := strings.CutPrefix(lines.Text(), "data: ")
			if err := json.Unmarshal([]byte(data), v); err != nil {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		t.Fatalf("no event %s", event)
	}
	var status admin.Status
	next("status", &status)
	s.ask("POST", "/api/v1/routes/web/pause", nil)
	var change admin.StateChange
	next("state", &change)
	if change.Route != "web" || change.From != relay.StateFlowing || change.To != relay.StatePaused || len(change.Troubles) != 1 {
		t.Errorf("change %+v", change)
	}
	next("status", &status)
	if status.Ready || !status.Routes[0].Paused {
		t.Errorf("status %+v", status)
	}
	s.ask("POST", "/api/v1/routes/web/resume", nil)
	next("state", &change)
	if change.To != relay.StateFlowing {
		t.Errorf("change %+v", change)
	}
	s.relay.stop() // with the stream still open
}

// A reload over HTTP is one by HUP: what is wrong is told, without secrets, and changes nothing; what is right is in effect with the answer.
func TestAdminReload(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, "", "", "")
	good, err := os.ReadFile(s.relay.config)
	if err != nil {
		t.Fatal(err)
	}
	reload := func(text string) (int, string) {
		t.Helper()
		if err := os.WriteFile(s.relay.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.ask("POST", "/api/v1/reload", nil)
	}
	code, text := reload(strings.Replace(string(good), "[nats.edge]", "[nats.edge]\nuser = \"u\"\npassword = hunter2\nusr = 1", 1))
	if code != http.StatusUnprocessableEntity || !strings.Contains(text, "relay.toml:") || strings.Contains(text, "hunter2") {
		t.Errorf("a wrong configuration: %d %s", code, text)
	}
	if st := s.status(); !st.Routes[0].Ready || !st.ReloadFailed || s.metrics()["natsrelay_config_last_reload_successful"] != 0 {
		t.Errorf("afterwards: %+v", st)
	}
	if out := s.relay.command("status", "--addr", s.addr); !strings.Contains(out, "the last reload failed") {
		t.Errorf("afterwards: %s", out)
	}
	if code, _ := s.ask("GET", "/api/v1/reload", nil); code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", code)
	}
	code, text = reload(strings.Replace(string(good), "[route.web.delivery]", "[route.web.delivery]\nin_flight = 3", 1) + "\n[route.more]\nsource = { type = \"core\", nats = \"edge\", subjects = [\"more.>\"] }\nsink = { type = \"http\", url = \"http://127.0.0.1:1\" }\n")
	if st := s.status(); code != http.StatusOK || len(st.Routes) != 2 || st.ReloadFailed || s.metrics()["natsrelay_config_last_reload_successful"] != 1 {
		t.Errorf("a right configuration: %d %s, %d routes", code, text, len(st.Routes))
	}
	s.becomesReady()
	publishAt(t, s.edge.Client(), 0, 100, 1000)
	within(t, 60*time.Second, func() bool { return s.web.tally.count() == 100 }, "the changed route delivers")
	if n := len(s.metrics()); n < 80 {
		t.Errorf("%d series of two routes", n)
	}
}

func TestAdminToken(t *testing.T) {
	t.Parallel()
	const token = "7ZkC0nUq"
	edge := natstest.Start(t, "", nil)
	a := newAdminAPI(t)
	dir := t.TempDir()
	r := newRelay(t, writeConfig(t, dir, oneRoute+"[admin]\nlisten = %q\ntoken = %q\n", mkdir(t, dir+"/state"), edge.URL(), "", "", "http://127.0.0.1:1", strings.Replace(a.addr, "127.0.0.1", "0.0.0.0", 1), token))
	r.start()
	a.isUp()
	for _, wrong := range []string{"", "Bearer", "Bearer ", "Bearer x", "Bearer " + token + "x", "Bearer " + token[:7], "Basic " + token, token} {
		header := []string{"Authorization: " + wrong}
		if wrong == "" {
			header = nil
		}
		for _, path := range []string{"/metrics", "/api/v1/status", "/api/v1/events", "/"} {
			if code, text := a.ask("GET", path, nil, header...); code != http.StatusUnauthorized || strings.Contains(text, "web") {
				t.Errorf("%q: GET %s: %d %s", wrong, path, code, text)
			}
		}
		if code, _ := a.ask("POST", "/api/v1/routes/web/pause", nil, header...); code != http.StatusUnauthorized {
			t.Errorf("%q: pause: %d", wrong, code)
		}
		if _, text := a.ask("GET", "/readyz", nil, header...); strings.Contains(text, "web") {
			t.Errorf("%q: readyz tells a stranger %s", wrong, text)
		}
		if code, _ := a.ask("GET", "/livez", nil, append(header, "Host: relay.example.com")...); code != http.StatusOK {
			t.Errorf("%q: livez by the name of the host: %d", wrong, code)
		}
	}
	right := "Authorization: Bearer " + token
	within(t, 60*time.Second, func() bool {
		code, text := a.ask("GET", "/readyz", nil, right)
		return code == http.StatusOK && strings.Contains(text, "web: flowing")
	}, "readyz tells who knows the token")
	if code, text := a.ask("POST", "/api/v1/routes/web/pause", nil, right); code != http.StatusOK || !strings.Contains(text, "paused") {
		t.Errorf("pause: %d %s", code, text)
	}
	if code, _ := a.ask("GET", "/metrics", nil, right, "Host: relay.example.com"); code != http.StatusOK {
		t.Errorf("metrics by the name of the host, with the token: %d", code)
	}
	// The commands take the token from the configuration.
	if out := r.command("status"); !strings.Contains(out, "paused") {
		t.Errorf("status: %s", out)
	}
}

// Web pages cannot use the relay of who looks at them: neither by a name that leads here, nor by sending a form.
func TestAdminAgainstWebPages(t *testing.T) {
	t.Parallel()
	s := newAdminSetup(t, "", "", "")
	_, port, _ := net.SplitHostPort(s.addr)
	for _, host := range []string{"evil.example:" + port, "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:" + port, "127.0.0.1@evil.example", "x"} {
		for _, path := range []string{"/api/v1/status", "/metrics", "/readyz"} {
			if code, _ := s.ask("GET", path, nil, "Host: "+host); code != http.StatusMisdirectedRequest {
				t.Errorf("GET %s of host %s: %d", path, host, code)
			}
		}
		if code, _ := s.ask("POST", "/api/v1/routes/web/pause", nil, "Host: "+host); code != http.StatusMisdirectedRequest {
			t.Errorf("pause of host %s: %d", host, code)
		}
	}
	for _, header := range []string{"Origin: http://evil.example", "Origin: null", "Origin: http://localhost:1", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"} {
		if code, _ := s.ask("POST", "/api/v1/routes/web/pause", nil, header); code != http.StatusForbidden {
			t.Errorf("pause with %s: %d", header, code)
		}
	}
	if s.status().Routes[0].Paused {
		t.Error("the route is paused")
	}
	for _, header := range []string{"Host: localhost:" + port, "Host: LOCALHOST", "Host: [::1]:" + port, "Host: 127.0.0.1", "Origin: http://" + s.addr, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"} {
		if code, text := s.ask("POST", "/api/v1/routes/web/resume", nil, header); code != http.StatusOK {
			t.Errorf("resume with %s: %d %s", header, code, text)
		}
	}
}

// An admin server that cannot listen is an error at the start, before any route runs.
func TestAdminAddressTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	config := writeConfig(t, dir, oneRoute+"[admin]\nlisten = %q\n", mkdir(t, dir+"/state"), "nats://127.0.0.1:1", "", "", "http://127.0.0.1:1", l.Addr().String())
	out, err := exec.Command(relayBinary(t), "run", "-c", config).CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), "admin server: listen tcp "+l.Addr().String()+": bind: address already in use") || !strings.Contains(string(out), "hint: ") {
		t.Errorf("%v: %s", err, out)
	}
}

// The socket is for the user and the group; a killed relay's is replaced, a living one's is not, and a file is left alone.
func TestAdminUnixSocket(t *testing.T) {
	t.Parallel()
	edge := natstest.Start(t, "", nil)
	dir, err := os.MkdirTemp("", "nr") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "a")
	config := func(state string) string {
		return writeConfig(t, t.TempDir(), oneRoute+"[admin]\nlisten = %q\n", mkdir(t, filepath.Join(dir, state)), edge.URL(), "", "", "http://127.0.0.1:1", "unix:"+socket)
	}
	first := newRelay(t, config("s1"))
	first.start()
	isUp := func() {
		t.Helper()
		within(t, 60*time.Second, func() bool { out, err := first.try("status"); return err == nil && strings.Contains(out, "flowing") }, "the relay answers")
	}
	isUp()
	if info, err := os.Lstat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	second := config("s2")
	out, err := exec.Command(first.binary, "run", "-c", second).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another process listens there") {
		t.Errorf("a second relay on the socket: %v %s", err, out)
	}
	isUp() // it has done the first one no harm
	first.kill()
	first.start()
	isUp()
	first.stop()
	if names, err := os.ReadDir(dir); err != nil || len(names) != 2 { // s1, s2
		t.Errorf("left in the directory: %v, %v", names, err)
	}
	if out, err := first.try("status"); err == nil || !strings.Contains(out, "no relay answers at unix:"+socket) || !strings.Contains(out, "hint: is it running") {
		t.Errorf("status without a relay: %v %s", err, out)
	}
	if err := os.WriteFile(socket, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = exec.Command(first.binary, "run", "-c", first.config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "it exists already, and is not a socket") {
		t.Errorf("a file in place of the socket: %v %s", err, out)
	}
	if text, err := os.ReadFile(socket); err != nil || string(text) != "mine" {
		t.Errorf("the file: %q, %v", text, err)
	}
}
