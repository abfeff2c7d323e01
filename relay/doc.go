// Package relay is the engine: it takes messages from a source, keeps them in an ordered buffer, and delivers
// them to a sink until the sink has confirmed them.
//
// The path of one message, top to bottom:
//
//	Source.Run ─► Route.accept ─► buffer.put ─► (memory │ spool) ─► buffer.take ─► lane ─► gate ─► Sink.Deliver
//	                                  ▲                                                               │
//	                                  └────────────────────── buffer.settle ◄─────────────────────────┘
//
// In accept a message passes the route's stage (stage.go: filter and transformation, which others make) and the loop guard. A request,
// which somebody waits for an answer to, goes from there straight to a sink that answers (direct.go).
//
// source.go and sink.go are the two interfaces (and batch.go a sink's that streams), route.go ties the parts of one route together, buffer.go and
// keeper.go hold the messages (memory and disk), delivery.go moves them, gate.go decides when an endpoint may be
// tried, deadletter.go sees to those that are given up, upstream.go to those that somebody upstream keeps until then: it has receipts
// (receipt.go) to settle. relay.go starts, changes and stops a set of routes,
// and runner.go keeps each of them going.
//
// The package knows neither NATS nor HTTP nor TOML: those live in sources, sinks and config.
package relay
