package natsconn

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
)

// canary is in every secret of these tests. No log line and no error may hold it.
const canary = "CANARY"

func checkNoSecret(t *testing.T, what, text string) {
	t.Helper()
	if i := strings.Index(text, canary); i >= 0 {
		t.Errorf("%s shows a secret: …%s", what, text[max(0, i-80):i+len(canary)])
	}
}

// Each kind of credentials is wrong first and mended later, without a restart of the relay.
func TestAuthWrongFirstThenMended(t *testing.T) {
	const wrong, right = canary + "wrong", canary + "right"
	user, _ := nkeys.CreateUser()
	seed, _ := user.Seed()
	public, _ := user.PublicKey()
	other, _ := nkeys.CreateUser()
	otherPublic, _ := other.PublicKey()

	for name, c := range map[string]struct {
		wrong, right string // server configurations
		cfg          func(*config.NATS)
	}{
		"user and password": {
			`authorization { user: u, password: "` + wrong + `" }`, `authorization { user: u, password: "` + right + `" }`,
			func(n *config.NATS) { n.User, n.Password = "u", right },
		},
		"token": {
			`authorization { token: "` + wrong + `" }`, `authorization { token: "` + right + `" }`,
			func(n *config.NATS) { n.Token = right },
		},
		"nkey": {
			`authorization { users: [{nkey: ` + otherPublic + `}] }`, `authorization { users: [{nkey: ` + public + `}] }`,
			func(n *config.NATS) { n.NkeySeed = config.Secret(seed) },
		},
		"password in the URL": {
			`authorization { user: u, password: "` + wrong + `" }`, `authorization { user: u, password: "` + right + `" }`,
			func(n *config.NATS) { n.URLs[0] = strings.Replace(n.URLs[0], "://", "://u:"+right+"@", 1) },
		},
		"token in the URL": {
			`authorization { token: "` + wrong + `" }`, `authorization { token: "` + right + `" }`,
			func(n *config.NATS) { n.URLs[0] = strings.Replace(n.URLs[0], "://", "://"+right+"@", 1) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, c.wrong, nil)
			cfg := natstest.Config(srv.URL())
			c.cfg(cfg)
			log := natstest.NewLog(t)
			conn := open(t, cfg, log)
			natstest.Eventually(t, "refused several times", func() bool { return conn.Stats().Errors[KindAuth] > 3 })
			srv.Reload(c.right)
			waitUp(t, conn)
			if log.Count("cannot connect", "Authorization Violation") == 0 {
				t.Error("the reason was not logged")
			}

			// And while reconnecting, where nats.go by itself would give up after two equal errors.
			srv.Reload(c.wrong) // cuts whom it no longer lets in
			failed := conn.Stats().Errors[KindAuth]
			natstest.Eventually(t, "refused again", func() bool { return conn.Stats().Errors[KindAuth] > failed+3 })
			srv.Reload(c.right)
			waitUp(t, conn)
			natstest.Eventually(t, "reconnect logged", func() bool { return log.Count(`"message":"reconnected"`) == 1 })
			closeConn(t, conn)
			checkNoSecret(t, "the log", log.String())
			checkNoSecret(t, "the log", strings.ReplaceAll(log.String(), string(seed), canary))
		})
	}
}

// The credentials file is read at each connect: it may be there late, wrong, out of date, and renewed, all without a restart.
func TestCredsAreReadAtEachConnect(t *testing.T) {
	op, other := natstest.NewOperator(t), natstest.NewOperator(t)
	srv := natstest.Start(t, op.Config(nil), nil)
	cfg := natstest.Config(srv.URL())
	cfg.Creds = filepath.Join(t.TempDir(), "edge.creds")
	log := natstest.NewLog(t)
	c := open(t, cfg, log)
	refused := func(what string, texts ...string) {
		t.Helper()
		failed := c.Stats().Errors[KindAuth]
		natstest.Eventually(t, what, func() bool { return c.Stats().Errors[KindAuth] > failed+3 })
		if n := log.Count(append(texts, "cannot connect")...); n != 1 {
			t.Errorf("%s: %d lines say so, want 1", what, n)
		}
	}
	refused("without the file", "read creds", "no such file")
	write(t, cfg.Creds, []byte("half a file"))
	refused("with half of it", "read creds", "no nkey seed found")
	write(t, cfg.Creds, other.Creds(nil))
	refused("with somebody else's", "Authorization Violation")
	write(t, cfg.Creds, op.Creds(nil))
	waitUp(t, c)
	closeConn(t, c)
	for line := range strings.Lines(string(op.Creds(nil))) {
		if len(line) > 50 && strings.Contains(log.String(), strings.TrimSpace(line)) {
			t.Error("the log shows the credentials")
		}
	}
}

