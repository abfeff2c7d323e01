package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

const onlineConfig = `
[nats.edge]
urls = [%q]
[nats.cloud]
urls = [%q]
[nats.away]
urls = ["nats://127.0.0.1:%d"]
reconnect = { min = "10ms", max = "50ms" }

[route.good]
source = { type = "core", nats = "edge", subjects = ["orders.>"] }
sink   = { type = "nats", nats = "cloud", mode = "jetstream", stream = "ORDERS" }
[route.new]
source = { type = "core", nats = "edge", subjects = ["new.>"] }
sink   = { type = "nats", nats = "cloud", mode = "jetstream", stream = "NEW", create_stream = { subjects = ["new.>"] } }
[route.web]
source = { type = "core", nats = "edge", subjects = ["orders.>"] }
sink   = { type = "http", url = %q }
[route.off]
enabled = false
source = { type = "core", nats = "away", subjects = ["x"] }
sink   = { type = "http", url = "http://127.0.0.1:9" }
`

const onlineTroubles = `
[route.bad1]
source = { type = "core", nats = "away", subjects = ["x"] }
sink   = { type = "http", url = "http://127.0.0.1:%d" }
dead_letter = { to = "nats", nats = "away", subject = "dead" }
[route.bad2]
source = { type = "jetstream", nats = "cloud", stream = "NONE" }
sink   = { type = "nats", nats = "edge", mode = "jetstream", stream = "ORDERS" }
[route.bad3]
source = { type = "core", nats = "edge", subjects = ["orders.>", "else.*"] }
sink   = { type = "nats", nats = "cloud", mode = "jetstream", stream = "ORDERS" }
`

// checkOnlineOf returns the exit status of natsrelay check --online, and all that it says.
func checkOnlineOf(t *testing.T, config string, args ...any) (status int, said string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "relay.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, args...), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	status = run(t.Context(), []string{"check", "--online", "-c", file}, &out, &stderr)
	return status, out.String() + stderr.String()
}

func expectLines(t *testing.T, said string, lines ...string) {
	t.Helper()
	lines = slices.DeleteFunc(lines, func(want string) bool { return strings.Contains(said, want) })
	if len(lines) > 0 {
		t.Errorf("it does not say %q:\n%s", lines, said)
	}
}

func TestCheckOnline(t *testing.T) {
	edge, cloud := natstest.Start(t, "", nil), natstest.Start(t, natstest.JetStream(t)+"\nmax_payload: 100000", nil)
	js, err := jetstream.New(cloud.Client())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(nil)
	defer web.Close()
	nobody := natstest.FreePort(t)
	args := []any{edge.URL(), cloud.URL(), nobody, web.URL}
	status, said := checkOnlineOf(t, onlineConfig, args...)
	if status != exitDone {
		t.Errorf("exit status %d", status)
	}
	expectLines(t, said, "good: source: nats \"edge\": connected to ", "max_payload 1048576\n", "max_payload 100000\n",
		"good: sink: warning: its server takes payloads of 100000 bytes, the source's 1048576",
		"new: sink: the stream does not exist; it will be created\n",
		"web: sink: "+web.URL+": somebody listens there\n", "relay.toml: ok, 4 routes")
	if strings.Contains(said, "FAILS") || strings.Contains(said, "off: ") {
		t.Errorf("it says\n%s", said)
	}
	if _, err := js.Stream(t.Context(), "NEW"); err == nil {
		t.Error("it created a stream")
	}

	status, said = checkOnlineOf(t, onlineConfig+onlineTroubles, append(args, nobody)...)
	if status != exitFailed {
		t.Errorf("exit status %d", status)
	}
	expectLines(t, said, `bad1: source: FAILS: nats "away": not connected: dial tcp`, "connection refused", fmt.Sprintf("bad1: sink: FAILS: http://127.0.0.1:%d: dial tcp", nobody),
		`bad1: dead letters: FAILS: nats "away": not connected: dial tcp`,
		`bad2: source: FAILS: stream "NONE" does not exist: create it`, `bad2: sink: FAILS: stream "ORDERS": JetStream does not answer; is it enabled`,
		`bad3: sink: FAILS: stream "ORDERS": it takes nothing of "else.*"; its subjects are ["orders.>"]`, "6 problems that would keep routes from working")
}

