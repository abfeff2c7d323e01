package tcpproxy

import (
	"io"
	"net"
	"testing"
	"time"
)

// The client of a half-open connection is cut off; its target can write for as long as it likes, hears nothing, and is told nothing. Other connections work.
func TestHalfOpen(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	p := Start(t, target.Addr().String())
	client, server := connect(t, p, target)
	exchange(t, client, server)

	if n := p.HalfOpen(); n != 1 {
		t.Errorf("%d connections are half-open, want 1", n)
	}
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the client reads")
	}
	if _, err := server.Write(make([]byte, 32<<20)); err != nil { // more than the kernel keeps
		t.Fatalf("the target cannot write: %v", err)
	}
	_ = server.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := server.Read(make([]byte, 1)); n != 0 || !isTimeout(err) {
		t.Errorf("the target reads %d bytes, error %v", n, err)
	}

	second, atTarget := connect(t, p, target)
	exchange(t, second, atTarget)
	if n := p.HalfOpen(); n != 1 {
		t.Errorf("%d more connections are half-open, want 1", n)
	}
	if n := p.Cut(); n != 2 {
		t.Errorf("%d connections are cut, want 2", n)
	}
	_ = server.SetReadDeadline(time.Time{})
	if _, err := server.Read(make([]byte, 1)); err == nil {
		t.Error("the target reads from a connection that is cut")
	}
}

func connect(t *testing.T, p *Proxy, target net.Listener) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = target.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

// exchange sends a byte each way.
func exchange(t *testing.T, client, server net.Conn) {
	t.Helper()
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		if _, err := way[0].Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(way[1], make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}
