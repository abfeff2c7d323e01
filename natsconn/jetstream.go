package natsconn

import (
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// JetStream returns the JetStream API of the configured domain on nc, which is this connection's.
func (c *Conn) JetStream(nc *nats.Conn, opts ...jetstream.JetStreamOpt) (jetstream.JetStream, error) {
	if c.cfg.JetStreamDomain == "" {
		return jetstream.New(nc, opts...)
	}
	return jetstream.NewWithDomain(nc, c.cfg.JetStreamDomain, opts...)
}

// Domain returns the configured JetStream domain; "" is the server's own.
func (c *Conn) Domain() string { return c.cfg.JetStreamDomain }
