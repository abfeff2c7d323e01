package natsconn

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natsrelay/natsrelay/config"
)

// A herdServer speaks as much of NATS as a client needs to be content, over pipes, in the fake time of a synctest bubble; all else
// in these tests, backoff and nats.go included, is the real thing.
type herdServer struct {
	down     bool
	process  int // how often it has been started
	conns    map[net.Conn]struct{}
	attempts []time.Time
	mu       chan struct{} // a mutex that synctest counts as waiting
}

func newHerdServer() *herdServer {
	return &herdServer{conns: make(map[net.Conn]struct{}), mu: make(chan struct{}, 1)}
}

func (s *herdServer) locked(do func()) {
	s.mu <- struct{}{}
	defer func() { <-s.mu }()
	do()
}

// dial is the dialFunc of its clients.
func (s *herdServer) dial(context.Context, string, string) (near net.Conn, err error) {
	s.locked(func() {
		s.attempts = append(s.attempts, time.Now())
		if s.down {
			err = syscall.ECONNREFUSED
			return
		}
		var far net.Conn
		near, far = net.Pipe()
		s.conns[far] = struct{}{}
		go s.serve(far, s.process)
	})
	return near, err
}

func (s *herdServer) serve(c net.Conn, process int) {
	defer s.locked(func() { delete(s.conns, c) })
	defer c.Close()
	// A pipe has no buffer, unlike a socket: what is said waits here, or both ends could wait for each other.
	out := make(chan string, 100)
	defer close(out)
	go func() {
		for line := range out {
			_, _ = io.WriteString(c, line) // an error: the reader sees it, too
		}
	}()
	out <- fmt.Sprintf(`INFO {"server_id":"P%d","version":"2.15.0","proto":1,"headers":true,"max_payload":1048576}`+"\r\n", process)
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if strings.HasPrefix(line, "PING") {
			out <- "PONG\r\n"
		}
	}
}

// cut drops all clients.
func (s *herdServer) cut() {
	s.locked(func() {
		for c := range s.conns {
			_ = c.Close()
		}
	})
}

// crash drops all clients, and is back after a while, as another process. It returns when they are all back, too.
func (s *herdServer) crash(t *testing.T, away time.Duration, clients []*Conn) (peak int, back time.Duration) {
	s.locked(func() { s.down, s.attempts = true, nil })
	s.cut()
	synctest.Wait() // until they have noticed
	time.Sleep(away)
	s.locked(func() { s.down = false; s.process++ })
	return s.allBack(t, clients)
}

// allBack waits until all clients are connected, and returns the most attempts in any one second, and how long it took.
func (s *herdServer) allBack(t *testing.T, clients []*Conn) (peak int, took time.Duration) {
	begun := time.Now()
	for ; slices.ContainsFunc(clients, func(c *Conn) bool { return !c.Stats().Connected }); time.Sleep(100 * time.Millisecond) {
		if time.Since(begun) > time.Hour {
			t.Fatal("not all are back within an hour")
		}
	}
	took = time.Since(begun)
	s.locked(func() {
		for i, j := 0, 0; j < len(s.attempts); j++ {
			for s.attempts[j].Sub(s.attempts[i]) >= time.Second {
				i++
			}
			peak = max(peak, j-i+1)
		}
	})
	return peak, took
}

// herd opens clients with the default settings, and lets them live for a while.
func (s *herdServer) herd(n int, seed uint64, live time.Duration) []*Conn {
	cfg := &config.NATS{
		Name: "hub", URLs: []string{"nats://hub:4222"}, PingInterval: 10 * time.Minute, MaxPingsOut: 3, ConnectTimeout: 5 * time.Second,
		Reconnect: config.Backoff{Min: 250 * time.Millisecond, Max: 30 * time.Second},
	}
	clients := make([]*Conn, n)
	for i := range clients {
		c := newConn(cfg, Options{Log: nopLog()}, s.dial)
		c.outage.backoff.random = rand.New(rand.NewPCG(seed, uint64(i))).Int64N
		go c.run("relay")
		clients[i] = c
	}
	time.Sleep(live)
	return clients
}

func closeAll(t *testing.T, clients []*Conn) {
	for _, c := range clients {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
	synctest.Wait()
}

// bubble runs a test in fake time. nats.go keeps timers in a global pool, and those of one bubble must not be used in another, or
// outside: two garbage collections empty it.
func bubble(t *testing.T, test func(*testing.T)) {
	empty := func() { runtime.GC(); runtime.GC() }
	empty()
	defer empty()
	synctest.Test(t, test)
}

// 500 relays lose their server at once. However long it is away, and when it goes down again as soon as they are back, it never
// sees a tenth of them in one second.
func TestHerdComesBackSpread(t *testing.T) {
	const relays = 500
	for _, away := range []time.Duration{0, time.Second, 10 * time.Second, time.Minute, 10 * time.Minute} {
		t.Run("away for "+away.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				server := newHerdServer()
				clients := server.herd(relays, uint64(away), 25*time.Minute)
				for range 3 {
					peak, back := server.crash(t, away, clients)
					t.Logf("most attempts in a second: %d of %d; all back after %v", peak, relays, back)
					if peak >= relays/10 {
						t.Errorf("%d attempts in a second, want less than a tenth of %d", peak, relays)
					}
					if back > 31*time.Second {
						t.Errorf("all back after %v, want max at most", back)
					}
					time.Sleep(30 * time.Second)
				}
				closeAll(t, clients)
			})
		})
	}
}

// What it costs the one that is cut alone: at most a sixtieth of the time that its connection had lived, and never more than 20 s.
func TestCutAloneIsShort(t *testing.T) {
	for _, c := range []struct{ lived, most time.Duration }{
		{15 * time.Second, 250 * time.Millisecond},
		{time.Minute, time.Second},
		{5 * time.Minute, 5 * time.Second},
		{24 * time.Hour, 20 * time.Second},
	} {
		t.Run("after "+c.lived.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				server := newHerdServer()
				var sum, most time.Duration
				const relays = 20
				for seed := range uint64(relays) {
					clients := server.herd(1, seed, c.lived)
					begun := time.Now()
					server.cut()
					synctest.Wait()
					if err := clients[0].WaitConnected(t.Context()); err != nil {
						t.Fatal(err)
					}
					took := time.Since(begun)
					sum, most = sum+took, max(most, took)
					closeAll(t, clients)
				}
				t.Logf("back after %v on average, %v at most", sum/relays, most)
				if most > c.most {
					t.Errorf("back after %v, want %v at most", most, c.most)
				}
			})
		})
	}
}
