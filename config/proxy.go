package config

import (
	"net/url"
	"slices"
	"strings"
)

// proxyURL reads the URL of a proxy that is spoken to in one of some ways; it may hold a user and a password. "" is its default.
func proxyURL(schemes ...string) parser[Secret] {
	return func(b *binder, v value) (Secret, bool) {
		s, ok := anyText(b, v)
		if !ok || s == "" {
			return "", ok
		}
		if problem := badProxyURL(s, schemes); problem != "" {
			b.problem(v, "%s", problem)
			return "", false
		}
		return Secret(s), true
	}
}

func badProxyURL(s string, schemes []string) string {
	u, problem := hostURL(s)
	switch {
	case problem != "":
		return problem
	case !slices.Contains(schemes, u.Scheme):
		return "must start with " + strings.Join(schemes, ":// or ") + "://"
	case strings.Trim(u.Path, "/") != "" || *u != (url.URL{Scheme: u.Scheme, Host: u.Host, User: u.User, Path: u.Path}):
		return "has more than scheme, user, password, host and port"
	}
	return ""
}
