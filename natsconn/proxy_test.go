package natsconn

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/internal/natstest"
	"github.com/natsrelay/natsrelay/internal/tcpproxy"
)

// hub.invalid is a name that no resolver knows (RFC 2606); the proxies of these tests do.
const hubName = "hub.invalid"

// startHub runs servers that are spoken to in every way there is, and returns what leads to them.
func startHub(t *testing.T) (ca *natstest.CA, names map[string]string) {
	ca = natstest.NewCA(t, "hub")
	cert, key := ca.Issue(hubName)
	ws, wss := natstest.FreePort(t), natstest.FreePort(t)
	plain := natstest.Start(t, fmt.Sprintf(`websocket { listen: "127.0.0.1:%d", no_tls: true }`, ws), nil)
	secure := natstest.Start(t, fmt.Sprintf(`
		tls { cert_file: %[1]q, key_file: %[2]q }
		websocket { listen: "127.0.0.1:%[3]d", tls { cert_file: %[1]q, key_file: %[2]q } }
	`, cert, key, wss), nil)
	return ca, map[string]string{
		hubName + ":4222": plain.Addr(),
		hubName + ":4223": secure.Addr(),
		hubName + ":80":   fmt.Sprintf("127.0.0.1:%d", ws),
		hubName + ":443":  fmt.Sprintf("127.0.0.1:%d", wss),
	}
}

func TestEveryKindOfURLGoesThroughEitherProxy(t *testing.T) {
	ca, names := startHub(t)
	for _, scheme := range []string{"socks5", "http"} {
		for _, login := range []string{"", "u:p%40ss@"} {
			for url, target := range map[string]string{
				"nats://" + hubName: ":4222", "tls://" + hubName + ":4223": ":4223",
				"ws://" + hubName + "/nats": ":80", "wss://" + hubName: ":443",
			} {
				t.Run(scheme+"://"+login+" to "+url, func(t *testing.T) {
					proxy := startProxy(t, names)
					if login != "" {
						proxy.login("u", "p@ss")
					}
					cfg := natstest.Config(url)
					cfg.Proxy = config.Secret(scheme + "://" + login + proxy.addr)
					if strings.HasPrefix(url, "tls") || strings.HasPrefix(url, "wss") {
						cfg.TLS = &config.NATSTLS{CA: ca.File()}
					}
					c := open(t, cfg, natstest.NewLog(t))
					checkEcho(t, waitUp(t, c))
					if !proxy.wasAskedFor(hubName + target) {
						t.Error("the proxy was not asked for the name")
					}
				})
			}
		}
	}
}

// checkEcho sends itself more than fits into one read.
func checkEcho(t *testing.T, e Epoch) {
	t.Helper()
	sub, err := e.Conn().SubscribeSync("echo")
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789"), 50_000)
	if err := e.Conn().Publish("echo", data); err != nil {
		t.Fatal(err)
	}
	m, err := sub.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.Data, data) {
		t.Errorf("%d bytes came back changed, of %d", len(m.Data), len(data))
	}
}

// Each hop fails in turn and is mended. The log says which one it was, and shows no credentials.
func TestProxyFailsAndIsMended(t *testing.T) {
	for scheme, refused := range map[string]string{
		"socks5": "username/password authentication failed", "http": "407 Proxy Authentication Required",
	} {
		t.Run(scheme, func(t *testing.T) {
			srv := natstest.Start(t, "", nil)
			proxy := startProxy(t, map[string]string{hubName + ":4222": srv.Addr()})
			proxy.login("u", canary+"new")
			proxy.down()
			cfg := natstest.Config("nats://" + hubName)
			cfg.Proxy = config.Secret(scheme + "://u:" + canary + "@" + proxy.addr)
			log := natstest.NewLog(t)
			c := open(t, cfg, log)
			attempts := func(what string, n uint64) {
				t.Helper()
				failed := c.Stats().Errors[KindConnect]
				natstest.Eventually(t, what, func() bool { return c.Stats().Errors[KindConnect] > failed+n })
			}
			attempts("the proxy is not there", 3)
			proxy.up()
			attempts("the proxy lets us not in", 3)
			proxy.login("u", canary)
			waitUp(t, c)
			if n := log.Count("cannot connect", "connect to proxy "+proxy.addr, "connection refused"); n != 1 {
				t.Errorf("%d lines say that the proxy is not there, want 1", n)
			}

			srv.Stop()
			natstest.Eventually(t, "the log says that the server is not there", func() bool {
				return log.Count("cannot connect", "ask proxy "+proxy.addr+" for "+hubName+":4222") > 0
			})
			srv.Restart()
			waitUp(t, c)

			proxy.down()
			natstest.Eventually(t, "cut", func() bool { return !c.Stats().Connected })
			proxy.login("u", canary+"newer")
			proxy.up()
			natstest.Eventually(t, "the log says that the proxy refuses", func() bool { return log.Count("cannot connect", refused) >= 1 })
			proxy.login("", "")
			waitUp(t, c)
			closeConn(t, c)
			checkNoSecret(t, "the log", log.String())
		})
	}
}

// What stands where a proxy should be may answer anything, or nothing.
func TestProxyThatIsNone(t *testing.T) {
	for name, answer := range map[string]string{
		"not HTTP":      canary + "\r\n\r\n",
		"endless":       strings.Repeat("x", maxHead+1),
		"cut short":     "HTTP/1.1 200 OK\r\n",
		"another SOCKS": "\x04\x5a",
	} {
		t.Run(name, func(t *testing.T) {
			proxy := startProxy(t, nil)
			proxy.answer(answer)
			for _, scheme := range []string{"socks5", "http"} {
				dial, err := newDial(config.Secret(scheme + "://u:" + canary + "@" + proxy.addr))
				if err != nil {
					t.Fatal(err)
				}
				conn, err := dial(t.Context(), "tcp", hubName+":4222")
				if err == nil {
					conn.Close()
					t.Fatal("dialled")
				}
				if !strings.HasPrefix(err.Error(), "ask proxy "+proxy.addr+" for "+hubName+":4222: ") {
					t.Errorf("%s: error %q", scheme, err)
				}
				checkNoSecret(t, "the error", err.Error())
			}
		})
	}
}

// The server speaks first: what it says right behind the proxy's answer is not the proxy's.
func TestReadHeadLeavesTheRest(t *testing.T) {
	r := strings.NewReader("HTTP/1.1 200 OK\r\nX: y\r\n\r\nINFO {}\r\n")
	if _, err := readHead(r); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "INFO {}\r\n" {
		t.Errorf("left %q", rest)
	}
}

// nats.go makes the handshake of wss:// without a deadline, with its lock held.
func TestStalledHandshakeEnds(t *testing.T) {
	ca, names := startHub(t)
	for url, addr := range map[string]string{"tls://localhost": names[hubName+":4223"], "wss://localhost": names[hubName+":443"]} {
		t.Run(url, func(t *testing.T) {
			stalled := tcpproxy.Start(t, addr)
			stalled.Stall()
			cfg := natstest.Config(url + stalled.Addr()[strings.LastIndexByte(stalled.Addr(), ':'):])
			cfg.TLS = &config.NATSTLS{CA: ca.File()}
			cfg.ConnectTimeout = cfg.ConnectTimeout / 50
			c := open(t, cfg, natstest.NewLog(t))
			natstest.Eventually(t, "given up, and tried again", func() bool {
				st := c.Stats()
				return st.Errors[KindConnect]+st.Errors[KindTLS] > 2
			})
		})
	}
}
