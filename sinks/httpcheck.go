package sinks

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"

	"github.com/natsrelay/natsrelay/config"
)

// ConnectHTTP connects to the server of a URL as the sink would, with the handshake of https://, and sends nothing. direct is false if that
// would say nothing of the server, since the way to it leads through a proxy.
func ConnectHTTP(ctx context.Context, cfg *config.HTTPSink, to string) (direct bool, err error) {
	target, err := newTarget(to)
	if err != nil {
		return true, err
	}
	sink, err := newTransport(cfg, 1)
	if err != nil {
		return true, err
	}
	transport := currentTransport(sink)
	origin := &url.URL{Scheme: target.fixed.Scheme, Host: target.fixed.Host}
	proxy, err := transport.Proxy(&http.Request{URL: origin})
	if err != nil {
		return true, errors.New("the url of the proxy in the environment cannot be parsed") // it may hold a password
	}
	if proxy != nil {
		return false, nil
	}
	port := origin.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[origin.Scheme]
	}
	conn, err := transport.DialContext(ctx, "tcp", net.JoinHostPort(origin.Hostname(), port))
	if err != nil {
		return true, err
	}
	defer conn.Close()
	if origin.Scheme != "https" {
		return true, nil
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if transport.TLSClientConfig != nil {
		settings = transport.TLSClientConfig.Clone()
	}
	if settings.ServerName == "" {
		settings.ServerName = origin.Hostname()
	}
	return true, tls.Client(conn, settings).HandshakeContext(ctx)
}

// currentTransport returns what newTransport has made, without its renewal.
func currentTransport(rt http.RoundTripper) *http.Transport {
	if r, ok := rt.(*renewing); ok {
		return r.transport()
	}
	return rt.(*http.Transport)
}
