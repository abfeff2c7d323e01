package admin

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A Client talks to the Server of a running relay.
type Client struct {
	addr  string
	base  string // URL, without a slash at the end
	token string
	http  *http.Client

	patient *http.Client // waits for an answer for as long as it takes
}

// dialTimeout is how long a relay may take to take a connection, answerTimeout how long until its answer begins.
const (
	dialTimeout   = 5 * time.Second
	answerTimeout = 10 * time.Second
)

// NewClient returns a client for a server's address: HOST:PORT as in the configuration, unix:PATH, or a URL.
func NewClient(addr, token string) (*Client, error) {
	c := &Client{addr: addr, token: token}
	transport := &http.Transport{ResponseHeaderTimeout: answerTimeout}
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport.DialContext = dialer.DialContext
	switch path, unix := strings.CutPrefix(addr, "unix:"); {
	case unix:
		c.base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
	case strings.Contains(addr, "://"):
		u, err := url.Parse(addr)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
			return nil, fmt.Errorf("%q is not the address of a relay: HOST:PORT, unix:/PATH, http:// or https://", addr)
		}
		c.base = strings.TrimRight(addr, "/")
		transport.Proxy = http.ProxyFromEnvironment
	default:
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("%q is not the address of a relay: HOST:PORT, unix:/PATH, http:// or https://", addr)
		}
		c.base = "http://" + net.JoinHostPort(reachable(host), port)
	}
	patient := transport.Clone()
	patient.ResponseHeaderTimeout = 0
	c.http, c.patient = &http.Client{Transport: transport}, &http.Client{Transport: patient}
	return c, nil
}

// reachable turns an address to listen on into one to connect to.
func reachable(host string) string {
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return host
	}
	return "127.0.0.1"
}

// Addr returns the address that the client was made with.
func (c *Client) Addr() string { return c.addr }

// A NoRelayError says that nobody answers at the address, or not as a relay does.
type NoRelayError struct {
	Addr string
	Err  error
}

func (e *NoRelayError) Error() string {
	return fmt.Sprintf("no relay answers at %s: %v", e.Addr, e.Err)
}
func (e *NoRelayError) Unwrap() error { return e.Err }

// An AnswerError is a relay's refusal.
type AnswerError struct {
	Code int // HTTP status
	Text string
}

func (e *AnswerError) Error() string { return e.Text }

// Status returns how the relay stands.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	st := new(Status)
	return st, c.call(ctx, "GET", "/api/v1/status", st)
}

// Pause makes a route deliver nothing until Resume, and returns how it stands then.
func (c *Client) Pause(ctx context.Context, route string) (*RouteStatus, error) {
	st := new(RouteStatus)
	return st, c.call(ctx, "POST", "/api/v1/routes/"+url.PathEscape(route)+"/pause", st)
}

// Resume ends a pause, and returns how the route stands then.
func (c *Client) Resume(ctx context.Context, route string) (*RouteStatus, error) {
	st := new(RouteStatus)
	return st, c.call(ctx, "POST", "/api/v1/routes/"+url.PathEscape(route)+"/resume", st)
}

// Watch calls fn with the relay's status, again and again, until fn returns an error, or the relay goes.
func (c *Client) Watch(ctx context.Context, fn func(*Status) error) error {
	res, err := c.do(ctx, "GET", "/api/v1/events", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	event := ""
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return &NoRelayError{c.addr, err}
		}
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(": "))
		switch string(name) {
		case "event":
			event = string(value)
		case "data":
			if event != "status" {
				continue
			}
			st := new(Status)
			if err := json.Unmarshal(value, st); err != nil {
				return &NoRelayError{c.addr, err}
			}
			if err := fn(st); err != nil {
				return err
			}
		}
	}
}

// call makes a request without a body and decodes the answer.
func (c *Client) call(ctx context.Context, method, path string, answer any) error {
	res, err := c.do(ctx, method, path, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(answer); err != nil {
		return &NoRelayError{c.addr, err}
	}
	return nil
}

// do returns the answer if it is one of success.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	return c.send(ctx, c.http, method, path, body)
}

// doSlow is do for what may take any time before the answer begins.
func (c *Client) doSlow(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	return c.send(ctx, c.patient, method, path, body)
}

func (c *Client) send(ctx context.Context, client *http.Client, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := client.Do(req)
	if err != nil {
		if urlErr, ok := errors.AsType[*url.Error](err); ok {
			err = urlErr.Err
		}
		return nil, &NoRelayError{c.addr, err}
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	return nil, c.refusal(res)
}

// refusal reads what the relay has to say.
func (c *Client) refusal(res *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<16)) // what can be read of it will do
	var f failure
	if json.Unmarshal(text, &f) == nil && f.Error != "" {
		return &AnswerError{res.StatusCode, f.Error}
	}
	said := strings.TrimSpace(string(text))
	switch res.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusMisdirectedRequest:
		return &AnswerError{res.StatusCode, fmt.Sprintf("the relay at %s refuses: %s", c.addr, cmp.Or(said, res.Status))}
	}
	return &NoRelayError{c.addr, errors.New(res.Status)}
}
