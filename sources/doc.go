// Package sources holds what brings messages into a route: one file a kind, each implementing
// relay.Source.
//
// A source only hands over. It knows the far side and relay's interface; filters, buffers, order
// and delivery are the route's.
package sources
