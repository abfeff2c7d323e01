package sources

import (
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/natsconn"
)

func permitting(subjects string) string {
	return fmt.Sprintf(`authorization { users: [
		{user: u, password: p, permissions: {subscribe: [%s]}}, {user: admin, password: p}] }`, subjects)
}

func TestCoreDeniedSubscriptionIsReportedAndTriedForEver(t *testing.T) {
	for _, queue := range []string{"", "g"} {
		t.Run("queue="+queue, func(t *testing.T) {
			srv := natstest.Start(t, permitting(`"ok"`), nil)
			cfg := natstest.Config(srv.URL())
			cfg.User, cfg.Password = "u", "p"
			h := prepare(t, cfg, queue, "ok", "no")
			h.run()
			natstest.Eventually(t, "denied", func() bool { return h.src.Stats().Denied == 1 })
			admin := srv.Client(nats.UserInfo("admin", "p"))
			h.waitSubscribed(admin) // the other subject is not affected
			violations := h.conn.Stats().Errors[natsconn.KindPermission]
			natstest.Eventually(t, "tried again", func() bool { return h.conn.Stats().Errors[natsconn.KindPermission] > violations+2 })
			if n := h.log.Count("the server denies the subscription", `"subject":"no"`); n != 1 {
				t.Errorf("%d lines, want one", n)
			}
			srv.Reload(permitting(`"ok", "no"`))
			natstest.Eventually(t, "permitted", func() bool {
				publish(t, admin, "no", "works now")
				return slices.Contains(h.data(), "works now")
			})
			natstest.Eventually(t, "state cleared", func() bool { return h.src.Stats().Denied == 0 })

			srv.Reload(permitting(`"ok"`)) // and taken away again
			natstest.Eventually(t, "denied again", func() bool { return h.src.Stats().Denied == 1 })
			if err := h.stop(); err != nil {
				t.Fatal(err)
			}
			if got := h.src.Stats().Denied; got != 0 {
				t.Errorf("%d subjects denied after the end", got)
			}
		})
	}
}

// A subscription that is permitted with a new connection has messages: they are not lost for the sake of trying it again.
func TestCorePermittedWithANewConnection(t *testing.T) {
	srv := natstest.Start(t, permitting(`"ok"`), nil)
	cfg := natstest.Config(srv.URL())
	cfg.User, cfg.Password = "u", "p"
	h := prepare(t, cfg, "", "no")
	again := make(chan struct{})
	h.src.deniedPause = func(attempt int) time.Duration {
		if attempt > 0 {
			<-again
		}
		return 0
	}
	h.run()
	natstest.Eventually(t, "denied", func() bool { return h.src.Stats().Denied == 1 })
	srv.Reload(permitting(`"ok", "no"`))
	srv.Restart()
	admin := srv.Client(nats.UserInfo("admin", "p"))
	natstest.Eventually(t, "subscribed with the new connection", func() bool {
		return srv.Interest("no") == 1 && h.conn.Stats().Reconnects > 0
	})
	const n = 5000
	h.fill(admin, n, "no")
	close(again)
	close(h.hold)
	natstest.Eventually(t, "state cleared", func() bool { return h.src.Stats().Denied == 0 })
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	if got := h.data(); len(got) != n || got[n-1] != strconv.Itoa(n-1) {
		t.Errorf("%d messages passed on, want %d", len(got), n)
	}
}

// What came on a subscription before it was denied is the route's, however long that takes for it.
func TestCoreDeniedSubscriptionHoldsMessages(t *testing.T) {
	srv := natstest.Start(t, permitting(`"a"`), nil)
	cfg := natstest.Config(srv.URL())
	cfg.User, cfg.Password = "u", "p"
	h := prepare(t, cfg, "", "a")
	var tried atomic.Int64
	h.src.deniedPause = func(attempt int) time.Duration {
		tried.Store(int64(attempt))
		return 0
	}
	h.run()
	admin := srv.Client(nats.UserInfo("admin", "p"))
	h.waitSubscribed(admin)
	const n = 1000
	h.fill(admin, n, "a")
	srv.Reload(permitting(`"other"`))
	natstest.Eventually(t, "tried again", func() bool { return tried.Load() > 2 })
	close(h.hold)
	natstest.Eventually(t, "the route has it all", func() bool { return h.count() == n })
	srv.Reload(permitting(`"a"`))
	h.waitSubscribed(admin)
}
