package natsconn

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// patience is how long anything may take on a loaded machine that should be done soon.
const patience = time.Minute

func nopLog() zerolog.Logger { return zerolog.Nop() }

// open returns a Conn that is closed with the test.
func open(t *testing.T, cfg *config.NATS, log *natstest.Log) *Conn {
	t.Helper()
	c, err := Open(cfg, Options{Instance: "vm-17", Role: "test", Log: log.Logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(t, c) })
	return c
}

func closeConn(t *testing.T, c *Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func waitUp(t *testing.T, c *Conn) Epoch {
	t.Helper()
	var e Epoch
	natstest.Eventually(t, "connected", func() (up bool) { e, up = c.Epoch(); return up })
	return e
}

func TestConnectsOnceTheServerIsThere(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	srv.Stop()
	log := natstest.NewLog(t)
	c := open(t, natstest.Config(srv.URL()), log)
	natstest.Eventually(t, "failures are counted", func() bool { return c.Stats().Errors[KindConnect] > 3 })
	if _, up := c.Epoch(); up || c.Stats().Connected {
		t.Error("connected without a server")
	}
	srv.Restart()
	waitUp(t, c)
	natstest.Eventually(t, "connect is logged", func() bool {
		return log.Count(`"message":"connected"`, `"nats":"test"`, `"url":"`+srv.URL()+`"`) == 1
	})
	if n := log.Count("cannot connect", "connection refused", srv.Addr(), "next_in"); n != 1 {
		t.Errorf("%d lines about failed attempts, want 1: the others are summed up", n)
	}
}

func TestComesBackAfterKill(t *testing.T) {
	srv := natstest.StartProcess(t, "")
	log := natstest.NewLog(t)
	c := open(t, natstest.Config(srv.URL()), log)
	for range 3 {
		before := waitUp(t, c)
		srv.Kill()
		natstest.Eventually(t, "cut noticed", func() bool { return !c.Stats().Connected })
		srv.Start()
		if after := waitUp(t, c); after == before {
			t.Error("the epoch did not move")
		}
	}
	natstest.Eventually(t, "reconnects counted", func() bool { return c.Stats().Reconnects == 3 })
	st := c.Stats()
	if st.Errors[KindDisconnect] != 3 || log.Count("disconnected: reconnecting", `"error":"EOF"`)+log.Count("disconnected: reconnecting", "reset") != 3 {
		t.Errorf("stats %+v: want 3 cuts, counted and logged with their cause", st)
	}
}

// The trap that Epoch is for: what was published is gone, the flush returns nil, only the epoch tells.
func TestEpochTellsOfACutThatFlushHides(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	proxy := tcpproxy.Start(t, srv.Addr())
	c := open(t, natstest.Config("nats://"+proxy.Addr()), natstest.NewLog(t))
	before := waitUp(t, c)
	if again, up := c.Epoch(); !up || again != before {
		t.Fatal("the epoch moved without a cut")
	}
	proxy.Cut()
	natstest.Eventually(t, "reconnected", func() bool { return c.Stats().Reconnects == 1 })
	if err := before.Conn().Flush(); err != nil {
		t.Fatalf("Flush: %v; nats.go has mended the trap?", err)
	}
	if after, up := c.Epoch(); !up || after == before {
		t.Error("the epoch did not move with the cut")
	}
}

func TestCutEndsOnlyItsOwnEpoch(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	c := open(t, natstest.Config(srv.URL()), natstest.NewLog(t))
	first := waitUp(t, c)
	first.Cut()
	natstest.Eventually(t, "reconnected", func() bool { return c.Stats().Reconnects == 1 })
	second := waitUp(t, c)
	first.Cut()
	if err := second.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	if now, up := c.Epoch(); !up || now != second {
		t.Error("cutting a past epoch has cut the present one")
	}
}

// A server that no longer reads holds nats.go's lock in a write. Neither Cut nor Close may wait for that.
func TestCutAndCloseDoNotWaitForAStalledServer(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	proxy := tcpproxy.Start(t, srv.Addr())
	c := open(t, natstest.Config("nats://"+proxy.Addr()), natstest.NewLog(t))
	e := waitUp(t, c)
	proxy.Stall()
	blocked := make(chan error, 1)
	var published atomic.Int64
	go func() {
		for data := make([]byte, 512<<10); ; published.Add(1) {
			if err := e.Conn().Publish("a", data); err != nil {
				blocked <- err
				return
			}
		}
	}()
	last, still := int64(-1), 0
	natstest.Eventually(t, "the writer is stuck", func() bool {
		if n := published.Load(); n != last {
			last, still = n, 0
		}
		still++
		return still > 50
	})
	e.Cut()
	if err := <-blocked; errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the write has had all its time: %v", err)
	}
	closeConn(t, c)
}