const httpConfig = `
[nats.edge]
urls = [%[1]q]
[route.good]
source = { type = "core", nats = "edge", subjects = ["good.>"] }
sink   = { type = "http", url = "%[2]s/in/{{token(2)}}", tls = { ca = %[3]q } }
[route.untrusted]
source = { type = "core", nats = "edge", subjects = ["untrusted.>"] }
sink   = { type = "http", url = "${env:NATSRELAY_TEST_URL}/secret" }
[route.tokens]
source = { type = "core", nats = "edge", subjects = ["tokens.>"] }
sink   = { type = "http", url = %[2]q, tls = { ca = %[3]q }, oauth2 = { token_url = "http://127.0.0.1:%[4]d/secret", client_id = "id", client_secret = "c" } }
`

// An endpoint whose certificate the sink would not trust is no good, nor is one whose tokens cannot be had.
func TestCheckOnlineHTTP(t *testing.T) {
	ca := natstest.NewCA(t, "authority")
	pair, err := tls.LoadX509KeyPair(ca.Issue("web"))
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int64
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	web.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.StartTLS()
	defer web.Close()
	t.Setenv("NATSRELAY_TEST_URL", web.URL)
	nobody := natstest.FreePort(t)
	status, said := checkOnlineOf(t, httpConfig, natstest.Start(t, "", nil).URL(), web.URL, ca.File(), nobody)
	if status != exitFailed {
		t.Errorf("exit status %d", status)
	}
	expectLines(t, said, "good: sink: "+web.URL+"/in/{{token(2)}}: somebody listens there, with a certificate that is trusted\n",
		"untrusted: sink: FAILS: ${env:NATSRELAY_TEST_URL}/secret: tls: failed to verify certificate", fmt.Sprintf("tokens: sink: FAILS: oauth2.token_url: dial tcp 127.0.0.1:%d: ", nobody),
		"2 problems that would keep routes from working")
	if n := requests.Load(); n > 0 {
		t.Errorf("it has sent %d requests", n)
	}
}

// Behind the proxy of the environment the endpoint itself may be out of reach, which is no fault.
func TestCheckOnlineBehindAProxy(t *testing.T) {
	file := writeConfig(t, natstest.Start(t, "", nil).URL(), "http://ingest.invalid")
	cmd := exec.Command("natsrelay", "check", "--online", "-c", file) // the environment is read once a process
	cmd.Env = append(os.Environ(), "HTTP_PROXY=http://127.0.0.1:1", "NO_PROXY=", "no_proxy=")
	said, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(said), "orders: sink: http://ingest.invalid: not looked at: it is behind a proxy\n") {
		t.Errorf("%v: %s", err, said)
	}
}

const permissionsConfig = `
[nats.free]
urls = [%[1]q]
user = "free"
password = "p"
[nats.limited]
urls = [%[1]q]
user = "limited"
password = "p"
[nats.mute]
urls = [%[1]q]
user = "mute"
password = "p"
[nats.blind]
urls = [%[1]q]
user = "blind"
password = "p"

[route.good]
source = { type = "core", nats = "limited", subjects = ["in.>"], queue = "q" }
sink   = { type = "nats", nats = "free", mode = "core" }
[route.core]
source = { type = "core", nats = "limited", subjects = ["in.*", "secret.*", "other.*"] }
sink   = { type = "nats", nats = "limited", mode = "core" }
transform = { subject = "out.{{wildcard(1)}}" }
dead_letter = { to = "nats", nats = "limited", subject = "dead.letters" }
[route.stream]
source = { type = "jetstream", nats = "limited", stream = "ORDERS" }
sink   = { type = "nats", nats = "free", mode = "core" }
[route.blind]
source = { type = "jetstream", nats = "blind", stream = "ORDERS" }
sink   = { type = "nats", nats = "free", mode = "core" }
[route.bind]
source = { type = "jetstream", nats = "free", stream = "ORDERS", durable = "there", consumer = "bind" }
sink   = { type = "nats", nats = "limited", mode = "jetstream", stream = "ORDERS" }
[route.once]
source = { type = "jetstream", nats = "free", stream = "ORDERS" }
delivery = { ordering = "strict" }
sink   = { type = "nats", nats = "limited", mode = "jetstream", stream = "ORDERS", exactly_once = true }
[route.create]
source = { type = "core", nats = "free", subjects = ["orders.eu.*"] }
sink   = { type = "nats", nats = "limited", mode = "jetstream", stream = "NEW", create_stream = { subjects = ["orders.eu.*"] } }
[route.change]
source = { type = "jetstream", nats = "free", stream = "ORDERS", durable = "there" }
sink   = { type = "nats", nats = "mute", mode = "core" }
[route.new]
source = { type = "jetstream", nats = "free", stream = "ORDERS", subjects = ["orders.>"] }
sink   = { type = "nats", nats = "limited", mode = "jetstream", stream = "ORDERS" }
`

