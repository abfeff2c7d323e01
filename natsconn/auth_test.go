package natsconn

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
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

// The credentials file is read at each connect: it may be there late, and be renewed.
func TestCredsAreReadAtEachConnect(t *testing.T) {
	op, _ := nkeys.CreateOperator()
	opPub, _ := op.PublicKey()
	acc, _ := nkeys.CreateAccount()
	accPub, _ := acc.PublicKey()
	user, _ := nkeys.CreateUser()
	userPub, _ := user.PublicKey()
	seed, _ := user.Seed()
	opJWT := encode(t, jwt.NewOperatorClaims(opPub), op)
	accJWT := encode(t, jwt.NewAccountClaims(accPub), op)
	claims := jwt.NewUserClaims(userPub)
	claims.IssuerAccount = ""
	creds, err := jwt.FormatUserConfig(encode(t, claims, acc), seed)
	if err != nil {
		t.Fatal(err)
	}
	srv := natstest.Start(t, fmt.Sprintf("operator: %s\nresolver: MEMORY\nresolver_preload: { %s: %s }", opJWT, accPub, accJWT), nil)
	cfg := natstest.Config(srv.URL())
	cfg.Creds = filepath.Join(t.TempDir(), "edge.creds")
	log := natstest.NewLog(t)
	c := open(t, cfg, log)
	natstest.Eventually(t, "fails without the file", func() bool { return log.Count("cannot connect", "edge.creds") > 0 })
	if err := os.WriteFile(cfg.Creds, creds, 0o600); err != nil {
		t.Fatal(err)
	}
	waitUp(t, c)
	closeConn(t, c)
	checkNoSecret(t, "the log", strings.ReplaceAll(log.String(), string(seed), canary))
}

func encode(t *testing.T, claims jwt.Claims, key nkeys.KeyPair) string {
	t.Helper()
	s, err := claims.Encode(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
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
	if err := os.WriteFile(to+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
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
