package natsconn

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// dialer opens the sockets of one Conn. Unlike nats.go's own it ends with the Conn, looks names
// up under the same deadline, and keeps the socket at hand for Epoch.Cut.
type dialer struct {
	life    context.Context // of the Conn; nats.go's interface has no context to pass
	timeout time.Duration
	sock    atomic.Pointer[socket] // the newest
	addr    atomic.Pointer[string] // the last one tried
	err     atomic.Pointer[error]  // why the last try failed; nil if it did not, or once taken
}

// Dial is called by nats.go, which holds its lock meanwhile.
func (d *dialer) Dial(network, addr string) (net.Conn, error) {
	d.addr.Store(&addr)
	ctx, cancel := context.WithTimeout(d.life, d.timeout)
	defer cancel()
	var nd net.Dialer
	conn, err := nd.DialContext(ctx, network, addr)
	if err != nil {
		d.err.Store(&err)
		return nil, err
	}
	d.err.Store(nil)
	s := &socket{Conn: conn}
	s.unbind = context.AfterFunc(d.life, func() { _ = conn.Close() })
	d.sock.Store(s)
	return s, nil
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

// A socket ends with its first failed write. nats.go drops what it could not write, and goes on
// with the connection if not one byte of it went out (a write that timed out against a full send
// buffer): later PINGs are then answered as if nothing had happened, and messages that were never
// sent would count as confirmed.
type socket struct {
	net.Conn
	unbind func() bool
}

func (s *socket) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	if err != nil {
		_ = s.Close() // err says why
	}
	return n, err
}

func (s *socket) Close() error {
	s.unbind()
	return s.Conn.Close()
}
