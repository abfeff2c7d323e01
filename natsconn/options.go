package natsconn

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// writeTimeout bounds one write to the socket, and with it how long nats.go's lock can be held
// against a server that has stopped reading. It is the server's own default write_deadline;
// nats.go's default is a minute.
const writeTimeout = 10 * time.Second

func clientName(o Options) string {
	return strings.Join([]string{"natsrelay", o.Instance, o.Role}, " ")
}

// connect makes one try at every configured server.
func (c *Conn) connect(name string) (*session, error) {
	o := nats.GetDefaultOptions()
	o.Servers = c.cfg.URLs
	o.Name = name
	o.Timeout = c.cfg.ConnectTimeout
	o.FlusherTimeout = writeTimeout
	o.PingInterval = c.cfg.PingInterval
	o.MaxPingsOut = c.cfg.MaxPingsOut
	o.CustomDialer = c.dialer
	o.SkipHostLookup = true // the dialer looks up itself, under its deadline, or the proxy does
	o.IgnoreDiscoveredServers = c.cfg.IgnoreDiscovered

	// The first connection is run's, not nats.go's RetryOnFailedConnect: that one reports
	// only the first failure, and TLS errors never.
	o.RetryOnFailedConnect = false
	o.MaxReconnect = -1           // connect #3312: dead after the default 60
	o.ReconnectBufSize = -1       // nothing of ours waits where a crash or a cut forgets it
	o.IgnoreAuthErrorAbort = true // nex #521: two equal auth errors close the connection for good

	o.InboxPrefix = c.cfg.InboxPrefix // "" is nats.go's default

	setAuth(&o, c.cfg)
	setTLS(&o, c.cfg.TLS)
	s := newSession()
	c.setHandlers(&o, s)
	nc, err := o.Connect()
	if err != nil {
		if dialErr := c.dialer.takeErr(); errors.Is(err, nats.ErrNoServers) && dialErr != nil {
			err = dialErr // nats.go keeps 'connection refused' to itself
		}
		return nil, err
	}
	s.nc.Store(nc)
	return s, nil
}

// checkURLs sees to it that nats.go will take the URLs. It never repeats one: they may hold
// a password, and so may url.Parse's errors (`invalid port ":secret"`).
func checkURLs(urls []string) error {
	if len(urls) == 0 {
		return fmt.Errorf("no url")
	}
	var ws int
	for i, s := range urls {
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" {
			return fmt.Errorf("urls[%d] is not a URL", i)
		}
		switch u.Scheme {
		case "nats", "tls":
		case "ws", "wss":
			ws++
		default:
			return fmt.Errorf("urls[%d]: scheme %q is not one of nats, tls, ws, wss", i, u.Scheme)
		}
	}
	if ws != 0 && ws != len(urls) {
		return fmt.Errorf("urls mix ws:// or wss:// with others")
	}
	return nil
}

// isWebSocket says whether the servers are spoken to by WebSocket; checkURLs has seen to it that all of them are, or none.
func isWebSocket(urls []string) bool {
	return strings.HasPrefix(urls[0], "ws://") || strings.HasPrefix(urls[0], "wss://")
}

// plainURL strips the credentials. Not URL.Redacted: it leaves the user name, which is the token
// in nats://TOKEN@host.
func plainURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	u.User = nil
	return u.String()
}
