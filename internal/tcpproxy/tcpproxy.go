// Package tcpproxy is a TCP proxy for tests that misbehaves on demand: it cuts connections, on both sides or on
// one, refuses them, and stalls. It knows nothing of what it carries.
package tcpproxy

import (
	"io"
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
	pairs    map[*pair]struct{}
	flow     chan struct{} // closed while bytes flow
	wg       sync.WaitGroup
}

// A pair is a connection on both sides of the proxy.
type pair struct {
	in, out  net.Conn // of the client, to the target
	halfOpen bool     // in is closed, and out is not; guarded by Proxy.mu
}

// reset closes a connection so that nothing more is sent, not even what has been written.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// Start listens on a loopback port of its own choice, until the test ends.
func Start(t testing.TB, target string) *Proxy {
	t.Helper()
	flow := make(chan struct{})
	close(flow)
	p := &Proxy{target: target, addr: "127.0.0.1:" + strconv.Itoa(natstest.FreePort(t)), pairs: make(map[*pair]struct{}), flow: flow}
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
	n := len(p.pairs)
	for c := range p.pairs {
		reset(c.in)
		reset(c.out)
	}
	clear(p.pairs)
	return n
}

// HalfOpen closes the clients' sides of all connections, as a NAT does that has forgotten them, and returns how many there were. The target does not
// notice: its sides stay open, take what it writes, and say nothing, until they are cut or the test ends. New connections are forwarded.
func (p *Proxy) HalfOpen() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.pairs {
		if !c.halfOpen {
			c.halfOpen = true
			reset(c.in)
			n++
		}
	}
	return n
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
	c := &pair{in: in, out: out}
	p.pairs[c] = struct{}{}
	p.mu.Unlock()

	p.wg.Go(func() { p.copy(c, out, in) })
	p.copy(c, in, out)
	if p.isHalfOpen(c) {
		_, _ = io.Copy(io.Discard, out)
	}
	p.drop(c)
}

// copy moves bytes one way until either end is closed. It closes the other one then, unless the connection is half-open.
func (p *Proxy) copy(c *pair, dst, src net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			p.hold()
			if p.isHalfOpen(c) {
				return
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	if !p.isHalfOpen(c) {
		p.drop(c)
	}
}

func (p *Proxy) hold() {
	p.mu.Lock()
	flow := p.flow
	p.mu.Unlock()
	<-flow
}

func (p *Proxy) isHalfOpen(c *pair) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return c.halfOpen
}

func (p *Proxy) drop(c *pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pairs, c)
	_, _ = c.in.Close(), c.out.Close()
}
