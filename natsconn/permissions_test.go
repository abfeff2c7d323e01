package natsconn

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

// permissionCases are users, and what they may do. Each may ask for its permissions, too.
var permissionCases = []struct {
	permissions string // of the user, for nats-server
	publish     map[string]Grant
	subscribe   map[string]Grant // subject, or subject and queue group
}{
	{
		permissions: `publish: { allow: ["$SYS.REQ.USER.INFO", "orders.>", "one"], deny: ["orders.secret.>", "orders.x"] }, subscribe: { allow: ["_INBOX.>", "orders.>"] }`,
		publish: map[string]Grant{
			"one": GrantAll, "two": GrantNone, "orders.a": GrantAll, "orders.a.>": GrantAll, "orders.x": GrantNone, "orders.secret.*": GrantNone,
			"orders.>": GrantPart, "orders.*": GrantPart, ">": GrantPart, "*": GrantPart, "other.>": GrantNone,
		},
		subscribe: map[string]Grant{"orders.a": GrantAll, "orders.>": GrantAll, "orders.> q": GrantAll, ">": GrantNone, "orders": GrantNone, "*.a": GrantNone},
	},
	{
		permissions: `publish: { deny: "no.>" }, subscribe: { deny: ["no.>", "half.secret", "all g.*"] }`,
		publish:     map[string]Grant{"a.>": GrantAll, "no.a": GrantNone, "no.>": GrantNone, ">": GrantPart},
		subscribe: map[string]Grant{
			"a.>": GrantAll, "no.a": GrantNone, "half.>": GrantPart, "half.> q": GrantPart, "half.secret": GrantNone,
			"all": GrantAll, "all q": GrantAll, "all g.1": GrantNone,
		},
	},
	{
		permissions: `publish: "$SYS.REQ.USER.INFO", subscribe: { allow: ["_INBOX.>", "jobs.* workers", "jobs.* v1.>", "both", "both g"] }`,
		publish:     map[string]Grant{"a": GrantNone},
		subscribe: map[string]Grant{
			"jobs.a workers": GrantAll, "jobs.* workers": GrantAll, "jobs.a others": GrantNone, "jobs.a v1.x": GrantAll, "jobs.a": GrantNone,
			"both": GrantAll, "both g": GrantAll, "both h": GrantNone,
		},
	},
	{
		permissions: `subscribe: ["_INBOX.>", "requests"], allow_responses: true, publish: "$SYS.REQ.USER.INFO"`,
		publish:     map[string]Grant{"a": GrantNone},
		subscribe:   map[string]Grant{"requests": GrantAll},
	},
}

// TestPermissions: what is concluded from what the server tells is what the server then does.
func TestPermissions(t *testing.T) {
	var users []string
	for i, c := range permissionCases {
		users = append(users, fmt.Sprintf("{ user: u%d, password: p, permissions: { %s } }", i, c.permissions))
	}
	srv := natstest.Start(t, "authorization: { users: [\n"+strings.Join(users, "\n")+"\n] }", nil)
	for i, c := range permissionCases {
		cfg := natstest.Config(srv.URL())
		cfg.User, cfg.Password = fmt.Sprintf("u%d", i), "p"
		conn := open(t, cfg, natstest.NewLog(t))
		nc, _, err := conn.Attach(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p, err := conn.Permissions(t.Context(), nc)
		if err != nil || p == nil {
			t.Fatalf("user %d: permissions %v: %v", i, p, err)
		}
		for subject, want := range c.publish {
			if got := p.MayPublish(subject); got != want {
				t.Errorf("user %d: MayPublish(%q) = %v, want %v", i, subject, got, want)
			}
			if !strings.ContainsAny(subject, "*>") && denied(t, srv, cfg.User, subject, "", true) != (want == GrantNone) {
				t.Errorf("user %d: publish to %q: the server does not say %v", i, subject, want)
			}
		}
		for both, want := range c.subscribe {
			subject, queue, _ := strings.Cut(both, " ")
			if got := p.MaySubscribe(subject, queue); got != want {
				t.Errorf("user %d: MaySubscribe(%q, %q) = %v, want %v", i, subject, queue, got, want)
			}
			if denied(t, srv, cfg.User, subject, queue, false) != (want == GrantNone) {
				t.Errorf("user %d: subscribe to %q in %q: the server does not say %v", i, subject, queue, want)
			}
		}
	}
}

// denied tries it, on a connection of its own.
func denied(t *testing.T, srv *natstest.Server, user, subject, queue string, publish bool) bool {
	t.Helper()
	nc := srv.Client(nats.UserInfo(user, "p"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	defer nc.Close()
	var err error
	if publish {
		err = nc.Publish(subject, nil)
	} else {
		_, err = nc.QueueSubscribeSync(subject, queue)
	}
	if err := errors.Join(err, nc.Flush()); err != nil {
		t.Fatal(err)
	}
	return errors.Is(nc.LastError(), nats.ErrPermissionViolation)
}

func TestPermissionsOfAUserWithout(t *testing.T) {
	srv := natstest.Start(t, `authorization: { users: [ { user: free, password: p }, { user: mute, password: p, permissions: { publish: "a" } } ] }`, nil)
	for user, want := range map[string]string{"free": "", "mute": `ask $SYS.REQ.USER.INFO: not permitted to publish to "$SYS.REQ.USER.INFO"`} {
		cfg := natstest.Config(srv.URL())
		cfg.User, cfg.Password = user, "p"
		conn := open(t, cfg, natstest.NewLog(t))
		nc, _, err := conn.Attach(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p, err := conn.Permissions(t.Context(), nc)
		if got := fmt.Sprint(err); (want != "" || err != nil) && got != want {
			t.Errorf("%s: %v", user, err)
		}
		if err == nil && (p.MayPublish(">") != GrantAll || p.MaySubscribe(">", "q") != GrantAll) {
			t.Errorf("%s: it may not do everything: %+v", user, p)
		}
	}
}
