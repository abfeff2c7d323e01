package natsconn

import (
	"context"
	"errors"
	"sync"

	"github.com/nats-io/nats.go"
)

// A PublishWatch tells which publishes of a batch the server has denied. Use one at a time per goroutine:
//
//	w.Begin(epoch); defer w.Stop(); publish …; flush; denied, err := w.Denied(ctx)
//
// The server's -ERR precedes the PONG of the flush on the wire, but nats.go hands it to the error
// handler through a queue: when Flush returns, the handler may not have run. Only nats.go's LastError is
// set by the reading goroutine itself, before it sees the PONG. So Denied compares LastError with
// what it was at Begin, and if it moved, waits until the handler has seen that very error.
type PublishWatch struct {
	remove func()
	news   chan struct{} // holds one token when something was added

	mu     sync.Mutex
	nc     *nats.Conn // nil between Stop and Begin; written by the owner only
	before error
	seen   map[error]struct{}
	denied map[string]error
}

// WatchPublish returns a watch on the connection. Close it.
func (c *Conn) WatchPublish() *PublishWatch {
	w := &PublishWatch{news: make(chan struct{}, 1)}
	w.remove = c.OnError(w.add)
	return w
}

// Close ends the watch.
func (w *PublishWatch) Close() { w.remove() }

// Begin starts collecting for a batch that is published in this epoch.
func (w *PublishWatch) Begin(e Epoch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nc, w.before = e.nc, e.nc.LastError()
	clear(w.seen)
	w.denied = nil
}

func (w *PublishWatch) add(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nc == nil {
		return
	}
	if w.seen == nil {
		w.seen = make(map[error]struct{})
	}
	if denied, ok := errors.AsType[*PermissionError](err); ok {
		w.seen[denied.Err] = struct{}{}
		if denied.Publish {
			if w.denied == nil {
				w.denied = make(map[string]error)
			}
			w.denied[denied.Subject] = denied
		}
	} else {
		w.seen[err] = struct{}{}
	}
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// Denied returns the subjects that were denied since Begin, by other users of the connection
// included; "" stands for one that the server's text did not give. Call it after the flush has
// returned nil; it waits for nothing but the handler's queue.
func (w *PublishWatch) Denied(ctx context.Context) (map[string]error, error) {
	for {
		if denied, ok := w.settled(); ok {
			return denied, nil
		}
		select {
		case <-w.news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (w *PublishWatch) settled() (map[string]error, bool) {
	last := w.nc.LastError() // may wait for nats.go's lock: not with ours held, which its handler needs
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, seen := w.seen[last]; last != nil && last != w.before && !seen {
		return nil, false
	}
	denied := w.denied
	w.denied = nil // the caller's now; what other lanes provoke goes on coming in
	return denied, true
}

// Stop ends collecting until the next Begin.
func (w *PublishWatch) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nc = nil
}
