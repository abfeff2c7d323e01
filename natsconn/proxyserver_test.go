package natsconn

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

// A proxyServer is a SOCKS5 and an HTTP CONNECT proxy in one: the first byte tells which. It knows names that nobody
// else knows. All methods may be called from any goroutine.
type proxyServer struct {
	t     *testing.T
	names map[string]string // host:port as asked for, and where it leads

	mu             sync.Mutex
	user, password string // "" lets everybody in
	nonsense       string // all that it says, if not ""
	addr           string
	listener       net.Listener // nil while down
	conns          []net.Conn
	asked          []string
	wg             sync.WaitGroup
}

func startProxy(t *testing.T, names map[string]string) *proxyServer {
	p := &proxyServer{t: t, names: names, addr: "127.0.0.1:" + strconv.Itoa(natstest.FreePort(t))}
	p.up()
	t.Cleanup(func() { p.down(); p.wg.Wait() })
	return p
}

func (p *proxyServer) up() {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.listener, p.addr = l, l.Addr().String()
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
}

// down ends the proxy and cuts what goes through it.
func (p *proxyServer) down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil {
		return
	}
	_ = p.listener.Close()
	p.listener = nil
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// login sets who is let in from now on.
func (p *proxyServer) login(user, password string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.user, p.password = user, password
}

// answer makes it say this to everybody, and hang up.
func (p *proxyServer) answer(nonsense string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nonsense = nonsense
}

func (p *proxyServer) says() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nonsense
}

func (p *proxyServer) wasAskedFor(addr string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.asked, addr)
}

func (p *proxyServer) lets(user, password string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.user == "" || user == p.user && password == p.password
}

// keep closes the connection with the proxy, at once if it is down.
func (p *proxyServer) keep(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil {
		_ = c.Close()
	}
	p.conns = append(p.conns, c)
}

func (p *proxyServer) serve(c net.Conn) {
	defer c.Close()
	p.keep(c)
	if nonsense := p.says(); nonsense != "" {
		_, _ = io.WriteString(c, nonsense)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		return
	}
	br := bufio.NewReader(c)
	first, err := br.Peek(1)
	if err != nil {
		return
	}
	ask := p.connect
	if first[0] == 5 {
		ask = p.socks
	}
	out, err := ask(br, c)
	if err != nil {
		return
	}
	defer out.Close()
	p.keep(out)
	p.wg.Go(func() { _, _ = io.Copy(out, br); _ = out.Close() })
	_, _ = io.Copy(c, out)
}

var errTurnedAway = errors.New("turned away")

func (p *proxyServer) dial(addr string) (net.Conn, error) {
	p.mu.Lock()
	p.asked = append(p.asked, addr)
	p.mu.Unlock()
	return net.Dial("tcp", p.names[addr])
}

func (p *proxyServer) connect(br *bufio.Reader, c net.Conn) (net.Conn, error) {
	req, err := http.ReadRequest(br)
	if err != nil {
		return nil, err
	}
	req.Header["Authorization"] = req.Header["Proxy-Authorization"]
	user, password, _ := req.BasicAuth()
	if !p.lets(user, password) {
		// Proxies are known to repeat what they were sent.
		_, _ = fmt.Fprintf(c, "HTTP/1.1 407 no entry for %s\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n", password)
		return nil, errTurnedAway
	}
	out, err := p.dial(req.Host)
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return nil, err
	}
	_, err = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	return out, err
}

func (p *proxyServer) socks(br *bufio.Reader, c net.Conn) (net.Conn, error) {
	methods, err := socksField(br, 1)
	if err != nil {
		return nil, err
	}
	switch {
	case p.lets("", ""):
		_, _ = c.Write([]byte{5, 0})
	case !slices.Contains(methods, 2):
		_, _ = c.Write([]byte{5, 0xff})
		return nil, errTurnedAway
	default:
		_, _ = c.Write([]byte{5, 2})
		user, err := socksField(br, 1)
		if err != nil {
			return nil, err
		}
		password, err := socksField(br, 0)
		if err != nil {
			return nil, err
		}
		if !p.lets(string(user), string(password)) {
			_, _ = c.Write([]byte{1, 1})
			return nil, errTurnedAway
		}
		_, _ = c.Write([]byte{1, 0})
	}
	addr, err := socksAddr(br)
	if err != nil {
		return nil, err
	}
	out, err := p.dial(addr)
	if err != nil {
		_, _ = c.Write([]byte{5, 4, 0, 1, 0, 0, 0, 0, 0, 0}) // host unreachable
		return nil, err
	}
	_, err = c.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	return out, err
}

// socksField reads a length and so many bytes, after some bytes that do not matter.
func socksField(br *bufio.Reader, skip int) ([]byte, error) {
	if _, err := br.Discard(skip); err != nil {
		return nil, err
	}
	n, err := br.ReadByte()
	if err != nil {
		return nil, err
	}
	field := make([]byte, n)
	_, err = io.ReadFull(br, field)
	return field, err
}

func socksAddr(br *bufio.Reader) (string, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(br, head); err != nil {
		return "", err
	}
	host, port := "", make([]byte, 2)
	switch head[3] {
	case 1:
		ip := make(net.IP, 4)
		if _, err := io.ReadFull(br, ip); err != nil {
			return "", err
		}
		host = ip.String()
	case 3:
		name, err := socksField(br, 0)
		if err != nil {
			return "", err
		}
		host = string(name)
	}
	if _, err := io.ReadFull(br, port); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, fmt.Sprint(binary.BigEndian.Uint16(port))), nil
}
