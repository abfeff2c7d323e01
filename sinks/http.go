package sinks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
	"golang.org/x/oauth2"
)

// HTTP delivers messages as requests to one endpoint: one a request, or batches, as its format says. It is safe for concurrent use.
type HTTP struct {
	client   *retryablehttp.Client
	base     *http.Request // what all requests have in common
	target   target
	endpoint string // what errors call it: no path, no query, so no secret
	format   format
	batch    config.Batch
	timeout  time.Duration
	headers  http.Header // the configured ones, credentials among them
	tokens   *tokens     // nil: no OAuth2
	signer   signer      // nil: requests are not signed
	classes  statusClasses
	mask     mask
	bodies   *bodies
	scratch  chan *scratch // those that no lane uses now
}

// A piece is one message made ready to be sent.
type piece struct {
	index  int    // in the batch
	id     string // the message's
	url    string // "": that of all messages
	data   []byte // its part of the body; read only, for it may be the message's own
	header http.Header
}

// scratch is what one Deliver needs, and the next can use again.
type scratch struct {
	pieces   []piece
	buf      []byte
	deadline deadline
}

// NewHTTP makes an HTTP sink. lanes is how many requests will be under way at once: as many connections are kept.
func NewHTTP(cfg *config.HTTPSink, lanes int) (*HTTP, error) {
	target, err := newTarget(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("http sink: %w", err)
	}
	h := &HTTP{
		base:     &http.Request{Method: cfg.Method, URL: target.fixed, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1},
		target:   target,
		endpoint: cfg.Method + " " + target.origin,
		format:   formatNamed(cfg.Format),
		batch:    cfg.Batch,
		timeout:  cfg.Timeout,
		headers:  configuredHeaders(cfg),
		mask:     newMask(cfg),
		scratch:  make(chan *scratch, lanes),
	}
	h.classes = newStatusClasses(cfg.Status, h.format.single)
	if h.bodies, err = newBodies(cfg.Compression); err != nil {
		return nil, fmt.Errorf("http sink %s: %w", target.origin, err)
	}
	if h.signer, err = newSigner(cfg.SigningSecrets); err != nil {
		return nil, fmt.Errorf("http sink %s: %w", target.origin, err)
	}
	transport, err := newTransport(cfg, lanes)
	if err != nil {
		return nil, fmt.Errorf("http sink %s: %w", target.origin, err)
	}
	h.client = oneAttemptClient(transport)
	if cfg.OAuth2 != nil {
		h.tokens = newTokens(cfg.OAuth2, h.client.HTTPClient, cfg.Timeout, h.mask)
	}
	return h, nil
}

// Limits implements relay.Sink.
func (h *HTTP) Limits() relay.Limits {
	const lanes = 1024
	if h.format.single {
		return relay.Limits{Messages: 1, Bytes: 1, Lanes: lanes}
	}
	return relay.Limits{Messages: max(1, h.batch.Messages), Bytes: h.batchSize(), Lanes: lanes, Wait: h.batch.Wait}
}

// batchSize returns how large a batch has to be to fill a request. Message.Size counts about 512 bytes that are not in the body: where these
// would decide, small messages never fill a body. There a batch is larger, and becomes several requests.
func (h *HTTP) batchSize() int64 {
	size := max(1, h.batch.Bytes)
	if besides := int64(h.batch.Messages) * 512; size < besides {
		size += besides
	}
	return size
}

// Deliver implements relay.Sink. A batch becomes one request, or several in its order if it is for several URLs.
func (h *HTTP) Deliver(ctx context.Context, batch []*relay.Message, out []relay.Outcome) error {
	s := h.getScratch()
	defer h.putScratch(s)
	h.prepare(s, batch, out)
	for rest := s.pieces; len(rest) > 0; {
		n := h.runLength(rest)
		if err := h.deliverRun(ctx, &s.deadline, rest[:n], out); err != nil {
			return fmt.Errorf("%s: %w", h.endpoint, err)
		}
		rest = rest[n:]
	}
	return nil
}

func (h *HTTP) getScratch() *scratch {
	select {
	case s := <-h.scratch:
		return s
	default:
		return new(scratch)
	}
}

func (h *HTTP) putScratch(s *scratch) {
	if cap(s.buf) > keptBuffer {
		s.buf = nil
	}
	clear(s.pieces) // they refer to messages
	s.pieces, s.buf = s.pieces[:0], s.buf[:0]
	select {
	case h.scratch <- s:
	default:
		s.deadline.end()
	}
}

