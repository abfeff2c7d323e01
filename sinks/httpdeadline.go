package sinks

import (
	"context"
	"time"
)

// A deadline is a context with a time limit that serves one request after the other. One context.WithTimeout for each request costs
// 4 allocations more, and all lanes meet at the lock of their common parent. It is not for concurrent use.
type deadline struct {
	parent context.Context
	ctx    context.Context // nil: to be made
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

// begin returns a context that ends with its parent, or after the timeout.
func (d *deadline) begin(parent context.Context, timeout time.Duration) context.Context {
	if d.ctx != nil && d.parent == parent && d.ctx.Err() == nil {
		d.timer.Reset(timeout)
		return d.ctx
	}
	d.end()
	ctx, cancel := context.WithCancelCause(parent)
	d.parent, d.ctx, d.cancel = parent, ctx, cancel
	d.timer = time.AfterFunc(timeout, func() { cancel(context.DeadlineExceeded) })
	return ctx
}

// rest stops the clock until the next begin.
func (d *deadline) rest() {
	if !d.timer.Stop() {
		d.end() // what began with it may still be about to see it end
	}
}

// end releases what the deadline holds.
func (d *deadline) end() {
	if d.ctx != nil {
		d.timer.Stop()
		d.cancel(context.Canceled)
		d.ctx = nil
	}
}