func TestCloseEndsAHandshakeInProgress(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	proxy := tcpproxy.Start(t, srv.Addr())
	proxy.Stall()
	cfg := natstest.Config("nats://" + proxy.Addr())
	cfg.ConnectTimeout = time.Hour
	c := open(t, cfg, natstest.NewLog(t))
	natstest.Eventually(t, "dialled", func() bool { return c.dialer.sock.Load() != nil })
	closeConn(t, c)
	if _, _, err := c.Attach(context.Background()); err != ErrClosed {
		t.Errorf("Attach after Close: %v", err)
	}
}

func TestCloseCutsWhenItsContextEnds(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	proxy := tcpproxy.Start(t, srv.Addr())
	c := open(t, natstest.Config("nats://"+proxy.Addr()), natstest.NewLog(t))
	waitUp(t, c)
	proxy.Stall() // the drain's flush is not answered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if err := c.Close(ctx); err != context.DeadlineExceeded {
		t.Errorf("Close: %v", err)
	}
	if took := time.Since(begun); took > 25*time.Second { // a drain lasts 30
		t.Errorf("took %v", took)
	}
}

// A subject longer than max_control_line makes nats.go close its connection for good.
func TestBuildsAnewWhatTheClientLibraryHasClosed(t *testing.T) {
	srv := natstest.Start(t, "", nil)
	log := natstest.NewLog(t)
	c := open(t, natstest.Config(srv.URL()), log)
	before := waitUp(t, c)
	nc, closed, err := c.Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish(strings.Repeat("x", 5000), nil); err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("the connection was not closed")
	}
	again, _, err := c.Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after := waitUp(t, c); again == nc || after == before || after.Conn() != again {
		t.Error("not a new connection")
	}
	if log.Count(`"level":"error"`, "building the connection anew", "maximum control line exceeded") != 1 {
		t.Error("not logged")
	}
}

// An attempt that fails behind its dial counts once: nats.go tells of some of them in two ways.
func TestFailedAttemptsCountOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	up, attempts := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		defer func() { attempts <- n }()
		for ; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			login(c, n == 0)
			if n == 0 {
				<-up
			}
			c.Close()
		}
	}()
	cfg := natstest.Config("nats://" + l.Addr().String())
	c := open(t, cfg, natstest.NewLog(t))
	waitUp(t, c)
	close(up)
	natstest.Eventually(t, "several attempts have failed", func() bool { return c.Stats().Errors[KindConnect] > 20 })
	closeConn(t, c)
	l.Close()
	if n, counted := <-attempts-1, int(c.Stats().Errors[KindConnect]); counted > n+1 { // the last may not have been accepted
		t.Errorf("%d attempts failed, %d are counted", n, counted)
	}
}

// login is what a server says to a client, or half of it.
func login(c net.Conn, whole bool) {
	io.WriteString(c, "INFO {\"server_id\":\"x\",\"version\":\"2.15.0\",\"proto\":1,\"headers\":true,\"max_payload\":1048576}\r\n")
	for in := bufio.NewScanner(c); in.Scan() && in.Text() != "PING"; {
	}
	if whole {
		io.WriteString(c, "PONG\r\n")
	}
}

const cluster = `
	server_name: %NAME%
	cluster { name: c, listen: "127.0.0.1:%PORT%", routes: ["nats://127.0.0.1:%OTHER%"] }
`

func startCluster(t *testing.T) (a, b *natstest.Server) {
	t.Helper()
	pa, pb := strconv.Itoa(natstest.FreePort(t)), strconv.Itoa(natstest.FreePort(t))
	tune := func(o *server.Options) {
		o.LameDuckGracePeriod, o.LameDuckDuration = 2*patience, 3*patience
	}
	a = natstest.Start(t, strings.NewReplacer("%NAME%", "a", "%PORT%", pa, "%OTHER%", pb).Replace(cluster), tune)
	b = natstest.Start(t, strings.NewReplacer("%NAME%", "b", "%PORT%", pb, "%OTHER%", pa).Replace(cluster), tune)
	return a, b
}

