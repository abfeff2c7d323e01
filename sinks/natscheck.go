package sinks

import (
	"errors"
	"fmt"
	"strings"
)

// errRefused marks a message that the server would never take, or nats.go would send on damaged.
var errRefused = errors.New("refused")

// maxSubject is the longest subject that is sent. nats-server's max_control_line is 4096 by default, and
// covers the sizes behind the subject too. A longer line makes the server close the connection, and
// nats.go close it for good: one such message, sent again and again, would stop the whole route.
const maxSubject = 4096 - len("4294967295 4294967295 ")

// checkSubject accepts what may be published to: tokens that are not empty, without blanks,
// control characters or wildcards.
func checkSubject(s string) error {
	if len(s) > maxSubject {
		return fmt.Errorf("%w: subject of %d bytes, and the server takes %d", errRefused, len(s), maxSubject)
	}
	start := 0 // of the present token
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if token := s[start:i]; token == "" || token == "*" || token == ">" {
				return fmt.Errorf("%w: subject %q: token %q cannot be published to", errRefused, s, token)
			}
			start = i + 1
		} else if s[i] <= ' ' || s[i] == 0x7f {
			return fmt.Errorf("%w: subject %q: blank or control character", errRefused, s)
		}
	}
	return nil
}

// headerSize checks one header and returns its bytes on the wire.
func headerSize(key string, values []string) (size int, err error) {
	if !validHeaderKey(key) {
		return 0, fmt.Errorf("%w: header key %q", errRefused, key)
	}
	for _, v := range values {
		if strings.IndexByte(v, '\n') >= 0 || strings.IndexByte(v, '\r') >= 0 {
			return 0, fmt.Errorf("%w: header %q: its value has more than one line", errRefused, key)
		}
		size += len(key) + len(v) + len(": \r\n")
	}
	return size, nil
}

// validHeaderKey accepts what nats.go (1.55) lets pass, the tokens of RFC 9110: others it refuses in a way that does
// not tell which key it was.
func validHeaderKey(key string) bool {
	for i := range len(key) {
		if c := key[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"()/,:;<=>?@[\\]{}", c) >= 0 {
			return false
		}
	}
	return key != ""
}
