package config

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/nats-io/nkeys"
)

// nkeySeed reads the seed of a user's nkey.
func nkeySeed(b *binder, v value) (Secret, bool) {
	seed, ok := secret(b, v)
	if !ok {
		return "", false
	}
	if prefix, _, err := nkeys.DecodeSeed([]byte(seed)); err != nil || prefix != nkeys.PrefixByteUser {
		b.problem(v, "is not the seed of a user's nkey, which begins with SU")
		return "", false
	}
	return seed, true
}

// checkLogin: a connection logs in one way. A server would take one of several, and not always the one that was meant.
func checkLogin(b *binder, v value) {
	user, hasUser := v.get("user")
	password, hasPassword := v.get("password")
	switch {
	case hasUser && !hasPassword:
		b.problem(user, "needs password beside it")
	case hasPassword && !hasUser:
		b.problem(password, "needs user beside it")
	}
	first := ""
	for _, way := range []string{"creds", "nkey_seed", "user", "token"} {
		at, ok := v.get(way)
		switch {
		case ok && first == "":
			first = way
		case ok:
			b.problem(at, "there is %s already; a connection logs in one way", first)
		}
	}
}

// checkPEM makes sure that the files of a tls table hold what they should, now rather than at the first connection.
func checkPEM(b *binder, v value, ca, cert, key string) {
	if ca != "" {
		pem, _ := b.env.read(ca)
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			at, _ := v.get("ca")
			b.problem(at, "the file has no certificate in PEM format")
		}
	}
	atCert, hasCert := v.get("cert")
	atKey, hasKey := v.get("key")
	switch {
	case hasCert && !hasKey:
		b.problem(atCert, "needs key beside it")
	case hasKey && !hasCert:
		b.problem(atKey, "needs cert beside it")
	case cert != "" && key != "":
		certPEM, _ := b.env.read(cert)
		keyPEM, _ := b.env.read(key)
		if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
			b.problem(atCert, "cert and key do not make a pair: %v", err)
		}
	}
}
