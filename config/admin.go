package config

import (
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// Admin is the [admin] table: health, metrics, status API.
type Admin struct {
	Listen string // HOST:PORT or unix:PATH; "" = off
	Token  Secret // what clients have to show; "" = nothing
}

// UnixSocket returns the path of the socket to listen on, "" if it is not one.
func (a Admin) UnixSocket() string {
	path, ok := strings.CutPrefix(a.Listen, "unix:")
	if !ok {
		return ""
	}
	return path
}

// IsLocal reports whether only this machine can reach the address.
func (a Admin) IsLocal() bool {
	if a.Listen == "" || a.UnixSocket() != "" {
		return true
	}
	host, _, _ := net.SplitHostPort(a.Listen)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func adminTable(c *Admin) table {
	return table{
		keys: []key{
			opt("listen", &c.Listen, "127.0.0.1:7422", adminListen),
			opt("token", &c.Token, "", adminToken),
		},
		finish: func(b *binder, v value) {
			token, given := v.get("token")
			given = given && token.raw != "" // whether it is right or not
			if at, _ := v.get("listen"); !c.IsLocal() && !given {
				b.problem(at, "can be reached from other machines, so token is required")
			}
		},
	}
}

// adminToken reads a secret, or "" as it stands. A ${…} that turns out to be empty is a mistake, not a wish for no token.
func adminToken(b *binder, v value) (Secret, bool) {
	if v.raw == "" {
		return "", true
	}
	return secret(b, v)
}

// adminListen reads an address, or "".
func adminListen(b *binder, v value) (string, bool) {
	s, ok := anyText(b, v)
	if problem := badAdminListen(s); ok && problem != "" {
		b.problem(v, "%s %s", v.quote(), problem)
		return "", false
	}
	return s, ok
}

// maxSocketPath is what sockaddr_un(7) has room for, less what a name beside the socket's needs.
const maxSocketPath = 100

func badAdminListen(s string) string {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		switch {
		case !filepath.IsAbs(path) || strings.HasSuffix(path, "/"):
			return "needs the absolute path of a socket, such as unix:/run/natsrelay/admin.sock"
		case len(path) > maxSocketPath:
			return "is longer than the path of a socket can be, which is " + strconv.Itoa(maxSocketPath) + " bytes"
		}
		return ""
	}
	if s == "" {
		return ""
	}
	host, port, err := net.SplitHostPort(s)
	if n, portErr := strconv.Atoi(port); err != nil || portErr != nil || n < 0 || n > 65535 || strings.ContainsFunc(host, isBlankOrControl) {
		return "is neither HOST:PORT nor unix:/PATH"
	}
	return ""
}
