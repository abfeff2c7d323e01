package sinks

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/relay"
)

func TestHTTPAuthorization(t *testing.T) {
	srv := newRecorder(t, nil)
	bearer, basic := httpConfig(srv.URL), httpConfig(srv.URL)
	bearer.BearerToken = "t0ken"
	basic.Basic = &config.HTTPBasic{User: "Aladdin", Password: "open sesame"} // the example of RFC 7617
	m := message()
	m.Header["Authorization"] = []string{"of the publisher"}
	for want, cfg := range map[string]*config.HTTPSink{"Bearer t0ken": bearer, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==": basic} {
		if out, err := deliverOne(t, newHTTP(t, cfg), m); err != nil || out.Status != relay.Delivered {
			t.Fatalf("outcome %v, error %v", out, err)
		}
		if got := srv.take()[0].header["Authorization"]; len(got) != 1 || got[0] != want {
			t.Errorf("Authorization %q, want %q", got, want)
		}
	}
}

// An authServer gives out tokens for client credentials, and is an endpoint that takes the latest of them.
type authServer struct {
	*httptest.Server
	fetched   atomic.Int64
	expiresIn atomic.Int64 // seconds
	failWith  atomic.Int64 // status; 0: none
	revoked   atomic.Int64 // tokens up to this one are not taken
}

