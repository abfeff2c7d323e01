package natsconn

import (
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
)

// A link that swallows everything, and says nothing, is noticed by the pings that are not answered, and left at once: neither what
// was published into it nor the lock that a stuck write holds delays that.
func TestHalfOpenLinkIsNoticedAndLeft(t *testing.T) {
	for name, publish := range map[string]bool{"idle": false, "while publishing": true} {
		t.Run(name, func(t *testing.T) {
			srv := natstest.Start(t, "", nil)
			link := tcpproxy.Start(t, srv.Addr())
			cfg := natstest.Config("nats://" + link.Addr())
			cfg.PingInterval, cfg.MaxPingsOut = 500*time.Millisecond, 2
			log := natstest.NewLog(t)
			c := open(t, cfg, log)
			e := waitUp(t, c)
			link.Stall()
			if publish {
				go func() {
					for data := make([]byte, 1000); e.Conn().Publish("a", data) == nil; time.Sleep(time.Millisecond) {
					}
				}()
			}
			natstest.Eventually(t, "noticed", func() bool { return !c.Stats().Connected })
			link.Resume()
			if after := waitUp(t, c); after == e {
				t.Error("the same epoch: the half-open connection was not left")
			}
			if log.Count("disconnected: reconnecting", "stale connection") == 0 { // a stuck write alone would end otherwise, and later
				t.Error("the log does not say why")
			}
		})
	}
}
