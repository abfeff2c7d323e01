package natstest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// patience is how long any single step of a test server may take on a loaded machine.
const patience = 60 * time.Second

// A Server is a nats-server inside the test's process.
type Server struct {
	t    testing.TB
	conf string // path
	port int
	tune func(*server.Options)

	mu   sync.Mutex
	srv  *server.Server
	ldms sync.WaitGroup
}

// Start runs a server with the given configuration, which names no listen address, on a free
// loopback port until the test ends. tune may be nil; it changes what the syntax does not allow.
func Start(t testing.TB, conf string, tune func(*server.Options)) *Server {
	t.Helper()
	s := &Server{t: t, conf: filepath.Join(t.TempDir(), "nats.conf"), port: FreePort(t), tune: tune}
	writeConf(t, s.conf, s.port, conf)
	t.Cleanup(s.Stop)
	s.Restart()
	return s
}

// Stop shuts the server down and waits until its port is free.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv != nil {
		s.srv.Shutdown()
		s.srv.WaitForShutdown()
		s.srv = nil
	}
	s.ldms.Wait()
}

// Restart starts the server, again, on its port.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	opts, err := server.ProcessConfigFile(s.conf)
	if err != nil {
		s.t.Fatalf("nats-server configuration: %v", err)
	}
	opts.NoSigs, opts.NoLog = true, true
	if s.tune != nil {
		s.tune(opts)
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		s.t.Fatalf("nats-server: %v", err)
	}
	go srv.Start() // ends with the server: Stop waits for that
	if !srv.ReadyForConnections(patience) {
		s.t.Fatal("nats-server: not ready")
	}
	s.srv = srv
}

// Reload replaces the configuration of the running server.
func (s *Server) Reload(conf string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	writeConf(s.t, s.conf, s.port, conf)
	if err := s.srv.Reload(); err != nil {
		s.t.Fatalf("reload nats-server: %v", err)
	}
}

// LameDuck begins a lame duck shutdown and returns. tune sets its durations.
func (s *Server) LameDuck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	srv := s.srv
	s.ldms.Go(srv.LameDuckShutdown)
}

// NumClients returns how many clients are connected.
func (s *Server) NumClients() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return 0
	}
	return s.srv.NumClients()
}

// Interest returns how many subscriptions a message on the subject matches.
func (s *Server) Interest(subject string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srv == nil {
		return 0
	}
	z, err := s.srv.Subsz(&server.SubszOptions{Subscriptions: true, Test: subject})
	if err != nil {
		s.t.Errorf("subscriptions of nats-server: %v", err)
		return 0
	}
	return len(z.Subs)
}

// Addr returns host:port.
func (s *Server) Addr() string { return addr(s.port) }

// URL returns the server's URL.
func (s *Server) URL() string { return "nats://" + s.Addr() }

// Client connects straight to the server, and closes with the test.
func (s *Server) Client(opts ...nats.Option) *nats.Conn {
	s.t.Helper()
	return client(s.t, s.URL(), opts)
}

func client(t testing.TB, url string, opts []nats.Option) *nats.Conn {
	t.Helper()
	opts = append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(10 * time.Millisecond), nats.Timeout(patience)}, opts...)
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatalf("connect straight to %s: %v", url, err)
	}
	t.Cleanup(nc.Close)
	return nc
}

var taken sync.Map // ports that FreePort has returned

// FreePort returns a loopback port that nobody listens on, another one each time. It is below those that a kernel chooses by itself, 32768 and up on
// Linux: so nobody else gets it until it is listened on, nor while whoever uses it is away. Tests in other processes do not get it while this one
// lasts: its number is taken by a socket of UDP, too, which is in nobody's way.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 10_000 + rand.IntN(10_000) // from 20,000 on, natsrelay demo chooses its own
		mark, err := net.ListenPacket("udp", addr(port))
		if err != nil {
			continue
		}
		// Not by listening: a process that is started meanwhile has the listener, too, until it is another program, and then the port is in use.
		c, err := net.Dial("tcp", addr(port))
		if err == nil {
			c.Close()
		}
		if _, again := taken.LoadOrStore(port, true); err != nil && !again {
			t.Cleanup(func() { mark.Close() })
			return port
		}
		mark.Close()
	}
	t.Fatal("no free port")
	return 0
}

func addr(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

func writeConf(t testing.TB, path string, port int, conf string) {
	t.Helper()
	conf = fmt.Sprintf("listen: %q\n%s\n", addr(port), conf)
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Eventually waits until cond holds, and fails the test if it does not in good time.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}
