package sinks

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
)

// An endpoint that answers with what it was sent does not get the relay to log its secrets.
func TestHTTPSecretsOfAnEcho(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "no %s for %s with key %s,\n%s", r.URL.RawQuery, r.Header.Get("Authorization"), r.Header.Get("X-Api-Key"), r.FormValue("key"))
	}))
	defer srv.Close()
	cfg := httpConfig(srv.URL + "/in?key=canary%2Bquery&x=1")
	cfg.Endpoint = srv.URL + "/in"
	cfg.Basic = &config.HTTPBasic{User: "u", Password: "canary-basic"}
	cfg.Headers = map[string]config.Secret{"X-Api-Key": "canary-header"}
	_, err := deliverOne(t, newHTTP(t, cfg), message())
	var status *StatusError
	if !errors.As(err, &status) {
		t.Fatalf("error %v", err)
	}
	if want := "no [secret] for Basic [secret] with key [secret], [secret]"; status.Body != want {
		t.Errorf("shows %q, want %q", status.Body, want)
	}
}

// Neither does an authorization server, nor a proxy, in whichever way they were sent them.
func TestHTTPSecretsOfOtherEchoes(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "no %s%s%s", r.Header.Get("Authorization"), r.Header.Get("Proxy-Authorization"), body)
	}))
	defer srv.Close()
	asked, proxied := httpConfig(srv.URL), httpConfig("http://endpoint.invalid/")
	asked.OAuth2 = &config.HTTPOAuth2{TokenURL: srv.URL, ClientID: "r&d", ClientSecret: "canary/+ ="}
	proxied.Proxy = config.Secret(strings.Replace(srv.URL, "://", "://us%40er:can%2Fary@", 1))
	for want, cfg := range map[string]*config.HTTPSink{"client_secret=[secret]": asked, "Basic [secret]": proxied} {
		_, err := deliverOne(t, newHTTP(t, cfg), message())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s in it", err, want)
		}
	}
	m := newMask(asked)
	if got := m.line("Basic "+basicCredentials(&config.HTTPBasic{User: "r%26d", Password: "canary%2F%2B+%3D"}), ""); got != "Basic [secret]" {
		t.Errorf("%s", got)
	}
}

// Wherever the excerpt ends, no part of a secret is in it.
func TestMaskAtTheEnd(t *testing.T) {
	const secret = "canary-0123456789-0123456789"
	m := newMask(&config.HTTPSink{BearerToken: secret})
	for before := range shownBody + len(secret) + 2 {
		for _, times := range []int{1, 5} {
			text := strings.Repeat("x", before) + strings.Repeat(secret, times) + strings.Repeat(" end", 200)
			need := m.needs("")
			got := m.excerpt([]byte(text[:need]), true, "")
			if strings.Contains(got, "canary") || len(got) > shownBody+len("…") || !strings.HasSuffix(got, "…") {
				t.Fatalf("%d: %q", before, got)
			}
		}
	}
	if got := m.excerpt([]byte("all\n of\xff it"), false, ""); got != "all of? it" {
		t.Errorf("%q", got)
	}
}

// What net/http says of a malformed answer quotes it.
func TestHTTPSecretsOfAMalformedEcho(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "%s%s\r\n", r.Header.Get("Authorization"), strings.Repeat("!", 10_000))
	}))
	defer srv.Close()
	cfg := httpConfig(srv.URL)
	cfg.BearerToken = "canary-token"
	out, err := deliverOne(t, newHTTP(t, cfg), message())
	if err == nil || out.Status != relay.Unconfirmed || strings.Contains(err.Error(), "canary") || len(err.Error()) > 700 {
		t.Errorf("outcome %v, error %v", out, err)
	}
}
