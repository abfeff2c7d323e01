package natsconn

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/proxy"

	"github.com/natsrelay/natsrelay/config"
)

// A dialFunc opens a stream to a server.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// newDial returns how to reach the servers: straight, or through a proxy, which then looks up their names.
func newDial(proxyURL config.Secret) (dialFunc, error) {
	if proxyURL == "" {
		return new(net.Dialer).DialContext, nil
	}
	u, err := url.Parse(proxyURL.Reveal())
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("proxy is not a URL with a host") // err would quote it, password and all
	}
	p := proxied{host: u.Host, user: u.User}
	port := "80"
	switch u.Scheme {
	case "http":
		p.ask = p.askHTTP
	case "socks5":
		p.ask, port = p.askSOCKS, "1080"
	default:
		return nil, fmt.Errorf("proxy: scheme %q is not one of socks5, http", u.Scheme)
	}
	if u.Port() == "" {
		p.host = net.JoinHostPort(u.Hostname(), port)
	}
	return p.dial, nil
}

// proxied is the way through a proxy. Its errors say which of the two hops failed, and never hold its user.
type proxied struct {
	host string // with its port
	user *url.Userinfo
	ask  func(ctx context.Context, conn net.Conn, network, addr string) (net.Conn, error)
}

func (p proxied) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", p.host)
	if err != nil {
		return nil, fmt.Errorf("connect to proxy %s: %w", p.host, err)
	}
	through, err := p.ask(ctx, conn, network, addr)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("ask proxy %s for %s: %w", p.host, addr, err)
	}
	return through, nil
}

// askSOCKS speaks SOCKS5 (RFC 1928, 1929).
func (p proxied) askSOCKS(ctx context.Context, conn net.Conn, network, addr string) (net.Conn, error) {
	var auth *proxy.Auth
	if p.user != nil {
		password, _ := p.user.Password()
		auth = &proxy.Auth{User: p.user.Username(), Password: password}
	}
	d, err := proxy.SOCKS5("tcp", p.host, auth, dialled{conn})
	if err != nil {
		return nil, err
	}
	through, err := d.(proxy.ContextDialer).DialContext(ctx, network, addr)
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err // the rest of it names the two ends again
	}
	return through, err
}

// dialled hands a connection that is there already to package proxy.
type dialled struct{ net.Conn }

func (d dialled) Dial(string, string) (net.Conn, error) { return d.Conn, nil }

// askHTTP speaks CONNECT (RFC 9110, section 9.3.6).
func (p proxied) askHTTP(ctx context.Context, conn net.Conn, _, addr string) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{"User-Agent": {"natsrelay"}}}
	if p.user != nil {
		password, _ := p.user.Password()
		req.SetBasicAuth(p.user.Username(), password)
		req.Header["Proxy-Authorization"] = req.Header["Authorization"]
		delete(req.Header, "Authorization")
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	head, err := readHead(conn)
	if err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), req)
	if err != nil {
		return nil, errors.New("its answer is not HTTP") // err quotes it
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("it answers %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return conn, ctx.Err() // ended by now: the deadline is in the past
}

// maxHead bounds what a proxy may say before it lets us through.
const maxHead = 16 << 10

// readHead reads up to the empty line, and not one byte further: what follows is the server's, which speaks first.
func readHead(r io.Reader) ([]byte, error) {
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one...) {
		if len(head) == maxHead {
			return nil, errors.New("its answer is too long")
		}
		if _, err := io.ReadFull(r, one); err != nil {
			return nil, fmt.Errorf("read its answer: %w", err)
		}
	}
	return head, nil
}
