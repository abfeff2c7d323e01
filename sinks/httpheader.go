package sinks

import (
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
	"time"

	"github.com/natsrelay/natsrelay/relay"
)

// hopByHop lists the headers that belong to one connection (RFC 9110, section 7.6.1), and those that net/http sets itself.
// A message's own are not passed on.
var hopByHop = map[string]bool{
	"Connection": true, "Proxy-Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true,
	"Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
	"Host": true, "Content-Length": true,
}

// requestHeader builds the headers of the request for m: the message's own, the relay's, then those of the configuration.
// An error says that m has a header that HTTP cannot carry.
func requestHeader(m *relay.Message, configured http.Header) (http.Header, error) {
	h := make(http.Header, len(m.Header)+len(configured)+6)
	for k, values := range m.Header {
		if err := checkHeader(k, values); err != nil {
			return nil, err
		}
		if k = textproto.CanonicalMIMEHeaderKey(k); !hopByHop[k] {
			h[k] = append(h[k], values...)
		}
	}
	if h["Content-Type"] == nil {
		h["Content-Type"] = []string{"application/octet-stream"}
	}
	if !validValue(m.Subject) {
		return nil, fmt.Errorf("subject %q cannot be a header's value", m.Subject)
	}
	h["Nats-Subject"] = []string{m.Subject}
	h["Nats-Timestamp"] = []string{m.Time.UTC().Format(time.RFC3339Nano)}
	h["Idempotency-Key"] = []string{m.ID}
	h["User-Agent"] = []string{"natsrelay"}
	for k, values := range configured {
		h[k] = values
	}
	return h, nil
}

func checkHeader(key string, values []string) error {
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return !isTokenRune(r) }) {
		return fmt.Errorf("header %q cannot be sent over HTTP: its name has a character that is not allowed", key)
	}
	for _, v := range values {
		if !validValue(v) {
			return fmt.Errorf("header %q cannot be sent over HTTP: its value has a control character", key)
		}
	}
	return nil
}

// isTokenRune reports whether r may stand in a header's name (tchar of RFC 9110, section 5.6.2).
func isTokenRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r < 0x80 && strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// validValue reports whether v may be a header's value (field-value of RFC 9110, section 5.5).
func validValue(v string) bool {
	for i := range len(v) {
		if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
