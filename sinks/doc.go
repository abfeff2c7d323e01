// Package sinks holds what messages are delivered to: HTTP endpoints and NATS servers. A sink makes one attempt and says what
// became of it; when to try again, in which order, and what to do with a message that is refused is the engine's business
// (package relay). Sinks take their settings from package config, and their NATS connections from package natsconn.
package sinks
