package natstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A CA signs certificates for tests; all its files are in one temporary directory.
type CA struct {
	t    testing.TB
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// NewCA makes a certificate authority of the given name.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	ca := &CA{t: t, dir: t.TempDir()}
	tmpl := template(name)
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign
	ca.key = newKey(t)
	ca.cert = ca.sign(tmpl, tmpl, ca.key, ca.key, ca.File())
	return ca
}

// File returns the path of the authority's own certificate.
func (ca *CA) File() string { return filepath.Join(ca.dir, "ca.pem") }

// Issue returns the paths of a new certificate, good for clients and for servers on loopback, and its key.
func (ca *CA) Issue(name string) (cert, key string) {
	ca.t.Helper()
	tmpl := template(name)
	tmpl.DNSNames, tmpl.IPAddresses = []string{"localhost", name}, []net.IP{net.IPv4(127, 0, 0, 1)}
	return ca.issue(name, tmpl)
}

// IssueFor is Issue for hosts of these names only.
func (ca *CA) IssueFor(name string, hosts ...string) (cert, key string) {
	ca.t.Helper()
	tmpl := template(name)
	tmpl.DNSNames = hosts
	return ca.issue(name, tmpl)
}

func (ca *CA) issue(name string, tmpl *x509.Certificate) (cert, key string) {
	ca.t.Helper()
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	k := newKey(ca.t)
	cert, key = filepath.Join(ca.dir, name+".pem"), filepath.Join(ca.dir, name+".key")
	ca.sign(tmpl, ca.cert, k, ca.key, cert)
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		ca.t.Fatal(err)
	}
	writePEM(ca.t, key, "EC PRIVATE KEY", der)
	return cert, key
}

func (ca *CA) sign(tmpl, parent *x509.Certificate, key, signer *ecdsa.PrivateKey, path string) *x509.Certificate {
	ca.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		ca.t.Fatal(err)
	}
	writePEM(ca.t, path, "CERTIFICATE", der)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return cert
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