const permittedUsers = `
authorization: { users: [
	{ user: free, password: p }
	{ user: mute, password: p, permissions: { publish: "orders.>" } }
	{ user: blind, password: p, permissions: { publish: "$SYS.REQ.USER.INFO" } }
	{ user: limited, password: p, permissions: {
		publish:   { allow: ["$SYS.REQ.USER.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.CONSUMER.INFO.>", "orders.eu.>"] }
		subscribe: { allow: ["_INBOX.>", "in.> q", "secret.*"], deny: "secret.x" }
	} }
] }`

// TestCheckOnlinePermissions: what the user may not do is found without trying it. Nothing is published, subscribed to, created or changed.
func TestCheckOnlinePermissions(t *testing.T) {
	srv := natstest.Start(t, natstest.JetStream(t)+permittedUsers, nil)
	free := srv.Client(nats.UserInfo("free", "p"))
	js, err := jetstream.New(free)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "there", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute, MaxDeliver: 3}); err != nil {
		t.Fatal(err)
	}
	everything, err := free.SubscribeSync("*.>") // but what has a single token, and all that is $SYS, $JS and _INBOX
	if err != nil {
		t.Fatal(err)
	}

	status, said := checkOnlineOf(t, permissionsConfig, srv.URL())
	if status != exitFailed {
		t.Errorf("exit status %d", status)
	}
	expectLines(t, said,
		`core: source: FAILS: not permitted to subscribe to "in.*" in queue group "natsrelay"`+"\n", `core: source: warning: a part of "secret.*" is denied: ["secret.x"]`,
		`core: source: FAILS: not permitted to subscribe to "other.*" in queue group "natsrelay"`+"\n",
		`core: sink: FAILS: not permitted to publish to "out.*"`+"\n", `core: dead letters: FAILS: not permitted to publish to "dead.letters"`,
		`stream: source: consumer "natsrelay-stream" does not exist; it will be created`,
		`stream: source: FAILS: not permitted to publish to "$JS.API.CONSUMER.MSG.NEXT.ORDERS.natsrelay-stream"`,
		`stream: source: FAILS: not permitted to publish to "$JS.API.CONSUMER.CREATE.ORDERS.natsrelay-stream"`,
		`stream: source: FAILS: not permitted to publish to "$JS.ACK.ORDERS.natsrelay-stream.>"`,
		`blind: source: FAILS: not permitted to publish to "$JS.API.STREAM.INFO.ORDERS"`,
		`blind: source: FAILS: not permitted to publish to "$JS.API.CONSUMER.MSG.NEXT.ORDERS.natsrelay-blind"`,
		`blind: source: FAILS: not permitted to publish to "$JS.ACK.ORDERS.natsrelay-blind.>"`,
		`bind: source: FAILS: consumer there cannot be used: its max_deliver is 3`,
		`change: source: consumer "there" will be changed: ack_wait 1m0s to 30s, max_ack_pending 1000 to 4096, max_deliver 3 to -1`,
		`change: sink: warning: permissions are not checked, for the server does not tell them: ask $SYS.REQ.USER.INFO: not permitted to publish`,
		`once: sink: FAILS: not permitted to publish to "$JS.API.CONSUMER.CREATE.ORDERS.>"`,
		`create: sink: the stream does not exist; it will be created`, `create: sink: FAILS: not permitted to publish to "$JS.API.STREAM.CREATE.NEW"`,
		`new: source: consumer "natsrelay-new" does not exist; it will be created`,
		`new: sink: warning: permitted to publish to a part of "orders.>" only`)
	if strings.Contains(said, "good: source: FAILS") || strings.Contains(said, "good: source: warning") {
		t.Error(said)
	}

	for _, name := range []string{"natsrelay-stream", "natsrelay-new"} {
		if _, err := stream.Consumer(t.Context(), name); !errors.Is(err, jetstream.ErrConsumerNotFound) {
			t.Errorf("consumer %s: %v", name, err)
		}
	}
	if info, err := stream.Info(t.Context()); err != nil || info.State.LastSeq != 0 {
		t.Errorf("the stream has %+v: %v", info.State, err)
	}
	for {
		m, err := everything.NextMsg(100 * time.Millisecond)
		if err != nil {
			break
		}
		if first, _, _ := strings.Cut(m.Subject, "."); !strings.HasPrefix(first, "$") && first != "_INBOX" {
			t.Errorf("it has published to %s", m.Subject)
		}
	}
}
