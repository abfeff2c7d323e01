package natsconn

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// errHeld: nats.go tries again at once, or after a pause, and by then whoever publishes has found out.
var errHeld = errors.New("somebody still publishes on the connection that was cut")

// dialer opens the sockets of one Conn. Unlike nats.go's own it ends with the Conn, looks names
// up under the same deadline, and keeps the socket at hand for Epoch.Cut.
type dialer struct {
	life    context.Context // of the Conn; nats.go's interface has no context to pass
	dial    dialFunc
	timeout time.Duration
	sock    atomic.Pointer[socket] // the newest
	addr    atomic.Pointer[string] // the last one tried
	err     atomic.Pointer[error]  // why the last try failed; nil if it did not, or once taken
	held    sync.RWMutex           // for reading: Epoch.Hold; for writing: a dial, from its beginning to the new socket
}

// Dial is called by nats.go, which holds its lock meanwhile.
func (d *dialer) Dial(network, addr string) (net.Conn, error) {
	d.addr.Store(&addr)
	if !d.held.TryLock() {
		d.err.Store(&errHeld)
		return nil, errHeld
	}
	defer d.held.Unlock()
	ctx, cancel := context.WithTimeout(d.life, d.timeout)
	defer cancel()
	conn, err := d.dial(ctx, network, addr)
	if err != nil {
		d.err.Store(&err)
		return nil, err
	}
	// For wss://, nats.go (1.55) makes its TLS handshake without a deadline, with its lock held. For all others it
	// sets one of its own, and when the handshakes are done it clears this one.
	_ = conn.SetDeadline(time.Now().Add(d.timeout))
	d.err.Store(nil)
	s := newSocket(conn, context.AfterFunc(d.life, func() { _ = conn.Close() }))
	d.sock.Store(s)
	return s, nil
}

// waitUnheld waits until nobody publishes any more on the socket that was cut.
func (d *dialer) waitUnheld() {
	d.held.Lock()
	d.held.Unlock() //lint:ignore SA2001 nobody has held it for a moment: that was it
}

func (d *dialer) lastAddr() string {
	if a := d.addr.Load(); a != nil {
		return *a
	}
	return ""
}

func (d *dialer) takeErr() error {
	if err := d.err.Swap(nil); err != nil {
		return *err
	}
	return nil
}
