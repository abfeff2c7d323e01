// Package natsconn keeps one connection to a NATS cluster: authentication, TLS, reconnecting with
// backoff, and a log line and a count for every event.
//
// It wraps nats.go where nats.go alone would surprise a relay (v1.55):
//   - it tries for ever, the first connection and wrong credentials included, with exponential
//     backoff and full jitter, and reads credentials and certificates again each time;
//   - many relays that lose one server at once come back spread (see backoff.spread); nats.go makes the first attempt at once
//     when it knows of several servers, and all its clients leave a lame duck in the same instant;
//   - it builds the connection anew when nats.go has closed it for good by itself (a control line
//     that was too long, an unknown -ERR, …);
//   - it never publishes into a reconnect buffer, and gives the caller an Epoch to tell whether the
//     connection was cut between two moments, because a Flush that returns nil does not;
//   - it goes through a SOCKS5 or HTTP proxy, and bounds every handshake by connect_timeout;
//   - a failed write ends the socket (see socket), a cut never waits for nats.go's lock (see Epoch.Cut).
//
// The package knows neither messages nor routes: who publishes and who subscribes does so on the
// *nats.Conn that it hands out. A source and a sink of the same cluster take a Conn each, so
// that a slow consumer cut off by the server does not take the sink along.
package natsconn
