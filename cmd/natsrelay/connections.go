package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/natsconn"
	"github.com/rs/zerolog"
)

// closeTimeout bounds the farewell to the NATS servers, when all else of a route has ended.
const closeTimeout = 3 * time.Second

// connections are those of all routes that are open.
type connections struct {
	log zerolog.Logger

	mu      sync.Mutex
	byRoute map[string][]*natsconn.Conn
}

func newConnections(log zerolog.Logger) *connections {
	return &connections{log: log, byRoute: map[string][]*natsconn.Conn{}}
}

func (c *connections) add(route string, conn *natsconn.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byRoute[route] = append(c.byRoute[route], conn)
}

// status returns how all of them stand.
func (c *connections) status() []admin.Connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []admin.Connection
	for _, conns := range c.byRoute {
		for _, conn := range conns {
			st := conn.Stats()
			errs := make(map[string]uint64, len(st.Errors))
			for kind, n := range st.Errors {
				errs[string(kind)] = n
			}
			all = append(all, admin.Connection{Name: conn.Name(), Connected: st.Connected, Reconnects: st.Reconnects, Errors: errs, Failure: st.Failure})
		}
	}
	return all
}

// close ends the connections of a route: in order, even if ctx has ended.
func (c *connections) close(ctx context.Context, route string) {
	c.mu.Lock()
	conns := slices.Clone(c.byRoute[route])
	delete(c.byRoute, route)
	c.mu.Unlock()
	farewell, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	for _, conn := range conns {
		if err := conn.Close(farewell); err != nil {
			c.log.Warn().Err(err).Str("route", route).Str("nats", conn.Name()).Msg("a connection was cut, not drained")
		}
	}
}
