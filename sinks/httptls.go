package sinks

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/natsrelay/natsrelay/config"
)

// renewInterval is how often the files of a tls table are compared with what is in use.
const renewInterval = time.Second

// A renewing is a transport whose certificates are renewed on disk. When its files have changed it starts anew, with new connections, so that
// an old certificate goes out of use although its connections would last: a server looks at it at the handshake only.
// As long as the files make no sense, because one of them is still to be written, it stays with what it has.
type renewing struct {
	files    *config.HTTPTLS
	build    func(*tls.Config) *http.Transport
	interval time.Duration

	mu      sync.Mutex
	inUse   [3][]byte // content of CA, Cert, Key
	current *http.Transport
	checked time.Time
}

// RoundTrip implements http.RoundTripper.
func (r *renewing) RoundTrip(req *http.Request) (*http.Response, error) {
	return r.transport().RoundTrip(req)
}

// CloseIdleConnections is for http.Client.
func (r *renewing) CloseIdleConnections() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current.CloseIdleConnections()
}

func (r *renewing) transport() *http.Transport {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.checked) >= r.interval {
		r.checked = time.Now()
		_ = r.renew() // then what is in use stays in use; if that is the trouble, its handshake says so
	}
	return r.current
}

// renew replaces the transport if the files have changed. The lock is held, or the transport not yet shared.
func (r *renewing) renew() error {
	var pems [3][]byte
	for i, path := range []string{r.files.CA, r.files.Cert, r.files.Key} {
		if path == "" {
			continue
		}
		var err error
		if pems[i], err = os.ReadFile(path); err != nil {
			return err
		}
	}
	if r.current != nil && bytes.Equal(pems[0], r.inUse[0]) && bytes.Equal(pems[1], r.inUse[1]) && bytes.Equal(pems[2], r.inUse[2]) {
		return nil
	}
	t, err := tlsConfig(r.files, pems)
	if err != nil {
		return err
	}
	if r.current != nil {
		r.current.CloseIdleConnections() // and those in use, once they are idle
	}
	r.current, r.inUse = r.build(t), pems
	return nil
}

// tlsConfig makes the settings out of the contents of CA, Cert and Key.
func tlsConfig(files *config.HTTPTLS, pems [3][]byte) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: files.ServerName}
	if files.CA != "" {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pems[0]) {
			return nil, fmt.Errorf("%s holds no PEM certificate", files.CA)
		}
	}
	if files.Cert != "" {
		cert, err := tls.X509KeyPair(pems[1], pems[2])
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", files.Cert, files.Key, err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}
