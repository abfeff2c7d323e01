package sinks

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
)

const (
	// maxResponseBody is how much of a response is read. A body that is not read to its end costs a new connection,
	// 31 k/s then falls to 8 k/s; an endless one must not hold a lane.
	maxResponseBody = 256 << 10
	// shownBody is how much of a failed response's body goes into its error.
	shownBody = 200
	// maxResponseHeader bounds what an endpoint can make the relay hold.
	maxResponseHeader = 64 << 10
)

// HTTP delivers each message as one request, its bytes as the body. It is safe for concurrent use.
type HTTP struct {
	client   *retryablehttp.Client
	method   string
	url      string
	endpoint string // what errors call it: no path, no query, so no secret
	timeout  time.Duration
	headers  http.Header
}

// NewHTTP makes an HTTP sink. lanes is how many requests will be under way at once: as many connections are kept.
func NewHTTP(cfg *config.HTTPSink, lanes int) (*HTTP, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("http sink: the url cannot be parsed")
	}
	tlsConfig, err := httpTLS(cfg.TLS)
	if err != nil {
		return nil, fmt.Errorf("http sink %s: tls: %w", u.Host, err)
	}
	h := &HTTP{
		client:   oneAttemptClient(tlsConfig, lanes),
		method:   cfg.Method,
		url:      cfg.URL,
		endpoint: cfg.Method + " " + u.Scheme + "://" + u.Host,
		timeout:  cfg.Timeout,
		headers:  http.Header{},
	}
	for k, v := range cfg.Headers {
		h.headers.Set(k, v.Reveal())
	}
	return h, nil
}

// oneAttemptClient returns a client that sends a request once: the loop around attempts is the gate's, since go-retryablehttp's
// own gives up, has no jitter and does not cap Retry-After. It is one client per endpoint, because go-retryablehttp closes all
// idle connections of a client when a request fails.
func oneAttemptClient(tlsConfig *tls.Config, lanes int) *retryablehttp.Client {
	c := retryablehttp.NewClient()
	c.Logger = nil
	c.RetryMax = 0
	c.CheckRetry = func(context.Context, *http.Response, error) (bool, error) { return false, nil }
	c.HTTPClient = &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:        tlsConfig,
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           0,
			MaxIdleConnsPerHost:    lanes, // the default of 2 opened 50,000 connections in 8 s in a peer
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: maxResponseHeader,
		},
		// A redirect is an answer like any other: following it would show credentials to whom it names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// httpTLS reads the certificate authority now, and the client's certificate at each handshake, so that it can be renewed.
func httpTLS(cfg *config.HTTPTLS) (*tls.Config, error) {
	if cfg == nil {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cfg.ServerName}
	if cfg.CA != "" {
		pem, err := os.ReadFile(cfg.CA)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", cfg.CA)
		}
	}
	if cfg.Cert != "" {
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
			return &cert, err
		}
	}
	return t, nil
}

// Limits implements relay.Sink: a raw request carries one message.
func (h *HTTP) Limits() relay.Limits {
	return relay.Limits{Messages: 1, Bytes: 1, Lanes: 1024}
}

// Deliver implements relay.Sink.
func (h *HTTP) Deliver(ctx context.Context, batch []*relay.Message, out []relay.Outcome) error {
	for i, m := range batch {
		outcome, err := h.send(ctx, m)
		if err != nil {
			return fmt.Errorf("%s: %w", h.endpoint, err)
		}
		out[i] = outcome
	}
	return nil
}

func (h *HTTP) send(ctx context.Context, m *relay.Message) (relay.Outcome, error) {
	header, err := requestHeader(m, h.headers)
	if err != nil {
		return relay.Outcome{Status: relay.Refused, Err: err}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	req, err := retryablehttp.NewRequestWithContext(ctx, h.method, h.url, m.Data)
	if err != nil {
		return relay.Outcome{}, withoutURL(err)
	}
	req.Header = header
	res, err := h.client.Do(req)
	if err != nil {
		return relay.Outcome{}, withoutURL(err)
	}
	defer res.Body.Close()
	shown := readBody(res.Body)
	return classify(res, shown)
}

// withoutURL takes the URL off an error of net/http: it may hold a token in its query.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// readBody reads the body to its end, or to a bound, and returns its beginning.
func readBody(body io.Reader) string {
	begin, err := io.ReadAll(io.LimitReader(body, shownBody+1))
	if err == nil {
		// The status has been received, so the outcome is known; a body that breaks off changes nothing.
		io.Copy(io.Discard, io.LimitReader(body, maxResponseBody)) //nolint:errcheck
	}
	s := strings.Join(strings.Fields(strings.ToValidUTF8(string(begin), "?")), " ")
	if len(begin) > shownBody {
		s += "…"
	}
	return s
}

// Close implements relay.Sink.
func (h *HTTP) Close(context.Context) error {
	h.client.HTTPClient.CloseIdleConnections()
	return nil
}
