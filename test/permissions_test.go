package test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

const permissionsServer = `
accounts: {
	EDGE: { jetstream: enabled, users: [
		{ user: edge-admin, password: p }
		{ user: edge-relay, password: p, permissions: { publish: [ %[1]s, %[3]s ], subscribe: [ "_INBOX.>", "test.> natsrelay" ] } }
	] }
	CLOUD: { jetstream: enabled, users: [
		{ user: cloud-admin, password: p }
		{ user: cloud-relay, password: p, permissions: { publish: [ "test.>", %[2]s, %[3]s ], subscribe: "_INBOX.>" } }
	] }
}`

const permissionsConfig = `
state_dir = %[1]q
instance = "test"
[nats.edge]
urls = ["nats://%[2]s"]
user = "edge-relay"
password = "p"
[nats.cloud]
urls = ["nats://%[2]s"]
user = "cloud-relay"
password = "p"
[route.link]
source = { type = "jetstream", nats = "edge", stream = "SOURCE" }
sink   = { type = "nats", nats = "cloud", mode = "jetstream", stream = "TARGET", exactly_once = true, create_stream = { subjects = ["test.>"] } }
delivery = { ordering = "strict" }
[route.core]
source = { type = "core", nats = "edge", subjects = ["test.>"] }
sink   = { type = "nats", nats = "cloud", mode = "core" }
`

// The permissions that docs/operating.md lists are enough for a route to work, over a kill too, and check --online agrees.
func TestDocumentedPermissionsAreEnough(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, natstest.JetStream(t)+fmt.Sprintf(permissionsServer,
		documentedPermissions(t, "a JetStream source", "SOURCE"), documentedPermissions(t, "a JetStream sink", "TARGET"),
		documentedPermissions(t, "`natsrelay check --online`", "")), nil)
	from, to := srv.Client(nats.UserInfo("edge-admin", "p")), srv.Client(nats.UserInfo("cloud-admin", "p"))
	makeStream(t, from, "SOURCE", "")
	publishNumbers(t, from, 1, 500)
	dir := t.TempDir()
	relay := newRelay(t, writeConfig(t, dir, permissionsConfig, mkdir(t, dir+"/state"), srv.Addr()))
	if said := relay.command("check", "--online"); strings.Contains(said, "warning") {
		t.Error(said)
	}
	relay.start()
	arrive := func(n int) {
		t.Helper()
		within(t, 60*time.Second, func() bool { last, _ := lastSequence(to, "TARGET"); return last >= n }, "%d messages arrive", n)
	}
	arrive(500)
	relay.kill()
	publishNumbers(t, from, 501, 500)
	relay.start()
	arrive(1000)
	relay.stop()
	if relay.log.contains("not permitted") {
		t.Error("the relay has needed more than what is documented")
	}
}

// documentedPermissions returns what may have to be published to for this, as a list for nats-server.
func documentedPermissions(t *testing.T, what, stream string) string {
	t.Helper()
	rows := tableRows(t, "../docs/operating.md", "for")
	i := slices.IndexFunc(rows, func(row []string) bool { return row[0] == what })
	if i < 0 {
		t.Fatalf("docs/operating.md has nothing for %s", what)
	}
	var list []string
	for _, match := range regexp.MustCompile("`([$][^`]+)`").FindAllStringSubmatch(rows[i][1], -1) {
		tokens := strings.Split(match[1], ".")
		for i, token := range tokens {
			switch token {
			case "S":
				tokens[i] = stream
			case "D":
				tokens[i] = "natsrelay-link"
			}
		}
		list = append(list, strconv.Quote(strings.Join(tokens, ".")))
	}
	if len(list) == 0 {
		t.Fatalf("docs/operating.md lists nothing for %s", what)
	}
	return strings.Join(list, ", ")
}
