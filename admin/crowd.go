package admin

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// A crowd bounds the connections of a server. When there are too many, the one that has been without a request for the longest
// time is closed, so that a thousand idle ones cost little and keep nobody out.
type crowd struct {
	most int

	mu    sync.Mutex
	conns map[net.Conn]*list.Element // in quiet, or nil while it has a request
	quiet *list.List                 // of net.Conn, longest first
}

func newCrowd(most int) *crowd {
	return &crowd{most: most, conns: map[net.Conn]*list.Element{}, quiet: list.New()}
}

// changed is for http.Server.ConnState. A connection is new, or idle, until it has sent all headers of a request: one that
// sends them a byte at a time is quiet, too.
func (c *crowd) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.conns[conn]; e != nil {
		c.quiet.Remove(e)
	}
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(c.conns, conn)
	case http.StateActive:
		c.conns[conn] = nil
	default:
		c.conns[conn] = c.quiet.PushBack(conn)
	}
	if len(c.conns) > c.most && c.quiet.Len() > 0 {
		longest := c.quiet.Remove(c.quiet.Front()).(net.Conn)
		delete(c.conns, longest)
		_ = longest.Close() // whatever it says, it is gone
	}
}
