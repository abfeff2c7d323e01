package natsconn

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"time"
)

// A socket ends with its first failed write. nats.go drops what it could not write, and goes on
// with the connection if not one byte of it went out (a write that timed out against a full send
// buffer): later PINGs are then answered as if nothing had happened, and messages that were never
// sent would count as confirmed.
type socket struct {
	net.Conn
	unbind func() bool
	once   sync.Once
	closed chan struct{} // closed with it

	// Until nats.go waits for an answer to what it has written, it reads and writes from one goroutine.
	spoken   bool   // something has been written
	waited   bool   // and then something read
	greeting []byte // what the server has said before that
}

func newSocket(conn net.Conn, unbind func() bool) *socket {
	return &socket{Conn: conn, unbind: unbind, closed: make(chan struct{})}
}

func (s *socket) Read(p []byte) (int, error) {
	if s.spoken && !s.waited {
		s.waited, s.greeting = true, nil
	}
	n, err := s.Conn.Read(p)
	if !s.spoken {
		s.greeting = append(s.greeting, p[:n]...)
	}
	return n, err
}

func (s *socket) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	if err != nil {
		err = s.why(err)
		_ = s.Close()
		return n, err
	}
	if !s.spoken {
		s.spoken = true
	}
	return n, nil
}

func (s *socket) Close() error {
	s.unbind()
	s.once.Do(func() { close(s.closed) })
	return s.Conn.Close()
}

// why returns what made a write fail. A server that has no room for another connection says so right behind its INFO, and hangs
// up: nats.go, about to log in, would report a broken pipe. It logs in with two writes, CONNECT and PING: on the same machine it is the second that fails.
func (s *socket) why(err error) error {
	if s.waited {
		return err
	}
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) // it is here already, or will never be
	last := make([]byte, 1024)
	n, _ := s.Conn.Read(last)
	_, said, _ := bytes.Cut(append(s.greeting, last[:n]...), []byte("\r\n-ERR '"))
	text, _, ok := bytes.Cut(said, []byte("'"))
	if !ok {
		return err
	}
	return errors.New("nats: " + string(text))
}
