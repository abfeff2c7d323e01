package config

import (
	"slices"
	"time"
)

// schema is the whole file. Keys that only a later version will have are listed too, so that they are not called unknown.
func (b *binder) schema(c *Config) table {
	c.NATS = make(map[string]*NATS)
	return table{
		keys: []key{
			opt("state_dir", &c.StateDir, b.env.stateDir(), text),
			opt("drain_timeout", &c.DrainTimeout, 25*time.Second, duration(0, time.Hour)),
			opt("instance", &c.Instance, b.env.instance(), textThat(badInstance)),
			sub("log", logTable(&c.Log)),
			sub("admin", adminTable(&c.Admin)),
			named("nats", badConnectionName, func(name string) table {
				n := &NATS{Name: name}
				c.NATS[name] = n
				return natsTable(n)
			}),
			named("route", badRouteName, func(name string) table {
				r := &Route{Name: name}
				c.Routes = append(c.Routes, r)
				return routeTable(r)
			}),
		},
		finish: func(b *binder, v value) {
			if routes, ok := v.get("route"); !ok || routes.table() != nil && len(routes.table()) == 0 {
				b.problem(routes, "there is no route; a relay needs at least one [route.NAME]")
			}
			if at, ok := v.get("instance"); !ok && c.Instance == "" {
				b.problem(at, "this host has no name to take as default, so it is required")
			}
		},
	}
}

func logTable(c *Log) table {
	return table{keys: []key{
		opt("level", &c.Level, "info", oneOf("trace debug info warn error")),
		opt("format", &c.Format, "auto", oneOf("auto json console")),
	}}
}

func natsTable(c *NATS) table {
	return table{
		keys: slices.Concat([]key{
			req("urls", &c.URLs, natsURLs),
			opt("creds", &c.Creds, "", file),
			opt("nkey_seed", &c.NkeySeed, "", nkeySeed),
			opt("user", &c.User, "", text),
			opt("password", &c.Password, "", secret),
			opt("token", &c.Token, "", secret),
			ptr("tls", &c.TLS, natsTLSTable),
			opt("ping_interval", &c.PingInterval, 20*time.Second, duration(100*time.Millisecond, time.Hour)),
			opt("max_pings_out", &c.MaxPingsOut, 3, integer(1, 100)),
			opt("connect_timeout", &c.ConnectTimeout, 5*time.Second, duration(10*time.Millisecond, 10*time.Minute)),
			sub("reconnect", backoffTable(&c.Reconnect, 250*time.Millisecond, 30*time.Second)),
			opt("jetstream_domain", &c.JetStreamDomain, "", domain),
			opt("inbox_prefix", &c.InboxPrefix, "_INBOX", textThat(badInboxPrefix)),
			opt("proxy", &c.Proxy, "", proxyURL("socks5", "http")),
			opt("ignore_discovered", &c.IgnoreDiscovered, false, boolean),
		}, later("embedded", "listen", "leafnode_remotes", "jetstream", "config")),
		finish: checkLogin,
	}
}

func natsTLSTable(c *NATSTLS) table {
	return table{
		keys: []key{
			opt("ca", &c.CA, "", file),
			opt("cert", &c.Cert, "", file),
			opt("key", &c.Key, "", file),
			opt("server_name", &c.ServerName, "", text),
			opt("handshake_first", &c.HandshakeFirst, false, boolean),
			opt("insecure_skip_verify", &c.InsecureSkipVerify, false, boolean),
		},
		finish: func(b *binder, v value) { checkPEM(b, v, c.CA, c.Cert, c.Key) },
	}
}

func backoffTable(c *Backoff, low, high time.Duration) table {
	return table{
		keys: []key{
			opt("min", &c.Min, low, duration(time.Millisecond, 24*time.Hour)),
			opt("max", &c.Max, high, duration(time.Millisecond, 24*time.Hour)),
		},
		finish: func(b *binder, v value) {
			if c.Min > c.Max {
				at, _ := v.get("max")
				b.problem(at, "%q is less than min, which is %q", formatDuration(c.Max), formatDuration(c.Min))
			}
		},
	}
}
