package test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/natsrelay/natsrelay/internal/natstest"
)

// canaries are secrets that must be seen nowhere, by the field that each is in.
type canaries map[string]string

func newCanaries(t *testing.T) canaries {
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	c := canaries{"nkey_seed": string(seed), "signing_secret": base64.StdEncoding.EncodeToString([]byte("canary-5f1c-signing-secret-0123"))}
	for _, field := range []string{"admin_token", "nats_password", "nats_token", "nats_url", "nats_proxy", "bearer", "basic", "oauth2", "header", "url_query", "url_password", "http_proxy"} {
		c[field] = "canary5f1c" + strings.ReplaceAll(field, "_", "")
	}
	return c
}

// config has a canary in every field that may hold a secret, and something wrong with most of what they are for.
func (c canaries) config(state, addr, edge, locked, web string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "state_dir = %q\ninstance = \"test\"\nlog = { level = \"trace\" }\n[admin]\nlisten = %q\ntoken = \"${env:CANARY_TOKEN}\"\n", state, addr)
	nats := func(name, url, login string) {
		fmt.Fprintf(&b, "[nats.%s]\nurls = [%q]\nreconnect = { min = \"20ms\", max = \"200ms\" }\n%s\n", name, url, login)
	}
	nats("edge", edge, "")
	nats("password", locked, fmt.Sprintf("user = \"u\"\npassword = %q", c["nats_password"]))
	nats("token", locked, fmt.Sprintf("token = %q", c["nats_token"]))
	nats("nkey", locked, fmt.Sprintf("nkey_seed = %q", c["nkey_seed"]))
	nats("proxy", locked, fmt.Sprintf("proxy = \"http://u:%s@127.0.0.1:1\"", c["nats_proxy"]))
	route := func(name, nats, sink string) {
		fmt.Fprintf(&b, "[route.%s]\nsource = { type = \"core\", nats = %q, subjects = [\"test.>\"], queue = \"\" }\ndelivery = { retry = { min = \"50ms\", max = \"200ms\" } }\n[route.%[1]s.sink]\n%[3]s\n", name, nats, sink)
	}
	http := func(url, more string) string { return fmt.Sprintf("type = \"http\"\nurl = %q\n%s", url, more) }
	for _, name := range []string{"password", "token", "nkey", "proxy"} {
		route("from_"+name, name, http(web, ""))
		route("to_"+name, "edge", fmt.Sprintf("type = \"nats\"\nnats = %q\nmode = \"core\"", name))
	}
	route("bearer", "edge", http(web, fmt.Sprintf("bearer_token = %q", c["bearer"])))
	route("basic", "edge", http(web, fmt.Sprintf("basic = { user = \"u\", password = %q }", c["basic"])))
	route("oauth2", "edge", http(web, fmt.Sprintf("oauth2 = { token_url = %q, client_id = \"c\", client_secret = %q, scopes = [\"s\"] }", web+"/token", c["oauth2"])))
	route("header", "edge", http(web, fmt.Sprintf("headers = { \"X-Api-Key\" = %q }", c["header"])))
	route("query", "edge", http(web+"?key="+c["url_query"], ""))
	route("signed", "edge", http(web, fmt.Sprintf("signing_secrets = [\"whsec_%s\"]", c["signing_secret"])))
	route("proxied", "edge", http(web, fmt.Sprintf("proxy = \"http://u:%s@127.0.0.1:1\"", c["http_proxy"])))
	return b.String()
}

// check looks for each canary in the output, as it is and as credentials are written.
func (c canaries) check(t *testing.T, what, output string) {
	t.Helper()
	for field, secret := range c {
		for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte("u:" + secret))} {
			if i := strings.Index(output, form); i >= 0 {
				t.Errorf("%s shows the %s: …%s", what, field, output[max(0, i-200):min(len(output), i+100)])
			}
		}
	}
	if len(output) == 0 {
		t.Errorf("%s is empty: was it made at all?", what)
	}
}

// An echo is an endpoint that refuses everything, and repeats what it was sent in its answer.
type echo struct {
	mu   sync.Mutex
	seen strings.Builder
	n    int
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	text := fmt.Sprintf("%s %v %s", r.URL, r.Header, body)
	e.mu.Lock()
	e.n++
	code := []int{503, 401, 422, 302, 400}[e.n%5]
	e.seen.WriteString(text)
	e.mu.Unlock()
	w.Header().Set("Location", "http://127.0.0.1:1/"+strings.Join(r.Header["Authorization"], "")+strings.Join(r.Header["X-Api-Key"], "")+"?"+r.URL.RawQuery)
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}

