package sinks

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
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
	"Expect": true, // a wish of the one who sends: an endpoint that does not know it answers 417, which would block the route
}

// messageHeader returns the headers of a request for m alone: the message's own and the relay's.
// An error says that m has a header that HTTP cannot carry.
func messageHeader(m *relay.Message) (http.Header, error) {
	h := make(http.Header, len(m.Header)+7) // a map of up to 8 is one allocation
	for k, values := range m.Header {
		if err := checkHeader(k, values); err != nil {
			return nil, err
		}
		switch k = textproto.CanonicalMIMEHeaderKey(k); {
		case hopByHop[k]:
		case h[k] == nil:
			h[k] = values[:len(values):len(values)] // the message's own, only to be read
		default: // it has the same header in another letter case, too
			h[k] = append(h[k], values...)
		}
	}
	if !validValue(m.Subject) {
		return nil, fmt.Errorf("subject %q cannot be a header's value", m.Subject)
	}
	own := [...]string{m.Subject, m.Time.UTC().Format(time.RFC3339Nano)}
	h["Nats-Subject"] = own[0:1:1]
	h["Nats-Timestamp"] = own[1:2:2]
	if m.Stream != "" {
		h["Nats-Stream"] = []string{m.Stream}
		h["Nats-Sequence"] = []string{strconv.FormatUint(m.Sequence, 10)}
	}
	return h, nil
}

// header returns the headers of a request for the run, those of the configuration last.
func (h *HTTP) header(run []piece) http.Header {
	header := run[0].header
	if header == nil {
		header = make(http.Header, len(h.headers)+8)
	}
	switch {
	case h.format.contentType != "":
		header["Content-Type"] = []string{h.format.contentType}
		delete(header, "Content-Encoding") // the message's own is about its payload, not about this body
	case header["Content-Type"] == nil:
		header["Content-Type"] = []string{"application/octet-stream"}
	}
	header["Idempotency-Key"] = []string{idempotencyKey(run)}
	for k, values := range h.headers {
		header[k] = values
	}
	return header
}

// idempotencyKey returns what names a request at each attempt: the id of its message, or a hash over the ids of its messages. It is the
// hash, too, for an id that cannot be a header's value, or would lose its blanks in one.
func idempotencyKey(run []piece) string {
	if id := run[0].id; len(run) == 1 && validValue(id) && textproto.TrimString(id) == id {
		return id
	}
	size := 0
	for i := range run {
		size += len(run[i].id) + 2
	}
	ids := make([]byte, 0, size)
	for i := range run {
		p := &run[i]
		ids = binary.AppendUvarint(ids, uint64(len(p.id))) // lest "a", "bc" be "ab", "c"
		ids = append(ids, p.id...)
	}
	hash := sha256.Sum256(ids)
	return "batch-" + hex.EncodeToString(hash[:16])
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