// The server throws out who has expired; the renewed file is taken up, by the connection that is there.
func TestExpiredJWTRenewedOnDisk(t *testing.T) {
	t.Parallel()
	op := natstest.NewOperator(t)
	srv := natstest.Start(t, op.Config(nil), nil)
	cfg := natstest.Config(srv.URL())
	cfg.Creds = filepath.Join(t.TempDir(), "edge.creds")
	expires := time.Now().Add(15 * time.Second) // a loaded machine must have connected by then
	write(t, cfg.Creds, op.Creds(func(u *jwt.UserClaims) { u.Expires = expires.Unix() }))
	log := natstest.NewLog(t)
	c := open(t, cfg, log)
	first := waitUp(t, c)
	natstest.Eventually(t, "thrown out, and refused", func() bool { return c.Stats().Errors[KindAuth] > 3 })
	if time.Now().Before(expires.Truncate(time.Second)) {
		t.Error("refused before it has expired")
	}
	if log.Count("authentication expired") == 0 {
		t.Error("the log does not say that it has expired")
	}
	write(t, cfg.Creds, op.Creds(nil))
	if again := waitUp(t, c); again.Conn() != first.Conn() {
		t.Error("not the connection that was there: its subscriptions are gone")
	}
}

// write replaces a file at once, as those who renew credentials do.
func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// Certificates are read at each connect, first and later: a wrong authority is mended by replacing
// the file, and both failures are logged although nats.go reports the second to no handler.
func TestTLSFilesAreReadAtEachConnect(t *testing.T) {
	for name, first := range map[string]bool{"plain INFO first": false, "handshake first": true} {
		t.Run(name, func(t *testing.T) {
			ca, wrongCA := natstest.NewCA(t, "right"), natstest.NewCA(t, "wrong")
			serverCert, serverKey := ca.Issue("server")
			clientCert, clientKey := ca.Issue("client")
			srv := natstest.Start(t, fmt.Sprintf(`tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true, handshake_first: %v }`,
				serverCert, serverKey, ca.File(), first), nil)
			cfg := natstest.Config("tls://" + srv.Addr())
			caFile := filepath.Join(t.TempDir(), "ca.pem")
			cfg.TLS = &config.NATSTLS{CA: caFile, Cert: clientCert, Key: clientKey, HandshakeFirst: first}
			log := natstest.NewLog(t)

			install(t, wrongCA.File(), caFile)
			c := open(t, cfg, log)
			natstest.Eventually(t, "refused at first", func() bool { return c.Stats().Errors[KindTLS] > 2 })
			install(t, ca.File(), caFile)
			e := waitUp(t, c)

			install(t, wrongCA.File(), caFile)
			failed := c.Stats().Errors[KindTLS]
			e.Cut()
			natstest.Eventually(t, "refused when reconnecting", func() bool { return c.Stats().Errors[KindTLS] > failed+2 })
			install(t, ca.File(), caFile)
			waitUp(t, c)
			if n := log.Count("cannot connect", "unknown authority"); n != 2 {
				t.Errorf("%d lines name the cause, want 2: one for each outage", n)
			}
		})
	}
}

func install(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, data)
}

// Client certificate, server certificate and the authority of both are replaced while the relay runs, as at the end of their lives.
func TestEveryCertificateIsRotated(t *testing.T) {
	old, next := natstest.NewCA(t, "old"), natstest.NewCA(t, "next")
	conf := func(ca *natstest.CA) string {
		cert, key := ca.Issue("server")
		return fmt.Sprintf(`
			tls { cert_file: %q, key_file: %q, ca_file: %q, verify_and_map: true }
			authorization { users: [ { user: "CN=relay" } ] }
		`, cert, key, ca.File())
	}
	dir := t.TempDir()
	files := &config.NATSTLS{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "relay.pem"), Key: filepath.Join(dir, "relay.key")}
	rotate := func(ca *natstest.CA, name string) {
		cert, key := ca.Issue(name)
		install(t, ca.File(), files.CA)
		install(t, cert, files.Cert)
		install(t, key, files.Key)
	}
	rotate(old, "relay")
	srv := natstest.Start(t, conf(old), nil)
	cfg := natstest.Config("tls://" + srv.Addr())
	cfg.TLS = files
	log := natstest.NewLog(t)
	c := open(t, cfg, log)
	e := waitUp(t, c)

	srv.Reload(conf(next))
	failed := c.Stats().Errors[KindTLS]
	e.Cut()
	natstest.Eventually(t, "the old authority does not know the new server", func() bool { return c.Stats().Errors[KindTLS] > failed+2 })
	rotate(next, "stranger")
	natstest.Eventually(t, "the server knows no such user", func() bool { return log.Count("cannot connect", "authorization violation") > 0 })
	rotate(next, "relay")
	waitUp(t, c)
	if st := c.Stats(); st.Errors[KindAuth] == 0 {
		t.Errorf("%v: no auth error counted", st.Errors)
	}
}

