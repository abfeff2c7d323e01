package sinks

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/sync/singleflight"
)

// configuredHeaders returns the headers that all requests have, credentials among them.
func configuredHeaders(cfg *config.HTTPSink) http.Header {
	h := http.Header{"User-Agent": {"natsrelay"}}
	for k, v := range cfg.Headers {
		h.Set(k, v.Reveal())
	}
	switch {
	case cfg.BearerToken != "": // RFC 6750, section 2.1
		h.Set("Authorization", "Bearer "+cfg.BearerToken.Reveal())
	case cfg.Basic != nil:
		h.Set("Authorization", "Basic "+basicCredentials(cfg.Basic))
	}
	return h
}

// basicCredentials returns the user and the password as RFC 7617, section 2, writes them.
func basicCredentials(b *config.HTTPBasic) string {
	return base64.StdEncoding.EncodeToString([]byte(b.User + ":" + b.Password.Reveal()))
}

// tokens gets access tokens from an authorization server, by the client credentials grant (RFC 6749, section 4.4), and keeps the
// current one until it expires or the endpoint does not take it any more. A nil *tokens has none.
type tokens struct {
	grant   clientcredentials.Config
	client  *http.Client
	timeout time.Duration
	mask    mask
	current atomic.Pointer[oauth2.Token]
	fetches singleflight.Group // many lanes may find the token expired at once; one of them asks
}

func newTokens(cfg *config.HTTPOAuth2, client *http.Client, timeout time.Duration, m mask) *tokens {
	return &tokens{
		grant: clientcredentials.Config{
			ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret.Reveal(), TokenURL: cfg.TokenURL, Scopes: cfg.Scopes,
		},
		client:  client,
		timeout: timeout,
		mask:    m,
	}
}

// get returns a token that is valid, if need be a new one. If there is none to be had, that is a fault of the endpoint:
// the gate then waits between attempts, so that the authorization server is not stormed.
func (t *tokens) get(ctx context.Context) (*oauth2.Token, error) {
	if t == nil {
		return nil, nil
	}
	if token := t.current.Load(); token.Valid() {
		return token, nil
	}
	// The fetch is for all who wait, so it does not end with the one who began it.
	fetch := t.fetches.DoChan("", func() (any, error) { return t.renew(context.WithoutCancel(ctx)) })
	select {
	case res := <-fetch:
		token, _ := res.Val.(*oauth2.Token)
		return token, res.Err
	case <-ctx.Done():
		return nil, fmt.Errorf("oauth2 token: %w", context.Cause(ctx))
	}
}

// renew fetches a token, unless somebody has done so since the caller looked: another one may make the server revoke that.
func (t *tokens) renew(ctx context.Context) (*oauth2.Token, error) {
	if token := t.current.Load(); token.Valid() {
		return token, nil
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, oauth2.HTTPClient, t.client), t.timeout)
	defer cancel()
	token, err := t.grant.Token(ctx)
	if err != nil {
		return nil, t.fault(err)
	}
	t.current.Store(token)
	return token, nil
}

// fault says what a failure to get a token means: a refusal has to be mended by somebody, all else passes.
func (t *tokens) fault(err error) error {
	answer, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok || answer.Response == nil {
		return &relay.Fault{Err: fmt.Errorf("oauth2 token: %w", t.mask.err(withoutURL(err), ""))}
	}
	res := answer.Response
	text := t.mask.excerpt(answer.Body, false, "")
	return &relay.Fault{
		Err:        fmt.Errorf("oauth2 token: %w", &StatusError{Code: res.StatusCode, Status: t.mask.line(res.Status, ""), Body: text}),
		Blocked:    defaultClass(res.StatusCode) != classRetry,
		RetryAfter: retryAfter(res.Header.Get("Retry-After"), time.Now()),
		Code:       res.StatusCode,
	}
}

// drop makes the next get fetch another token, unless somebody has done so since.
func (t *tokens) drop(token *oauth2.Token) {
	if t != nil {
		t.current.CompareAndSwap(token, nil)
	}
}

// secretOf returns what is secret of a token, which may be nil.
func secretOf(token *oauth2.Token) string {
	if token == nil {
		return ""
	}
	return token.AccessToken
}
