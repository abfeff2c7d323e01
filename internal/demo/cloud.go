package demo

import (
	"context"
	"fmt"
	"net"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// A cloud is the far NATS server of the demo with a receiver on it.
type cloud struct {
	addr  string
	tally *tally

	srv    *server.Server // nil while away
	nc     *nats.Conn
	closed chan struct{} // closed when nc has handed over its last message
	door   *door
}

// newCloud returns a server that is there.
func newCloud(t *tally) (*cloud, error) {
	ln, err := listenLow()
	if err != nil {
		return nil, err
	}
	c := &cloud{addr: ln.Addr().String(), tally: t}
	if err := c.serve(ln); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *cloud) serve(ln net.Listener) (err error) {
	if c.srv, err = startServer("cloud", false); err != nil {
		ln.Close()
		return err
	}
	if err = c.subscribe(); err != nil {
		ln.Close()
		stopServer(c.srv)
		c.srv = nil
		return fmt.Errorf("subscribe on the cloud server: %w", err)
	}
	c.door = openDoor(ln, c.srv)
	return nil
}

func (c *cloud) subscribe() error {
	closed := make(chan struct{})
	nc, err := nats.Connect("", nats.InProcessServer(c.srv), nats.NoReconnect(), nats.Name("demo receiver"),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		return err
	}
	sub, err := nc.Subscribe(subjects, func(m *nats.Msg) { c.tally.add(m.Subject, m.Data) })
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		nc.Close()
		return err
	}
	c.nc, c.closed = nc, closed
	return nil
}

// leave shuts the port, lets the receiver count what the server had confirmed by then, and shuts the server down.
func (c *cloud) leave(ctx context.Context) error {
	if c.srv == nil {
		return nil
	}
	c.door.shut()
	onlyReceiver := func() (bool, error) { return c.srv.NumClients() <= 1, nil }
	err := poll(ctx, patience, "the cloud server lets its clients go", onlyReceiver)
	if err == nil {
		err = c.nc.Drain()
	}
	if err != nil {
		c.nc.Close()
	}
	<-c.closed
	stopServer(c.srv)
	c.srv = nil
	return err
}

// back starts a new server on the port of the old one.
func (c *cloud) back() error {
	ln, err := net.Listen("tcp", c.addr)
	if err != nil {
		return fmt.Errorf("bring the cloud server back: %w", err)
	}
	return c.serve(ln)
}
