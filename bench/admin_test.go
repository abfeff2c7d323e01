package bench

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
)

// BenchmarkAdmin is a relay without an admin server beside relays whose admin server has 1,000 connections that ask nothing, or is
// asked for metrics and status ten times a second.
func BenchmarkAdmin(b *testing.B) {
	compare(b, 128, 600_000, httpReceiver, []contender{
		{"off", relayTo(httpLines, settings{ordering: "none", inFlight: 16})},
		{"idle1000", withAdmin(openIdle)},
		{"asked", withAdmin(askOften)},
	})
}

// withAdmin returns a relay whose admin server is kept busy by use, which ends with done.
func withAdmin(use func(b *testing.B, addr string, done <-chan struct{})) mover {
	return func(b *testing.B, src, dst string) *process {
		addr := "127.0.0.1:" + strconv.Itoa(natstest.FreePort(b))
		p := relayTo(httpLines, settings{ordering: "none", inFlight: 16, admin: addr})(b, src, dst)
		natstest.Eventually(b, "the admin server answers", func() bool {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
		done := make(chan struct{})
		p.onStop = func() { close(done) }
		use(b, addr, done)
		return p
	}
}

func openIdle(b *testing.B, addr string, done <-chan struct{}) {
	for i := range 1000 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		if i%2 == 0 { // one that has asked something is idle for a longer time
			fmt.Fprint(conn, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
		}
		go func() {
			<-done
			conn.Close()
		}()
	}
}

func askOften(_ *testing.B, addr string, done <-chan struct{}) {
	go func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			for _, path := range []string{"/metrics", "/api/v1/status", "/readyz"} {
				if res, err := http.Get("http://" + addr + path); err == nil {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			}
			select {
			case <-ticker.C:
			case <-done:
				return
			}
		}
	}()
}
