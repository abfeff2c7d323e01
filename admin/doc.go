// Package admin is how a running relay is looked after over HTTP: health, metrics, status, events, pauses, and what its routes keep
// on disk. docs/admin.md describes it from outside.
//
// It is made for a loopback address or a Unix socket. Whoever reaches it there may use it, but for web pages: requests for a
// host name that is not this machine's are refused (DNS rebinding), and so are those that change something for another origin
// (cross-site request forgery). Elsewhere it wants a token. Nothing that a client does, or leaves undone, costs the relay more than
// a bounded number of connections, bytes and goroutines.
//
// The package knows the relay, and nothing of sources, sinks and configuration: what it needs of those is in Options.
package admin
