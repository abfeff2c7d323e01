package natstest

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// childEnv holds the configuration file of a test binary that is to be a server.
const childEnv = "NATSTEST_SERVER_CONF"

// Main is TestMain's body for packages that use StartProcess: the test binary runs itself again
// as the server.
//
//	func TestMain(m *testing.M) { natstest.Main(m) }
func Main(m *testing.M) {
	if conf := os.Getenv(childEnv); conf != "" {
		if err := serve(conf); err != nil {
			fmt.Fprintln(os.Stderr, "natstest:", err)
			os.Exit(1)
		}
		return
	}
	m.Run() // whose result package testing exits with when TestMain returns
}

func serve(conf string) error {
	opts, err := server.ProcessConfigFile(conf)
	if err != nil {
		return err
	}
	opts.NoSigs, opts.NoLog = true, true
	srv, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	go srv.Start()
	_, err = io.Copy(io.Discard, os.Stdin) // ends with the parent, however that ends
	return err
}

// A Process is a nats-server in a process of its own.
type Process struct {
	t     testing.TB
	conf  string
	port  int
	cmd   *exec.Cmd // nil while it does not run
	stdin io.Closer
}

// StartProcess runs a server with the given configuration, which names no listen address, until
// the test ends. Main must be the package's TestMain.
func StartProcess(t testing.TB, conf string) *Process {
	t.Helper()
	p := &Process{t: t, conf: filepath.Join(t.TempDir(), "nats.conf"), port: FreePort(t)}
	writeConf(t, p.conf, p.port, conf)
	t.Cleanup(p.Kill)
	p.Start()
	return p
}

// Start starts it, again, on its port.
func (p *Process) Start() {
	p.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(exe)
	p.cmd.Env = append(os.Environ(), childEnv+"="+p.conf)
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("start nats-server: %v", err)
	}
	Eventually(p.t, "nats-server process listens", p.listens)
}

func (p *Process) listens() bool {
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		return false
	}
	defer conn.Close()
	n, _ := conn.Read(make([]byte, 1)) // the first byte of INFO
	return n == 1
}

// Kill ends it as kill -9 does, and waits until it is gone.
func (p *Process) Kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // always an error: it was killed
	_ = p.stdin.Close()
	p.cmd = nil
}

// Addr returns host:port.
func (p *Process) Addr() string { return addr(p.port) }

// URL returns the server's URL.
func (p *Process) URL() string { return "nats://" + p.Addr() }

// Client connects straight to the server, and closes with the test.
func (p *Process) Client(opts ...nats.Option) *nats.Conn {
	p.t.Helper()
	return client(p.t, p.URL(), opts)
}
