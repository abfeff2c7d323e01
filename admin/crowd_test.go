package admin

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"
)

// attend lets one more connection into the crowd, and returns its far end.
func attend(t *testing.T, c *crowd) (near, far net.Conn) {
	t.Helper()
	near, far = net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	c.changed(near, http.StateNew)
	return near, far
}

// isClosed reports whether the near end of a pipe was closed.
func isClosed(far net.Conn) bool {
	far.SetReadDeadline(time.Now().Add(-time.Second))
	_, err := far.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

// Who has been without a request for the longest time goes first; who has one stays.
func TestCrowdShowsOutTheLongestQuiet(t *testing.T) {
	c := newCrowd(3)
	var near, far []net.Conn
	enter := func() {
		n, f := attend(t, c)
		near, far = append(near, n), append(far, f)
	}
	check := func(when string, gone ...int) {
		t.Helper()
		for i, conn := range far {
			if got, want := isClosed(conn), slices.Contains(gone, i); got != want {
				t.Errorf("%s: connection %d closed: %t, want %t", when, i, got, want)
			}
		}
	}
	for range 3 {
		enter()
	}
	check("as many as may be")
	c.changed(near[0], http.StateActive)
	enter()
	check("0 has a request, so 1 is the longest quiet", 1)
	c.changed(near[0], http.StateIdle)
	enter()
	check("0 has been quiet for less long than 2", 1, 2)
	c.changed(near[3], http.StateClosed) // by itself
	enter()
	check("there was room", 1, 2)
	enter()
	check("0 is the longest quiet now", 0, 1, 2)
}

// Nobody who has a request is shown out, however many there are.
func TestCrowdOfBusyOnes(t *testing.T) {
	c := newCrowd(1)
	first, farFirst := attend(t, c)
	c.changed(first, http.StateActive)
	second, farSecond := attend(t, c)
	if !isClosed(farSecond) {
		t.Error("the quiet one stays beside the busy one")
	}
	c.changed(second, http.StateClosed)
	if isClosed(farFirst) {
		t.Error("the busy one was shown out")
	}
	if len(c.conns) != 1 || c.quiet.Len() != 0 {
		t.Errorf("%d connections, %d quiet, want 1 and 0", len(c.conns), c.quiet.Len())
	}
}
