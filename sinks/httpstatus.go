package sinks

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/natsrelay/natsrelay/relay"
)

// classify says what a response means for its message and its endpoint.
func classify(res *http.Response, body string) (relay.Outcome, error) {
	code := res.StatusCode
	if code >= 200 && code <= 299 {
		return relay.Outcome{Status: relay.Delivered}, nil
	}
	err := fmt.Errorf("status %s", res.Status)
	if body != "" {
		err = fmt.Errorf("status %s: %q", res.Status, body)
	}
	switch {
	case refuses(code):
		return relay.Outcome{Status: relay.Refused, Err: err}, nil
	case passes(code):
		return relay.Outcome{}, &relay.Fault{Err: err, RetryAfter: retryAfter(res.Header.Get("Retry-After"), time.Now())}
	default:
		return relay.Outcome{}, &relay.Fault{Err: err, Blocked: true}
	}
}

// refuses reports whether a status says that this message is at fault and will be at every attempt.
func refuses(code int) bool {
	switch code {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong,
		http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// passes reports whether a status is one that time mends. What neither refuses nor passes (401, 404, redirects, and all that is
// unexpected) says that the endpoint is not what the configuration takes it for.
func passes(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return code >= 500
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