// prepare makes the pieces of a batch. What cannot be sent, whatever the endpoint says, is refused here, alone.
func (h *HTTP) prepare(s *scratch, batch []*relay.Message, out []relay.Outcome) {
	for i, m := range batch {
		p := piece{index: i, id: m.ID}
		err := h.address(&p, m)
		if err == nil {
			s.buf, p.data, err = h.format.encode(s.buf, m)
		}
		if err != nil {
			out[i] = relay.Outcome{Status: relay.Refused, Err: err}
			continue
		}
		s.pieces = append(s.pieces, p)
	}
}

// address sets where a message goes, and the headers that only it has.
func (h *HTTP) address(p *piece, m *relay.Message) (err error) {
	if p.url, err = h.target.url(m); err != nil {
		return err
	}
	if h.format.single {
		p.header, err = messageHeader(m)
	}
	return err
}

// runLength returns how many pieces, at least one, go into the next request: those for the URL of the first, up to the size of a batch.
func (h *HTTP) runLength(pieces []piece) int {
	size := h.format.size(&pieces[0], true)
	for i := 1; i < len(pieces); i++ {
		size += h.format.size(&pieces[i], false)
		if h.format.single || pieces[i].url != pieces[0].url || size > h.batch.Bytes {
			return i
		}
	}
	return len(pieces)
}

// deliverRun sends pieces in one request. If that is refused, one of them is to blame, or the size of them all: each half is sent by itself,
// in order, down to the piece that is refused alone. An error says that the endpoint failed; what has no outcome then has to be sent again.
func (h *HTTP) deliverRun(ctx context.Context, d *deadline, run []piece, out []relay.Outcome) error {
	refusal, err := h.send(ctx, d, run)
	switch {
	case err != nil:
		return err
	case refusal == nil:
		for i := range run {
			out[run[i].index].Status = relay.Delivered
		}
		return nil
	case len(run) == 1:
		out[run[0].index] = relay.Outcome{Status: relay.Refused, Err: refusal, Code: refusal.Code}
		return nil
	}
	half := len(run) / 2
	if err := h.deliverRun(ctx, d, run[:half], out); err != nil {
		return err
	}
	return h.deliverRun(ctx, d, run[half:], out)
}

// send makes one request. No refusal and no error mean that it was delivered.
func (h *HTTP) send(ctx context.Context, d *deadline, run []piece) (refusal *StatusError, err error) {
	ctx = d.begin(ctx, h.timeout)
	defer d.rest()
	res, token, err := h.exchange(ctx, run)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	relay.Beat(ctx) // a batch may be many requests
	return h.judge(res, token)
}

// exchange sends one request for the run and returns the response to it, whatever its status, and the token that went with it.
func (h *HTTP) exchange(ctx context.Context, run []piece) (*http.Response, *oauth2.Token, error) {
	token, err := h.tokens.get(ctx)
	if err != nil {
		return nil, nil, err
	}
	header := h.header(run)
	if token != nil {
		header["Authorization"] = []string{token.Type() + " " + token.AccessToken}
	}
	body, err := h.bodies.build(&h.format, run, header)
	if err != nil {
		return nil, nil, err
	}
	defer body.release()
	h.signer.sign(header, time.Now(), body.data)
	res, err := h.do(ctx, run[0].url, header, body)
	switch {
	case isHeaderLimit(err):
		res = headersTooLarge()
	case ctx.Err() != nil && err != nil:
		return nil, nil, h.whyEnded(ctx)
	case err != nil:
		return nil, nil, h.mask.err(withoutURL(err), secretOf(token))
	case res.StatusCode == http.StatusSwitchingProtocols:
		withoutBody(res)
	}
	if res.StatusCode == http.StatusUnauthorized {
		h.tokens.drop(token)
	}
	return res, token, nil
}

// whyEnded says why there is no answer when the request's time is over: of HTTP/2, the error would not tell a timeout from a stop.
func (h *HTTP) whyEnded(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %v (sink.timeout): %w", h.timeout, cause)
	}
	return cause
}

// do sends a request to the URL, or to that of all messages.
func (h *HTTP) do(ctx context.Context, to string, header http.Header, b *body) (*http.Response, error) {
	req := h.base.WithContext(ctx)
	req.Header = header
	if to != "" {
		u, err := url.Parse(to)
		if err != nil {
			return nil, err
		}
		req.URL = u
	}
	b.attach(req)
	return h.client.Do(&retryablehttp.Request{Request: req})
}

// withoutURL takes the URL off an error of net/http: it may hold a token in its query.
func withoutURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// Close implements relay.Sink.
func (h *HTTP) Close(context.Context) error {
	h.client.HTTPClient.CloseIdleConnections()
	return nil
}
