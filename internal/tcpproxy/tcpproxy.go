// Package tcpproxy is a TCP proxy for tests that misbehaves on demand: it cuts connections, refuses
// them, and stalls. It knows nothing of what it carries.
package tcpproxy

import (
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

// A Proxy forwards connections to one target. All methods may be called from any goroutine.
type Proxy struct {
	target, addr string

	mu       sync.Mutex
	listener net.Listener // nil while refusing
	conns    map[net.Conn]struct{}
	flow     chan struct{} // closed while bytes flow
	wg       sync.WaitGroup
}

// Start listens on a loopback port of its own choice, until the test ends.
func Start(t testing.TB, target string) *Proxy {
	t.Helper()
	flow := make(chan struct{})
	close(flow)
	p := &Proxy{target: target, addr: "127.0.0.1:" + strconv.Itoa(natstest.FreePort(t)), conns: make(map[net.Conn]struct{}), flow: flow}
	if err := p.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// Addr returns host:port; it stays the same through Refuse and Accept.
func (p *Proxy) Addr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// Cut closes all connections, in both directions, and returns how many there were.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.conns)
	for c := range p.conns {
		_ = c.(*net.TCPConn).SetLinger(0) // a reset, and nothing more is sent
		_ = c.Close()
	}
	clear(p.conns)
	return n / 2
}

// Refuse has connection attempts refused by the kernel; connections that exist stay.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
}

// Accept ends Refuse.
func (p *Proxy) Accept() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.listener, p.addr = l, l.Addr().String()
	p.wg.Go(func() { p.serve(l) })
	return nil
}

// Stall stops forwarding without closing anything, as a black hole does.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flow:
		p.flow = make(chan struct{})
	default:
	}
}

// Resume ends Stall.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flow:
	default:
		close(p.flow)
	}
}

// Close cuts everything and waits for the proxy's goroutines.
func (p *Proxy) Close() {
	p.Refuse()
	p.Cut()
	p.Resume()
	p.wg.Wait()
}

func (p *Proxy) serve(l net.Listener) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.forward(l, in) })
	}
}

func (p *Proxy) forward(l net.Listener, in net.Conn) {
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = in.Close()
		return
	}
	p.mu.Lock()
	if p.listener != l { // refused meanwhile
		p.mu.Unlock()
		_, _ = in.Close(), out.Close()
		return
	}
	p.conns[in], p.conns[out] = struct{}{}, struct{}{}
	p.mu.Unlock()

	p.wg.Go(func() { p.copy(out, in) })
	p.copy(in, out)
}

// copy moves bytes one way until either end is closed.
func (p *Proxy) copy(dst, src net.Conn) {
	defer p.drop(dst, src)
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			p.hold()
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *Proxy) hold() {
	p.mu.Lock()
	flow := p.flow
	p.mu.Unlock()
	<-flow
}

func (p *Proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
		_ = c.Close()
	}
}