// Whether the name in the certificate is the right one is the user's to say, with server_name.
func TestServerName(t *testing.T) {
	ca := natstest.NewCA(t, "ca")
	cert, key := ca.IssueFor("hub", "hub.example.com")
	srv := natstest.Start(t, fmt.Sprintf(`tls { cert_file: %q, key_file: %q }`, cert, key), nil)
	for name, ok := range map[string]bool{"": false, "other.example.com": false, "hub.example.com": true} {
		t.Run(name, func(t *testing.T) {
			cfg := natstest.Config("tls://" + srv.Addr())
			cfg.TLS = &config.NATSTLS{CA: ca.File(), ServerName: name}
			log := natstest.NewLog(t)
			c := open(t, cfg, log)
			if ok {
				checkEcho(t, waitUp(t, c))
				return
			}
			natstest.Eventually(t, "refused", func() bool { return c.Stats().Errors[KindTLS] > 2 })
			if log.Count("cannot connect", "x509") != 1 {
				t.Error("the log does not say once why")
			}
		})
	}
}

// A server that has no more room is tried until it has.
func TestMaxConnectionsReached(t *testing.T) {
	op := natstest.NewOperator(t)
	for name, c := range map[string]struct{ conf, says string }{
		"of the server":  {"max_connections: 1", "maximum connections exceeded"},
		"of the account": {op.Config(func(a *jwt.AccountClaims) { a.Limits.Conn = 1 }), "maximum account active connections exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, c.conf, nil)
			cfg := natstest.Config(srv.URL())
			cfg.Creds = filepath.Join(t.TempDir(), "edge.creds")
			write(t, cfg.Creds, op.Creds(nil))
			taken := srv.Client(nats.UserCredentials(cfg.Creds))
			log := natstest.NewLog(t)
			conn := open(t, cfg, log)
			natstest.Eventually(t, "refused", func() bool { return conn.Stats().Errors[KindLimit] > 3 })
			if n := log.Count("cannot connect", c.says); n != 1 {
				t.Errorf("%d lines say so, want 1", n)
			}
			taken.Close()
			waitUp(t, conn)
		})
	}
}

// An account that may not listen to _INBOX.> has its requests answered on a prefix of its own.
func TestInboxPrefixOfARestrictedAccount(t *testing.T) {
	srv := natstest.Start(t, `authorization { users: [
		{ user: relay, password: p, permissions: { publish: "ask.>", subscribe: "_INBOX_relay.>" } }
		{ user: service, password: p }
	] }`, nil)
	service := srv.Client(nats.UserInfo("service", "p"))
	if _, err := service.Subscribe("ask.>", func(m *nats.Msg) { _ = m.Respond([]byte("yes")) }); err != nil {
		t.Fatal(err)
	}
	if err := service.Flush(); err != nil {
		t.Fatal(err)
	}
	for prefix, ok := range map[string]bool{"_INBOX": false, "_INBOX_relay": true} {
		t.Run(prefix, func(t *testing.T) {
			cfg := natstest.Config(srv.URL())
			cfg.User, cfg.Password, cfg.InboxPrefix = "relay", "p", prefix
			c := open(t, cfg, natstest.NewLog(t))
			nc := waitUp(t, c).Conn()
			if !ok {
				if _, err := nc.Request("ask.me", nil, 100*time.Millisecond); err == nil {
					t.Error("answered")
				}
				natstest.Eventually(t, "the denial is counted", func() bool { return c.Stats().Errors[KindPermission] > 0 })
				return
			}
			if m, err := nc.Request("ask.me", nil, patience); err != nil || string(m.Data) != "yes" {
				t.Errorf("Request: %v, %v", m, err)
			}
		})
	}
}

func TestOpenRefusesWhatCanNeverWorkAndShowsNoSecret(t *testing.T) {
	for name, cfg := range map[string]*config.NATS{
		"no url":             {},
		"password as a port": {URLs: []string{"nats://user:" + canary + "/x@host:4222"}},
		"blank in host":      {URLs: []string{"nats://" + canary + " x@host"}},
		"control character":  {URLs: []string{"nats://" + canary + "\x7f@host"}},
		"no host":            {URLs: []string{"nats://" + canary + "@"}},
		"wrong scheme":       {URLs: []string{"http://" + canary + "@host"}},
		"mixed schemes":      {URLs: []string{"nats://" + canary + "@a", "ws://" + canary + "@b"}},
		"bad seed":           {URLs: []string{"nats://host"}, NkeySeed: canary},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Open(cfg, Options{Log: nopLog()})
			if err == nil {
				closeConn(t, c)
				t.Fatal("no error")
			}
			checkNoSecret(t, "the error", err.Error())
		})
	}
}

func TestPlainURL(t *testing.T) {
	for in, want := range map[string]string{
		"nats://host:4222":                     "nats://host:4222",
		"nats://user:" + canary + "@host:4222": "nats://host:4222",
		"nats://" + canary + "@host:4222":      "nats://host:4222",
		":" + canary:                           "",
	} {
		if got := plainURL(in); got != want {
			t.Errorf("plainURL(%q) = %q, want %q", in, got, want)
		}
	}
}
