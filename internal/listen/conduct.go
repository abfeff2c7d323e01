package listen

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// conduct is how a request is to be answered: after how long, with what.
type conduct struct {
	wait   time.Duration
	status int
	text   string
}

func misconduct(status int, format string, args ...any) conduct {
	return conduct{status: status, text: fmt.Sprintf("natsrelay listen: "+format+"\n", args...)}
}

// conductOf reads the first elements of the path: /status/503, /slow/10s and /flaky/30 are
// obeyed, in any number and order; the first other element ends them.
func conductOf(path string) conduct {
	c := conduct{status: http.StatusOK}
	rest := path
	for {
		verb, after, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
		arg, next, _ := strings.Cut(after, "/")
		switch verb {
		case "status":
			n, err := strconv.Atoi(arg)
			if err != nil || n < 200 || n > 599 {
				return misconduct(http.StatusNotFound, "/status/ takes a number from 200 to 599")
			}
			c.status = n
		case "slow":
			d, err := time.ParseDuration(arg)
			if err != nil || d < 0 {
				return misconduct(http.StatusNotFound, "/slow/ takes a duration such as 10s")
			}
			c.wait += d
		case "flaky":
			n, err := strconv.ParseFloat(arg, 64)
			if err != nil || n < 0 || n > 100 {
				return misconduct(http.StatusNotFound, "/flaky/ takes a percentage from 0 to 100")
			}
			if rand.Float64()*100 < n {
				c.status = http.StatusServiceUnavailable
			}
		default:
			return c
		}
		rest = next
	}
}

// answer waits, writes the response, and returns its status: 503 if the request or the
// receiver ended before the wait was over.
func (c conduct) answer(ctx context.Context, w http.ResponseWriter) int {
	if c.wait > 0 {
		t := time.NewTimer(c.wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			c.status = http.StatusServiceUnavailable
		}
	}
	w.WriteHeader(c.status)
	if c.text != "" {
		_, _ = io.WriteString(w, c.text) // the client's loss if it went away
	}
	return c.status
}
