package natsconn

import (
	"io"
	"net"
	"testing"
	"time"
)

// A write that times out before its first byte leaves the stream whole, and what it was to carry is gone.
func TestSocketEndsWithItsFirstFailedWrite(t *testing.T) {
	near, far := net.Pipe()
	s := newSocket(near, func() bool { return true })
	if err := s.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Write([]byte("PUB a 1\r\nx\r\n")); n != 0 || err == nil {
		t.Fatalf("Write: %d, %v; want nothing written and an error", n, err)
	}
	_ = s.SetWriteDeadline(time.Time{})
	if _, err := s.Write([]byte("PING\r\n")); err == nil {
		t.Error("the next write went out as if nothing had happened")
	}
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the other end reads %v, want the end of the stream", err)
	}
}
