package natsconn

import (
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
)

// setHandlers registers for every event of nats.go. It calls the handlers one at a time, in order,
// from one goroutine of its own, except those about the next attempt, which the reconnecting goroutine calls.
func (c *Conn) setHandlers(o *nats.Options, s *session) {
	o.ConnectedCB = func(nc *nats.Conn) {
		// A cut right after the connect may have been reported already: ask, do not assume.
		c.state.setUp(nc.IsConnected())
		c.outage.end(c.events.connected(nc))
	}
	o.ReconnectedCB = func(nc *nats.Conn) {
		down := c.state.setUp(true)
		c.outage.end(c.events.reconnected(nc, down))
	}
	o.DisconnectedErrCB = func(_ *nats.Conn, err error) {
		s.leaving.Stop()
		c.state.setUp(false)
		next, moving := c.outage.begin(c.state.lived())
		c.events.disconnected(err, next, moving, c.stopped())
	}
	// Called with nats.go's lock held, before each attempt: nothing of it may be asked.
	o.ReconnectToServerCB = func(pool []nats.Server, _ nats.ServerInfo) (*nats.Server, time.Duration) {
		pause, ok := c.outage.take(c.state.lived())
		if !ok {
			return nil, 0 // the next one in nats.go's list, with CustomReconnectDelayCB after each round
		}
		return successor(pool, c.events.lastURL()), pause
	}
	o.ReconnectErrCB = func(_ *nats.Conn, err error) {
		c.events.countAttempt(err) // a dial that failed; logged with its round
	}
	o.CustomReconnectDelayCB = func(round int) time.Duration {
		c.dialer.waitUnheld()
		pause := c.outage.pause(1 + round)
		c.roundFailed(s, pause)
		return pause
	}
	o.AsyncErrorCB = func(_ *nats.Conn, sub *nats.Subscription, err error) {
		if _, up, _ := c.state.get(); up {
			c.events.async(sub, err)
		} else if isAuth(err) { // an attempt that failed after its dial; what else comes here then is roundFailed's
			c.events.countAttempt(err)
			c.events.attemptFailed(c.dialer.lastAddr(), err, 0)
		}
	}
	o.DiscoveredServersCB = func(nc *nats.Conn) { c.events.discovered(nc.DiscoveredServers()) }
	o.LameDuckModeHandler = func(nc *nats.Conn) { c.leave(nc, s) }
	o.ClosedCB = func(*nats.Conn) {
		s.leaving.Stop()
		c.state.detach() // first: who sees closed must get the successor from Attach
		close(s.closed)
	}
}

// roundFailed logs why the last server of a round could not be connected to. nats.go has passed a failed dial to
// ReconnectErrCB and wrong credentials to AsyncErrorCB; what else fails behind the dial (TLS, no INFO) it
// passes to nobody, or only some of it to AsyncErrorCB, and keeps in LastError.
func (c *Conn) roundFailed(s *session, pause time.Duration) {
	nc := s.nc.Load()
	if nc == nil {
		return
	}
	addr := c.dialer.lastAddr()
	if err := c.dialer.takeErr(); err != nil {
		c.events.attemptFailed(addr, err, pause)
	} else if err := nc.LastError(); err != nil && !isAuth(err) {
		c.events.countAttempt(err)
		c.events.attemptFailed(addr, err, pause)
	}
}

// leave moves away from a server in lame duck mode before it sends us away, while there is somewhere to go. With
// no other server known it stays to the end: the server still works for as long as it is there.
func (c *Conn) leave(nc *nats.Conn, s *session) {
	others := len(nc.Servers()) > 1
	within := c.outage.announce(c.state.lived())
	c.events.lameDuck(others, within)
	if !others {
		return
	}
	s.leaving.Stop()
	s.leaving = time.AfterFunc(rand.N(within), func() {
		c.outage.move()
		_ = nc.ForceReconnect() // an error means that it is closed: nothing to leave
	})
}
