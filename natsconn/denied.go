package natsconn

import (
	"context"
	"errors"
	"strings"
)

// UntilDenied returns a context that ends, too, when the server denies this connection a subject that begins with prefix: a request is answered by
// nobody then. Call stop when it has ended; BecauseDenied says why it did.
func (c *Conn) UntilDenied(ctx context.Context, prefix string) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ignore := c.OnError(func(err error) {
		if denied, ok := errors.AsType[*PermissionError](err); ok && strings.HasPrefix(denied.Subject, prefix) {
			cancel(denied)
		}
	})
	return ctx, func() { ignore(); cancel(nil) }
}

// BecauseDenied returns the *PermissionError that ended a context of UntilDenied, or else err.
func BecauseDenied(ctx context.Context, err error) error {
	if denied, ok := errors.AsType[*PermissionError](context.Cause(ctx)); ok {
		return denied
	}
	return err
}
