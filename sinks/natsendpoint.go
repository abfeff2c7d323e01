package sinks

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/natsrelay/natsrelay/natsconn"
)

var (
	errNATSDown    = errors.New("not connected")
	errNATSCut     = errors.New("the connection was cut before the batch was confirmed")
	errNATSNoPong  = errors.New("the server did not confirm in time: connecting anew")
	errNATSHeaders = errors.New("the server does not take headers")
)

// natsEndpoint is what the sinks that publish to NATS share: one connection for all lanes.
type natsEndpoint struct {
	conn    *natsconn.Conn
	name    string
	failing atomic.Bool // the last Deliver has reported that the endpoint failed
}

// noteResult remembers how a Deliver ended, for the epoch of the next one.
func (e *natsEndpoint) noteResult(ctx context.Context, err error) {
	e.failing.Store(err != nil && ctx.Err() == nil)
}

// epoch returns the epoch to publish in.
//
// The first Deliver that finds the connection down says so at once. The next one waits until the connection is back
// or ctx ends: it is the gate's probe, and so the messages go out the moment nats.go has reconnected, not
// when a backoff of up to half a minute has run out beside nats.go's own.
func (e *natsEndpoint) epoch(ctx context.Context) (natsconn.Epoch, error) {
	for {
		if epoch, up := e.conn.Epoch(); up {
			return epoch, nil
		}
		if !e.failing.Load() {
			return natsconn.Epoch{}, errNATSDown
		}
		if err := e.conn.WaitConnected(ctx); err != nil {
			return natsconn.Epoch{}, fmt.Errorf("%w: %w", errNATSDown, err)
		}
		runtime.Gosched() // up, but cut again and not reported yet: for as long as an event needs
	}
}
