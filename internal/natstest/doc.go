// Package natstest runs real nats-servers for tests: in the test's own process (Start), or as a process
// of their own that can be killed (StartProcess), or as a cluster of such processes (StartCluster). The first two take nats-server's configuration syntax and keep their
// port over restarts.
package natstest
