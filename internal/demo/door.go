package demo

import (
	"io"
	"net"
	"sync"

	"github.com/nats-io/nats-server/v2/server"
)

// A door is the TCP port of a server that does not listen itself. It opens after the receiver behind the
// server has subscribed, and shuts before the receiver leaves: core NATS confirms a message to its publisher even if nobody
// is there to get it, and the demo must not take that for a loss of the relay's.
type door struct {
	srv *server.Server
	ln  net.Listener

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil once shut
	users sync.WaitGroup
}

// openDoor lets connections in. The door owns ln.
func openDoor(ln net.Listener, srv *server.Server) *door {
	d := &door{srv: srv, ln: ln, conns: map[net.Conn]struct{}{}}
	d.users.Go(d.accept)
	return d
}

func (d *door) accept() {
	for {
		outer, err := d.ln.Accept()
		if err != nil {
			return
		}
		inner, err := d.srv.InProcessConn()
		if err != nil {
			outer.Close()
			continue
		}
		d.users.Go(func() { d.carry(inner, outer) })
		d.users.Go(func() { d.carry(outer, inner) })
	}
}

// carry copies until one side ends, and ends the other.
func (d *door) carry(to, from net.Conn) {
	defer to.Close()
	if d.admit(from) {
		_, _ = io.Copy(to, from) // every end is an error of some kind
		d.forget(from)
	}
	from.Close()
}

func (d *door) admit(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conns == nil {
		return false
	}
	d.conns[c] = struct{}{}
	return true
}

func (d *door) forget(c net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
}

// shut refuses new connections, cuts those that there are, and waits until all is quiet.
func (d *door) shut() {
	d.ln.Close()
	d.mu.Lock()
	for c := range d.conns {
		c.Close()
	}
	d.conns = nil
	d.mu.Unlock()
	d.users.Wait()
}
