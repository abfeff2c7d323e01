package natsconn

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// A server that hangs up with a reason has it told, whichever write of the login is the first to fail.
func TestSocketTellsWhyTheServerHungUp(t *testing.T) {
	const info, reason = "INFO {}\r\n", "-ERR 'maximum connections exceeded'\r\n"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := newSocket(conn, func() bool { return true })
	defer s.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(far, info+reason); err != nil {
		t.Fatal(err)
	}
	far.Close()

	if _, err := io.ReadFull(s, make([]byte, len(info))); err != nil {
		t.Fatal(err)
	}
	wrote := 0
	for end := time.Now().Add(time.Minute); err == nil && time.Now().Before(end); time.Sleep(time.Millisecond) { // the first write makes the far side reset the connection
		_, err = io.WriteString(s, "PING\r\n")
		wrote++
	}
	if err == nil || !strings.Contains(err.Error(), "maximum connections exceeded") {
		t.Errorf("write %d: error %v, want the server's reason", wrote, err)
	}
}
