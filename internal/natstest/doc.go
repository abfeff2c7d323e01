// Package natstest runs real nats-servers for tests: in the test's own process (Start), or as a process
// of their own that can be killed (StartProcess). Both take nats-server's configuration syntax and keep their
// port over restarts.
package natstest
