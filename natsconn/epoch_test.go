package natsconn

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
)

// While an epoch is held nothing can be published on its successor, with one server to go to and with two.
func TestHeldEpochHasNoSuccessor(t *testing.T) {
	for name, servers := range map[string]int{"one server": 1, "two servers": 2} {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, "", func(o *server.Options) { o.Cluster.NoAdvertise = true })
			urls := []string{}
			cut := func() {}
			for range servers {
				p, before := tcpproxy.Start(t, srv.Addr()), cut
				urls, cut = append(urls, "nats://"+p.Addr()), func() { before(); p.Cut() }
			}
			c := open(t, natstest.Config(urls...), natstest.NewLog(t))
			e := waitUp(t, c)
			release, ok := c.Hold(e)
			if !ok {
				t.Fatal("a fresh epoch cannot be held")
			}
			cut()
			<-e.Done()
			natstest.Eventually(t, "publishing fails", func() bool { return e.Conn().Publish("a", nil) != nil })
			for range 100 { // pauses between attempts are 20 ms at most
				if err := e.Conn().Publish("a", nil); err == nil || e.Conn().Status() == nats.CONNECTED {
					t.Fatalf("published on the next connection while the last one was held: %v", err)
				}
				time.Sleep(time.Millisecond)
			}
			if _, ok := c.Hold(e); ok {
				t.Error("an epoch that is over can be held again")
			}
			release()
			next := waitUp(t, c)
			if _, ok := c.Hold(e); ok || next == e {
				t.Error("an epoch that is over can be held beside its successor")
			}
			if release, ok := c.Hold(next); !ok {
				t.Error("the next epoch cannot be held")
			} else {
				release()
			}
		})
	}
}
