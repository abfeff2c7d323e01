package relay

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// A logBuffer is a log that is read while timers write to it.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// take returns what has been written since the last call.
func (l *logBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return l.buf.String()
}

// What is given up is in the log at once, or a minute later if that would be too often: also when nothing more is given up by then.
func TestDropsAreLoggedWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		d := newDrops(zerolog.New(&log))
		logged := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			if got, want := log.take(), strings.Join(want, ""); got != want {
				t.Errorf("%s: the log has\n%swant\n%s", when, got, want)
			}
		}
		line := func(why, reason string, messages, total int) string {
			return fmt.Sprintf(`{"level":"warn",%s"reason":"%s","messages":%d,"total":%d,"message":"messages dropped"}`+"\n", why, reason, messages, total)
		}
		d.add(DropBufferFull, 1, nil)
		logged("the first", line("", DropBufferFull, 1, 1))
		d.add(DropBufferFull, 10, nil)
		d.add(DropBufferFull, 10, errors.New("why"))
		logged("more of them")
		d.add(DropMaxAge, 1, nil)
		logged("another reason", line("", DropMaxAge, 1, 1))
		time.Sleep(dropLogEvery)
		logged("a minute later", line(`"error":"why",`, DropBufferFull, 20, 21))
		d.add(DropBufferFull, 1, nil)
		logged("one more")
		time.Sleep(time.Hour)
		logged("an hour later", line("", DropBufferFull, 1, 22))
		d.add(DropBufferFull, 1, nil)
		logged("the first for long", line("", DropBufferFull, 1, 23))
		d.add(DropBufferFull, 2, nil)
		d.close()
		logged("the end", line("", DropBufferFull, 2, 25))
		time.Sleep(time.Hour)
		logged("after the end")
	})
}
