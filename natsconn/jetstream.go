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

// APISubject returns where the JetStream API of the configured domain takes requests for an operation, such as STREAM.INFO.ORDERS.
func (c *Conn) APISubject(operation string) string {
	if c.cfg.JetStreamDomain == "" {
		return "$JS.API." + operation
	}
	return "$JS." + c.cfg.JetStreamDomain + ".API." + operation
}

// Domain returns the configured JetStream domain; "" is the server's own.
func (c *Conn) Domain() string { return c.cfg.JetStreamDomain }
