package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"math/big"
	"path"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A machine is an environment out of maps.
type machine struct {
	vars, files map[string]string
}

func (m machine) env() Env {
	return Env{
		LookupEnv: func(name string) (string, bool) {
			v, ok := m.vars[name]
			return v, ok
		},
		ReadFile: func(name string) ([]byte, error) {
			data, ok := m.files[path.Clean(name)]
			if !ok {
				return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
			}
			return []byte(data), nil
		},
		Hostname: "vm-17",
	}
}

// testMachine has what the files of these tests refer to.
func testMachine() machine {
	cert, key := testPair()
	_, other := testPair2()
	return machine{
		vars: map[string]string{
			"EMPTY":                 "",
			"HOST":                  "127.0.0.1:4222",
			"LEVEL":                 "hunter2",
			"HUNTER":                "hunter2",
			"BAD_SUBJECT":           "hunter2..x",
			"EDGE_PASSWORD":         "hunter2",
			"INGEST_TOKEN":          "hunter2",
			"CREDENTIALS_DIRECTORY": "/run/credentials",
		},
		files: map[string]string{
			"good.creds":                "-----BEGIN NATS USER JWT-----",
			"junk.pem":                  "no certificate",
			"cert.pem":                  cert,
			"cert.key":                  key,
			"other.key":                 other,
			"token.txt":                 "hunter2\n\n",
			"crlf.txt":                  "hunter2\r\n",
			"/run/credentials/password": "hunter2\n",
		},
	}
}

var (
	testPair  = sync.OnceValues(newPair)
	testPair2 = sync.OnceValues(newPair)
)

// newPair returns a certificate signed with its own key, and the key.
func newPair() (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	certDER, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		panic(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certDER})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

// mustParse parses src on the test machine, with more variables in pairs.
func mustParse(t *testing.T, src string, vars ...string) *Config {
	t.Helper()
	m := testMachine()
	for pair := range slices.Chunk(vars, 2) {
		m.vars[pair[0]] = pair[1]
	}
	c, err := Parse("relay.toml", []byte(src), m.env())
	if err != nil {
		t.Fatalf("Parse: %v\n%s", err, src)
	}
	return c
}

// diff compares with secrets revealed; without this cmp would compare what String returns.
func diff(want, got any) string {
	return cmp.Diff(want, got, cmp.Comparer(func(a, b Secret) bool { return a.Reveal() == b.Reveal() }))
}