// The grace period is not waited for.
func TestLameDuckIsLeftAtOnce(t *testing.T) {
	a, b := startCluster(t)
	log := natstest.NewLog(t)
	c := open(t, natstest.Config(a.URL()), log) // b is known by discovery only
	waitUp(t, c)
	natstest.Eventually(t, "discovered", func() bool {
		nc, _, err := c.Attach(t.Context())
		return err == nil && len(nc.Servers()) > 1
	})
	a.LameDuck()
	natstest.Eventually(t, "moved", func() bool {
		e, up := c.Epoch()
		return up && strings.HasSuffix(e.Conn().ConnectedUrl(), b.Addr())
	})
	natstest.Eventually(t, "logged", func() bool {
		return log.Count("lame duck", "moving to another one") == 1 && log.Count("reconnected", b.Addr()) == 1
	})
}

// With nowhere to go, the server is good as long as it lasts.
func TestLameDuckIsKeptWhenThereIsNoOther(t *testing.T) {
	srv := natstest.Start(t, "", func(o *server.Options) {
		o.LameDuckGracePeriod, o.LameDuckDuration = 2*patience, 3*patience
	})
	log := natstest.NewLog(t)
	c := open(t, natstest.Config(srv.URL()), log)
	before := waitUp(t, c)
	srv.LameDuck()
	natstest.Eventually(t, "logged", func() bool { return log.Count("lame duck", "staying") == 1 })
	if err := before.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	if now, up := c.Epoch(); !up || now != before {
		t.Error("left the only server")
	}
}

func TestAsyncErrorsAreLoggedCountedAndPassedOn(t *testing.T) {
	srv := natstest.Start(t, `authorization { users: [{user: u, password: p, permissions: {publish: "ok.>", subscribe: "ok.>"}}] }`, nil)
	cfg := natstest.Config(srv.URL())
	cfg.User, cfg.Password = "u", "p"
	log := natstest.NewLog(t)
	c := open(t, cfg, log)
	e := waitUp(t, c)
	heard := make(chan error, 10)
	remove := c.OnError(func(err error) { heard <- err })
	watch := c.WatchPublish()
	defer watch.Close()

	watch.Begin(e)
	_ = e.Conn().Publish("not.ok", nil)
	_ = e.Conn().Publish("ok.yes", nil)
	_, _ = e.Conn().QueueSubscribe("not.sub", "q", func(*nats.Msg) {})
	if err := e.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	denied, err := watch.Denied(t.Context())
	watch.Stop()
	if err != nil || len(denied) != 1 || denied["not.ok"] == nil {
		t.Errorf("denied %v, %v; want not.ok", denied, err)
	}
	for _, want := range []string{`not permitted to publish to "not.ok"`, `not permitted to subscribe to "not.sub" in queue group "q"`} {
		if got := <-heard; got.Error() != want {
			t.Errorf("heard %q, want %q", got, want)
		}
		if log.Count(`"level":"error"`, strings.ReplaceAll(want, `"`, `\"`)) != 1 {
			t.Errorf("not logged: %s", want)
		}
	}
	remove()
	if n := c.Stats().Errors[KindPermission]; n != 2 {
		t.Errorf("%d permission errors counted, want 2", n)
	}
}

// The handler's queue is slower than the wire: whoever asks right after the flush must still get the answer.
func TestPublishWatchWaitsForALateHandler(t *testing.T) {
	srv := natstest.Start(t, `authorization { users: [{user: u, password: p, permissions: {publish: "ok.>"}}] }`, nil)
	cfg := natstest.Config(srv.URL())
	cfg.User, cfg.Password = "u", "p"
	c := open(t, cfg, natstest.NewLog(t))
	e := waitUp(t, c)
	release := make(chan struct{})
	defer c.OnError(func(error) { <-release })()
	watch := c.WatchPublish()
	defer watch.Close()
	watch.Begin(e)
	defer watch.Stop()
	_ = e.Conn().Publish("first", nil)
	_ = e.Conn().Publish("second", nil)
	if err := e.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { close(release) })
	denied, err := watch.Denied(t.Context())
	if err != nil || denied["first"] == nil || denied["second"] == nil {
		t.Errorf("denied %v, %v; want both", denied, err)
	}
}
