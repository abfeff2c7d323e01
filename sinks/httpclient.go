package sinks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/natsrelay/natsrelay/config"
)

// maxResponseHeader bounds what an endpoint can make the relay hold.
const maxResponseHeader = 64 << 10

// oneAttemptClient returns a client that sends a request once: the loop around attempts is the gate's, since go-retryablehttp's
// own gives up, has no jitter and does not cap Retry-After. It is one client per endpoint, because go-retryablehttp closes all
// idle connections of a client when a request fails.
func oneAttemptClient(transport http.RoundTripper) *retryablehttp.Client {
	c := retryablehttp.NewClient()
	c.Logger = nil
	c.RetryMax = 0
	c.CheckRetry = func(context.Context, *http.Response, error) (bool, error) { return false, nil }
	c.HTTPClient = &http.Client{
		Transport: transport,
		// A redirect is an answer like any other: following it would show credentials to whom it names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// newTransport returns the connections to the endpoint.
func newTransport(cfg *config.HTTPSink, lanes int) (http.RoundTripper, error) {
	proxy := http.ProxyFromEnvironment
	if cfg.Proxy != "" {
		u, err := url.Parse(cfg.Proxy.Reveal())
		if err != nil {
			return nil, errors.New("the url of the proxy cannot be parsed")
		}
		proxy = http.ProxyURL(u)
	}
	build := func(t *tls.Config) *http.Transport {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(cfg.HTTP2)
		return &http.Transport{
			Proxy:                  proxy,
			DialContext:            (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:        t,
			Protocols:              protocols,
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
			DisableCompression:     true, // of responses: all that is looked at is the beginning of an error
			MaxIdleConns:           0,
			MaxIdleConnsPerHost:    lanes, // the default of 2 opened 50,000 connections in 8 s in a peer
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: maxResponseHeader,
		}
	}
	if cfg.TLS == nil {
		return build(nil), nil
	}
	r := &renewing{files: cfg.TLS, build: build, interval: renewInterval}
	if err := r.renew(); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return r, nil
}
