package natsconn

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
)

// Kind is what an error was about: the label of the connection's error counter.
type Kind string

const (
	KindConnect      Kind = "connect"       // an attempt to connect failed
	KindDisconnect   Kind = "disconnect"    // an established connection was cut
	KindAuth         Kind = "auth"          // credentials wrong, expired or revoked
	KindTLS          Kind = "tls"           // certificates, handshake
	KindPermission   Kind = "permission"    // a publish or a subscription that is not allowed
	KindSlowConsumer Kind = "slow_consumer" // a subscription's pending limit was reached
	KindLimit        Kind = "limit"         // the server takes no more connections or subscriptions
	KindOther        Kind = "other"
)

// Kinds returns every Kind, so that each counter exists from the start.
func Kinds() []Kind {
	return []Kind{KindConnect, KindDisconnect, KindAuth, KindTLS, KindPermission, KindSlowConsumer, KindLimit, KindOther}
}

// kindOf classifies an error; fallback is for those that say nothing by themselves.
func kindOf(err error, fallback Kind) Kind {
	switch {
	case isAuth(err):
		return KindAuth
	case errors.Is(err, nats.ErrTLS), errors.Is(err, nats.ErrSecureConnWanted), errors.Is(err, nats.ErrSecureConnRequired):
		return KindTLS
	case errors.Is(err, nats.ErrPermissionViolation):
		return KindPermission
	case errors.Is(err, nats.ErrSlowConsumer):
		return KindSlowConsumer
	case errors.Is(err, nats.ErrMaxConnectionsExceeded), isTooMany(err), errors.Is(err, nats.ErrMaxAccountConnectionsExceeded),
		errors.Is(err, nats.ErrMaxSubscriptionsExceeded):
		return KindLimit
	}
	return fallback
}

func isAuth(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) ||
		errors.Is(err, nats.ErrAuthRevoked) || errors.Is(err, nats.ErrAccountAuthExpired) ||
		errors.Is(err, errCreds)
}

// isTooMany knows the server's own words, which nats.go (1.55) does not take for its ErrMaxConnectionsExceeded at a login.
func isTooMany(err error) bool {
	return err != nil && strings.HasSuffix(strings.ToLower(err.Error()), nats.MAX_CONNECTIONS_ERR)
}

// A PermissionError is the server's word, given later and out of band, that a publish or
// a subscription is not allowed.
type PermissionError struct {
	Publish bool   // else a subscription
	Subject string // "" if the server's text could not be read
	Queue   string
	Err     error // nats.go's
}

func (e *PermissionError) Error() string {
	if e.Subject == "" {
		return e.Err.Error()
	}
	if e.Publish {
		return fmt.Sprintf("not permitted to publish to %q", e.Subject)
	}
	if e.Queue != "" {
		return fmt.Sprintf("not permitted to subscribe to %q in queue group %q", e.Subject, e.Queue)
	}
	return fmt.Sprintf("not permitted to subscribe to %q", e.Subject)
}

func (e *PermissionError) Unwrap() error { return e.Err }

// permission reads nats-server's texts:
//
//	Permissions Violation for Publish to "a.b"
//	Permissions Violation for Subscription to "a.b" using queue "q" (sid "1")
func permission(err error) *PermissionError {
	e := &PermissionError{Err: err}
	text := err.Error()
	rest, ok := "", false
	if _, rest, ok = strings.Cut(text, "for Publish to "); ok {
		e.Publish = true
	} else if _, rest, ok = strings.Cut(text, "for Subscription to "); !ok {
		e.Publish = strings.Contains(text, "Publish")
		return e
	}
	e.Subject = unquotePrefix(rest)
	if _, queue, ok := strings.Cut(rest, " using queue "); ok {
		e.Queue = unquotePrefix(queue)
	}
	return e
}

func unquotePrefix(s string) string {
	q, err := strconv.QuotedPrefix(s)
	if err != nil {
		return ""
	}
	s, _ = strconv.Unquote(q) // QuotedPrefix has checked it
	return s
}
