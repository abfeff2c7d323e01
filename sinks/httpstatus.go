package sinks

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay"
	"golang.org/x/oauth2"
)

// maxResponseBody is how much of a response is read. A body that is not read to its end costs a new connection,
// 31 k/s then falls to 8 k/s; an endless one must not hold a lane.
const maxResponseBody = 256 << 10

// A StatusError is an answer that is no success.
type StatusError struct {
	Code   int
	Status string // "422 Unprocessable Entity"
	Body   string // the beginning of it
}

func (e *StatusError) Error() string {
	if e.Body == "" {
		return "status " + e.Status
	}
	return fmt.Sprintf("status %s: %q", e.Status, e.Body)
}

// StatusCode is for those who put refused messages away.
func (e *StatusError) StatusCode() int { return e.Code }

// A statusClass is what a status says of the message and the endpoint.
type statusClass uint8

const (
	classDelivered statusClass = iota
	classRetry                 // time mends it
	classRefused               // the message is at fault, and will be at every attempt
	classBlocked               // the endpoint is not what the configuration takes it for: somebody has to mend it
)

// statusClasses are the statuses that mean something else than usual.
type statusClasses map[int]statusClass

// newStatusClasses: single says that a request has the headers of one message.
func newStatusClasses(cfg config.HTTPStatus, single bool) statusClasses {
	c := make(statusClasses)
	if single {
		c[http.StatusRequestHeaderFieldsTooLarge] = classRefused // they are the message's, and no other has to wait behind it
	}
	for class, codes := range map[statusClass][]int{classRetry: cfg.Retry, classRefused: cfg.Poison, classBlocked: cfg.Blocked} {
		for _, code := range codes {
			c[code] = class
		}
	}
	return c
}

func (c statusClasses) of(code int) statusClass {
	if class, ok := c[code]; ok {
		return class
	}
	return defaultClass(code)
}

// defaultClass is what a status means unless the configuration says otherwise. Redirects and all that is unexpected count as blocked: nothing is lost by it.
func defaultClass(code int) statusClass {
	switch code {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return classRefused
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return classRetry
	}
	switch {
	case code >= 200 && code <= 299:
		return classDelivered
	case code >= 500:
		return classRetry
	}
	return classBlocked
}

// judge says what a response means for its messages and the endpoint. It reads the body, to its end if that is near.
func (h *HTTP) judge(res *http.Response, token *oauth2.Token) (refusal *StatusError, err error) {
	class := h.classes.of(res.StatusCode)
	if class == classDelivered {
		drain(res.Body)
		return nil, nil
	}
	secret := secretOf(token)
	status := &StatusError{Code: res.StatusCode, Status: h.mask.line(res.Status, secret), Body: h.excerpt(res.Body, secret)}
	if class == classRefused {
		return status, nil
	}
	return nil, &relay.Fault{
		Err:        status,
		Blocked:    class == classBlocked,
		RetryAfter: retryAfter(res.Header.Get("Retry-After"), time.Now()),
		Code:       status.Code,
	}
}

// isHeaderLimit reports whether a request was not sent because it has larger headers than the endpoint takes, as it has said over HTTP/2.
func isHeaderLimit(err error) bool {
	return err != nil && strings.Contains(err.Error(), "http2: request header list larger than peer's advertised limit")
}

// headersTooLarge is what the endpoint would have said over HTTP/1.1.
func headersTooLarge() *http.Response {
	const code = http.StatusRequestHeaderFieldsTooLarge
	return &http.Response{StatusCode: code, Status: strconv.Itoa(code) + " " + http.StatusText(code), Header: http.Header{}, Body: http.NoBody}
}

// withoutBody ends a connection that has become one of another protocol. It would be the body, to be read without an end and without a timeout.
func withoutBody(res *http.Response) {
	_ = res.Body.Close()
	res.Body = http.NoBody
}

// excerpt reads a body and returns its beginning, without the secrets that may be in it.
func (h *HTTP) excerpt(body io.Reader, secret string) string {
	need := h.mask.needs(secret)
	begin, err := io.ReadAll(io.LimitReader(body, int64(need)))
	if err == nil {
		drain(body)
	}
	return h.mask.excerpt(begin, len(begin) == need, secret)
}

// drain reads a body to its end or to a bound. The status has been received, so the outcome is known; a body that breaks off changes nothing.
func drain(body io.Reader) {
	if body == http.NoBody {
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(body, maxResponseBody))
}

// retryAfter reads a Retry-After header: seconds or a date (RFC 9110, section 10.2.3). What is neither counts as none.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}
