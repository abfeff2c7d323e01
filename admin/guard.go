package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
)

// guard is what each request passes, whatever it is for.
func (s *Server) guard(next http.Handler) http.Handler {
	origins := http.NewCrossOriginProtection() // by Sec-Fetch-Site and Origin, for all methods that may change something
	bounded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/spool/replay") { // a stream, which is read line by line
			r.Body = http.MaxBytesReader(w, r.Body, bodyBytes)
		}
		next.ServeHTTP(w, r)
	})
	checked := origins.Handler(bounded)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Cache-Control", "no-store")
		header.Set("X-Content-Type-Options", "nosniff")
		if !s.hostIsOurs(r) {
			http.Error(w, "this host name is not one of the relay's: use localhost, or an address", http.StatusMisdirectedRequest)
			return
		}
		checked.ServeHTTP(w, r)
	})
}

// hostIsOurs keeps out web pages whose host name has been made to lead here (DNS rebinding): they are the only ones who know of us by a
// name that is not localhost. Where there is a token, it is that which keeps them out, and a socket cannot be reached by a page.
func (s *Server) hostIsOurs(r *http.Request) bool {
	if addr, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr); addr != nil && addr.Network() == "unix" {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	return host == "localhost" || net.ParseIP(host) != nil || s.opts.Token != ""
}

// protected lets those pass who know the token, if there is one.
func (s *Server) protected(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.knows(r) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="natsrelay"`)
			http.Error(w, "the token of [admin] is needed: Authorization: Bearer …", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// knows reports whether the request shows the token, or needs none. It takes the same time for every wrong one, whatever its length.
func (s *Server) knows(r *http.Request) bool {
	if s.opts.Token == "" {
		return true
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	have, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s.opts.Token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(have[:], want[:]) == 1
}
