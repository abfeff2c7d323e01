package natsconn

import (
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

// Of several servers any one will do. When it goes, another one is taken.
func TestAnotherServerIsTaken(t *testing.T) {
	a, b := natstest.Start(t, "", nil), natstest.Start(t, "", nil)
	dead := natstest.Start(t, "", nil)
	dead.Stop()
	c := open(t, natstest.Config(dead.URL(), a.URL(), b.URL()), natstest.NewLog(t))
	for range 4 {
		here, there := a, b
		if strings.HasSuffix(waitUp(t, c).Conn().ConnectedUrl(), b.Addr()) {
			here, there = b, a
		}
		here.Stop()
		natstest.Eventually(t, "at the other one", func() bool {
			e, up := c.Epoch()
			return up && strings.HasSuffix(e.Conn().ConnectedUrl(), there.Addr())
		})
		here.Restart()
	}
}

// Many relays with the same list spread over it.
func TestServersAreTakenAtRandom(t *testing.T) {
	a, b := natstest.Start(t, "", nil), natstest.Start(t, "", nil)
	var conns []*Conn
	for range 20 {
		conns = append(conns, open(t, natstest.Config(a.URL(), b.URL()), natstest.NewLog(t)))
	}
	for _, c := range conns {
		waitUp(t, c)
	}
	if a.NumClients() == 0 || b.NumClients() == 0 { // one in half a million
		t.Errorf("%d at one server, %d at the other", a.NumClients(), b.NumClients())
	}
}

// Servers that the cluster tells of join those of the configuration, unless it says otherwise.
func TestDiscoveredServers(t *testing.T) {
	a, b := startCluster(t)
	for name, ignore := range map[string]bool{"used": false, "ignored": true} {
		t.Run(name, func(t *testing.T) {
			cfg := natstest.Config(a.URL())
			cfg.IgnoreDiscovered = ignore
			c := open(t, cfg, natstest.NewLog(t))
			nc := waitUp(t, c).Conn()
			knows := func() bool {
				return slices.ContainsFunc(nc.Servers(), func(s string) bool { return strings.HasSuffix(s, b.Addr()) })
			}
			if !ignore {
				natstest.Eventually(t, "discovered", knows)
				return
			}
			natstest.Eventually(t, "told of by the server", func() bool { return told(t, a, b.Addr()) })
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			if knows() {
				t.Errorf("knows %v", nc.Servers())
			}
		})
	}
}

// told says whether a new client of the one server is told of the other.
func told(t *testing.T, s *natstest.Server, other string) bool {
	nc := s.Client()
	defer nc.Close()
	return slices.ContainsFunc(nc.DiscoveredServers(), func(s string) bool { return strings.HasSuffix(s, other) })
}

// What the server takes in one message may be another size after each reconnect.
func TestMaxPayloadIsThatOfTheServer(t *testing.T) {
	large, small := natstest.Start(t, "max_payload: 64KB", nil), natstest.Start(t, "max_payload: 1KB", nil)
	small.Stop()
	c := open(t, natstest.Config(large.URL(), small.URL()), natstest.NewLog(t))
	if got := waitUp(t, c).Conn().MaxPayload(); got != 64<<10 {
		t.Errorf("max_payload %d at the large one", got)
	}
	small.Restart()
	large.Stop()
	natstest.Eventually(t, "the small one's limit holds", func() bool {
		e, up := c.Epoch()
		return up && e.Conn().MaxPayload() == 1<<10
	})
	e := waitUp(t, c)
	if err := e.Conn().Publish("a", make([]byte, 2<<10)); err != nats.ErrMaxPayload {
		t.Errorf("Publish: %v", err)
	}
}