func newAuthServer(t *testing.T) *authServer {
	s := new(authServer)
	s.expiresIn.Store(3600)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("POST /in", s.receive)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *authServer) token(w http.ResponseWriter, r *http.Request) {
	id, secret, ok := r.BasicAuth()
	if code := int(s.failWith.Load()); code != 0 {
		if !ok { // the client tries both ways to log in
			secret = r.FormValue("client_secret")
		}
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"error":"invalid_client","error_description":"secret %s is wrong"}`, secret)
		return
	}
	if r.FormValue("grant_type") != "client_credentials" || !ok || id != "relay" || secret != "hunter22" || r.FormValue("scope") != "in out" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"access_token": fmt.Sprintf("token-%d", s.fetched.Add(1)), "token_type": "bearer", "expires_in": s.expiresIn.Load(),
	})
}

func (s *authServer) receive(w http.ResponseWriter, r *http.Request) {
	n := s.fetched.Load()
	if r.Header.Get("Authorization") != fmt.Sprintf("Bearer token-%d", n) || n <= s.revoked.Load() {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, "not you, %s", r.Header.Get("Authorization"))
	}
}

func (s *authServer) config() *config.HTTPSink {
	cfg := httpConfig(s.URL + "/in")
	cfg.OAuth2 = &config.HTTPOAuth2{TokenURL: s.URL + "/token", ClientID: "relay", ClientSecret: "hunter22", Scopes: []string{"in", "out"}}
	return cfg
}

func TestHTTPOAuth2(t *testing.T) {
	s := newAuthServer(t)
	h := newHTTP(t, s.config())
	deliver := func() error {
		t.Helper()
		out, err := deliverOne(t, h, message())
		if (err == nil) != (out.Status == relay.Delivered) {
			t.Fatalf("outcome %v, error %v", out, err)
		}
		return err
	}
	wantFetched := func(n int64) {
		t.Helper()
		if got := s.fetched.Load(); got != n {
			t.Errorf("%d tokens fetched, want %d", got, n)
		}
	}

	// Many lanes begin at once: they share one token, and keep it.
	var lanes sync.WaitGroup
	for range 20 {
		lanes.Go(func() {
			if err := deliver(); err != nil {
				t.Error(err)
			}
		})
	}
	lanes.Wait()
	if _, err := h.tokens.renew(t.Context()); err != nil { // as a lane that has looked just before the others got it
		t.Error(err)
	}
	wantFetched(1)

	// A token that is no longer taken costs one attempt, which does not tell it.
	s.revoked.Store(1)
	err := deliver()
	var fault *relay.Fault
	if !errors.As(err, &fault) || !fault.Blocked || fault.Code != 401 || strings.Contains(err.Error(), "token-1") {
		t.Errorf("revoked: error %v, want a blocked fault", err)
	}
	if err := deliver(); err != nil {
		t.Errorf("after a new token: %v", err)
	}
	wantFetched(2)

	// What expires soon is replaced before it is used.
	s.revoked.Store(2)
	s.expiresIn.Store(1)
	_ = deliver()
	for n := range int64(2) {
		if err := deliver(); err != nil {
			t.Error(err)
		}
		wantFetched(3 + n)
	}
}

// Without a token there is nothing to send: that is the endpoint's failure, so that its gate waits between attempts.
func TestHTTPOAuth2Failures(t *testing.T) {
	for code, blocked := range map[int64]bool{401: true, 400: true, 302: true, 503: false, 429: false} {
		s := newAuthServer(t)
		s.failWith.Store(code)
		h := newHTTP(t, s.config())
		out, err := deliverOne(t, h, message())
		var fault *relay.Fault
		if !errors.As(err, &fault) || fault.Blocked != blocked || fault.Code != int(code) || out.Status != relay.Unconfirmed {
			t.Errorf("status %d: outcome %v, error %v; want blocked %v", code, out, err, blocked)
		}
		if err == nil || strings.Contains(err.Error(), "hunter22") || !strings.Contains(err.Error(), "secret [secret] is wrong") {
			t.Errorf("status %d: error %v", code, err)
		}
		s.failWith.Store(0)
		if out, err := deliverOne(t, h, message()); err != nil || out.Status != relay.Delivered {
			t.Errorf("after status %d: outcome %v, error %v", code, out, err)
		}
	}
	s := newAuthServer(t)
	h := newHTTP(t, s.config())
	s.Close()
	_, err := deliverOne(t, h, message())
	var fault *relay.Fault
	if !errors.As(err, &fault) || fault.Blocked || strings.Contains(err.Error(), "/token") {
		t.Errorf("server away: error %v, want a fault that passes", err)
	}
}

// A redirect is not followed, whoever it leads to: he would be shown the credentials.
func TestHTTPCredentialsStayHere(t *testing.T) {
	elsewhere := newRecorder(t, nil)
	srv := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	cfg := httpConfig(srv.URL)
	cfg.BearerToken = "t0ken"
	_, err := deliverOne(t, newHTTP(t, cfg), message())
	var fault *relay.Fault
	if !errors.As(err, &fault) || !fault.Blocked || len(elsewhere.take()) != 0 {
		t.Errorf("error %v, want a blocked fault and no request elsewhere", err)
	}
}

// Certificates are renewed in place: the files change, and the next request uses them, on a new connection.
func TestHTTPRenewsCertificates(t *testing.T) {
	ca, renewed := natstest.NewCA(t, "old authority"), natstest.NewCA(t, "new authority")
	serverCert, serverKey := ca.Issue("server")
	clientCert, clientKey := ca.Issue("client-1")
	seen := make(chan string, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen <- r.TLS.PeerCertificates[0].Subject.CommonName
	}))
	var serverPair atomic.Pointer[tls.Certificate]
	serverPair.Store(pair(t, serverCert, serverKey))
	srv.TLS = &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return serverPair.Load(), nil },
		ClientAuth:     tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool(),
	}
	srv.TLS.ClientCAs.AppendCertsFromPEM([]byte(read(t, ca.File()) + read(t, renewed.File())))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()

	cfg := httpConfig(srv.URL)
	cfg.TLS = &config.HTTPTLS{CA: ca.File(), Cert: clientCert, Key: clientKey, ServerName: "localhost"}
	h := newHTTP(t, cfg)
	h.client.HTTPClient.Transport.(*renewing).interval = 0
	wantClient := func(name string) {
		t.Helper()
		if out, err := deliverOne(t, h, message()); err != nil || out.Status != relay.Delivered {
			t.Fatalf("outcome %v, error %v", out, err)
		}
		if got := <-seen; got != name {
			t.Errorf("the server saw %q, want %q", got, name)
		}
	}
	wantClient("client-1")

	newCert, newKey := renewed.Issue("client-2")
	write(t, clientCert, read(t, newCert)) // the key is still the old one: nothing changes yet
	wantClient("client-1")
	write(t, clientKey, read(t, newKey))
	wantClient("client-2")

	// The server changes to the new authority, which is not trusted until its certificate is in the file.
	c, k := renewed.Issue("server")
	serverPair.Store(pair(t, c, k))
	srv.CloseClientConnections()
	h.client.HTTPClient.CloseIdleConnections()
	if out, err := deliverOne(t, h, message()); err == nil || out.Status != relay.Unconfirmed {
		t.Fatalf("unknown authority: outcome %v, error %v", out, err)
	}
	write(t, ca.File(), read(t, renewed.File()))
	wantClient("client-2")
	write(t, ca.File(), "half a fi")
	wantClient("client-2")
}

func pair(t *testing.T, cert, key string) *tls.Certificate {
	t.Helper()
	p, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return &p
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A proxy gets the requests, and its own credentials only.
func TestHTTPProxy(t *testing.T) {
	var got *http.Request
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r }))
	defer proxy.Close()
	cfg := httpConfig("http://far.example:81/in")
	cfg.BearerToken = "t0ken"
	cfg.Proxy = config.Secret(strings.Replace(proxy.URL, "://", "://u:hunter22@", 1))
	if out, err := deliverOne(t, newHTTP(t, cfg), message()); err != nil || out.Status != relay.Delivered {
		t.Fatalf("outcome %v, error %v", out, err)
	}
	if got.URL.String() != "http://far.example:81/in" || got.Header.Get("Proxy-Authorization") != "Basic dTpodW50ZXIyMg==" || got.Header.Get("Authorization") != "Bearer t0ken" {
		t.Errorf("the proxy got %s %v", got.URL, got.Header)
	}

	proxy.Close()
	out, err := deliverOne(t, newHTTP(t, cfg), message())
	if err == nil || out.Status != relay.Unconfirmed || strings.Contains(err.Error(), "hunter22") {
		t.Errorf("proxy away: outcome %v, error %v", out, err)
	}
}

// A SOCKS5 proxy is told where to connect to (RFC 1928).
func TestHTTPSocksProxy(t *testing.T) {
	asked := make(chan string, 1)
	addr := rawServer(t, func(c net.Conn) { // the greeting has been read
		c.Write([]byte{5, 0})
		buf := make([]byte, 262)
		n, err := c.Read(buf)
		if err != nil || n < 7 || buf[3] != 3 {
			return
		}
		asked <- string(buf[5 : 5+buf[4]])
		c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		c.Read(make([]byte, 4096))
		c.Write([]byte("HTTP/1.1 204 No Content\r\n\r\n"))
	})
	cfg := httpConfig("http://far.example/in")
	cfg.Proxy = config.Secret("socks5://" + addr)
	if out, err := deliverOne(t, newHTTP(t, cfg), message()); err != nil || out.Status != relay.Delivered {
		t.Fatalf("outcome %v, error %v", out, err)
	}
	if got := <-asked; got != "far.example" {
		t.Errorf("asked for %q", got)
	}
}
