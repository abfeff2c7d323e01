package listen

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// excerptLen is how many bytes of a body are shown.
const excerptLen = 96

// readBody reads body to its end and keeps only its beginning.
func readBody(body io.Reader) (excerpt []byte, size int64, err error) {
	excerpt, err = io.ReadAll(io.LimitReader(body, excerptLen))
	if err != nil {
		return excerpt, int64(len(excerpt)), err
	}
	n, err := io.Copy(io.Discard, body)
	return excerpt, int64(len(excerpt)) + n, err
}

// line is what is printed for one request. What comes from outside is escaped, so that
// it can neither break the line nor reach the terminal.
func line(at time.Time, status int, req *http.Request, size int64, excerpt []byte) string {
	subject := cmp.Or(escape(req.Header.Get("Nats-Subject")), "-")
	id := cmp.Or(escape(req.Header.Get("Idempotency-Key")), "-")
	cut := ""
	if size > int64(len(excerpt)) {
		excerpt = bytes.TrimRightFunc(excerpt, func(r rune) bool { return r == utf8.RuneError })
		cut = "…"
	}
	return strings.TrimRight(fmt.Sprintf("%s %d %s %s  %s  id=%s  %d B  %s%s", at.Format("15:04:05.000"), status,
		escape(req.Method), escape(req.URL.Path), subject, id, size,
		escape(string(excerpt)), cut), " ") + "\n"
}

// escape returns s with everything that is not printable written as in a Go string.
func escape(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !strconv.IsPrint(r) }) {
		return s
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// summary is the last line: how many requests, and how they were answered.
func summary(total int, bytes int64, by map[int]int) string {
	var b strings.Builder
	noun := "requests"
	if total == 1 {
		noun = "request"
	}
	fmt.Fprintf(&b, "%d %s, %d bytes", total, noun, bytes)
	sep := ": "
	for _, status := range slices.Sorted(maps.Keys(by)) {
		fmt.Fprintf(&b, "%s%d × %d", sep, by[status], status)
		sep = ", "
	}
	return b.String() + "\n"
}
