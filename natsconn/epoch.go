package natsconn

import "github.com/nats-io/nats.go"

// An Epoch is one life of the socket. Two equal Epochs mean that the connection was not cut
// between the two moments they were taken at.
//
// It is what makes a PONG a confirmation. Flush alone is not one: when it starts while nats.go
// reconnects, it is answered by the next server, and returns nil for messages that went down
// with the old socket (650-1,400 of them were lost in ~65 cuts). So: take the Epoch, publish,
// flush, take the Epoch again; only if both are valid and equal has the server read it all.
type Epoch struct {
	nc         *nats.Conn
	sock       *socket
	reconnects uint64
}

// Epoch returns the present epoch; false means that the connection is down.
func (c *Conn) Epoch() (Epoch, bool) {
	s, up, _ := c.state.get()
	if !up {
		return Epoch{}, false
	}
	// nats.go raises its count with the lock held from before the dial until it is connected
	// again. The count read on both sides of the status makes the three belong together. The
	// status matters: between a cut and the next connection the count is still the old one, and
	// a PONG that the old reader had buffered may end a Flush that began after the cut.
	nc := s.nc.Load()
	before := nc.Stats().Reconnects
	status, sock := nc.Status(), c.dialer.sock.Load()
	after := nc.Stats().Reconnects
	if status != nats.CONNECTED || before != after {
		return Epoch{}, false
	}
	return Epoch{nc: nc, sock: sock, reconnects: after}, true
}

// Conn returns the handle to publish on.
func (e Epoch) Conn() *nats.Conn { return e.nc }

// Done is closed when the epoch is over. What the server had sent until then may still be on its way through nats.go.
func (e Epoch) Done() <-chan struct{} { return e.sock.closed }

// Hold makes sure that what the caller publishes until release goes out in this epoch or not at all; false means that the epoch
// is over. Without it a run of publishes may lose some to a cut in the middle, and go on as if nothing had happened on the
// next connection: a stream then has the end of the run, and not its middle.
//
// Nothing is dialled while an epoch is held, so do not wait for anything meanwhile; publishing fails at once after a cut.
func (c *Conn) Hold(e Epoch) (release func(), ok bool) {
	if !c.dialer.held.TryRLock() {
		return nil, false
	}
	if c.dialer.sock.Load() != e.sock {
		c.dialer.held.RUnlock()
		return nil, false
	}
	return c.dialer.held.RUnlock, true
}

// Cut ends this epoch: it closes the socket, and nats.go reconnects. It never blocks, unlike
// nats.go's ForceReconnect, which first flushes, under its lock, to a server that may have stopped
// reading. An epoch that has passed stays passed; its successor is not touched.
func (e Epoch) Cut() {
	if e.sock != nil {
		_ = e.sock.Close() // closed before: that is what was wanted
	}
}