func (e *echo) saw(text string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Contains(e.seen.String(), text)
}

// A secret of the configuration appears in no log line, error, metric, answer, event, or output of a command, however much is wrong.
func TestSecretsAppearNowhere(t *testing.T) {
	c := newCanaries(t)
	t.Setenv("CANARY_TOKEN", c["admin_token"])
	edge, locked := natstest.Start(t, "", nil), natstest.Start(t, `authorization { user: x, password: y }`, nil)
	e := new(echo)
	web := httptest.NewServer(e)
	defer web.Close()
	a := newAdminAPI(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "relay.toml")
	text := c.config(mkdir(t, dir+"/state"), a.addr, edge.URL(), locked.URL(), web.URL+"/in")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRelay(t, path)
	c.check(t, "check", r.command("check"))
	r.start()
	a.isUp()
	authorized := "Authorization: Bearer " + c["admin_token"]
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 11 }, "the routes subscribe")
	pub := edge.Client()
	publishAt(t, pub, 0, 20, 200)
	sent := func() bool {
		for _, field := range []string{"bearer", "header", "url_query"} {
			if !e.saw(c[field]) {
				return false
			}
		}
		return e.saw(base64.StdEncoding.EncodeToString([]byte("u:"+c["basic"]))) && e.saw("Webhook-Signature")
	}
	within(t, 60*time.Second, sent, "the secrets are used where they belong")
	within(t, 60*time.Second, func() bool {
		_, text := a.ask("GET", "/metrics", nil, authorized)
		for _, route := range []string{"bearer", "query"} {
			series := fmt.Sprintf("natsrelay_dead_letters_stored{route=%q} ", route)
			if !strings.Contains(text, series) || strings.Contains(text, series+"0") {
				return false
			}
		}
		return true
	}, "there are dead letters, with their errors")

	for _, path := range []string{"/livez", "/readyz", "/metrics", "/api/v1/status", "/api/v1/spool", "/api/v1/dead", "/api/v1/routes/bearer/dead", "/"} {
		_, text := a.ask("GET", path, nil, authorized)
		c.check(t, path, text)
	}
	for _, path := range []string{"/readyz", "/api/v1/status", "/none"} {
		_, text := a.ask("GET", path, nil, "Authorization: Bearer wrong")
		c.check(t, path+" without the token", text)
	}
	c.check(t, "events", a.events(authorized))
	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"pause", "bearer"}, {"resume", "bearer"}, {"spool", "ls"}, {"dead", "ls"}, {"dead", "cat", "bearer"}, {"dead", "cat", "query"}} {
		c.check(t, strings.Join(args, " "), r.command(args...))
	}
	r.stop()
	c.check(t, "the log", r.log.tail(1<<30))
	for _, change := range []struct{ from, to string }{
		{"bearer_token = ", "bearer_token = 7 #"},
		{"password = \"", "password = "},
		{"token = \"${", "token = \"${x"},
		{"urls = [\"nats://", "urls = [\"nats://u:" + c["nats_url"] + "@"},
		{"url = \"http://", "url = \"http://u:" + c["url_password"] + "@"},
		{"type = \"http\"", "type = \"https\""},
		{"client_secret", "client_secrets"},
	} {
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, change.from, change.to)), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := r.try("check")
		if err == nil {
			t.Errorf("%q is taken for a valid configuration", change.to)
		}
		c.check(t, "the error of "+change.to, out)
	}
}

// events returns what the stream sends in the first seconds after it has begun.
func (a *adminAPI) events(header string) string {
	a.t.Helper()
	req, err := http.NewRequest("GET", "http://"+a.addr+"/api/v1/events", nil)
	if err != nil {
		a.t.Fatal(err)
	}
	name, value, _ := strings.Cut(header, ": ")
	req.Header.Set(name, value)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	begin := make([]byte, 1)
	if _, err := io.ReadFull(res.Body, begin); err != nil {
		a.t.Fatal(err)
	}
	time.AfterFunc(5*time.Second, func() { res.Body.Close() })
	text, _ := io.ReadAll(res.Body) // until it is closed
	return string(begin) + string(text)
}
