package demo

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"

	"github.com/nats-io/nats-server/v2/server"
)

// startServer runs a NATS server in this process; without a port it is only reached from within.
func startServer(name string, listen bool) (*server.Server, error) {
	srv, err := server.NewServer(&server.Options{
		ServerName: "demo-" + name,
		Host:       "127.0.0.1",
		Port:       server.RANDOM_PORT,
		DontListen: !listen,
		NoLog:      true,
		NoSigs:     true,
	})
	if err != nil {
		return nil, fmt.Errorf("the %s server: %w", name, err)
	}
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		stopServer(srv)
		return nil, fmt.Errorf("the %s server does not come up", name)
	}
	return srv, nil
}

func stopServer(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
}

// subscriptions returns how many subscriptions of the server get the demo's messages.
func subscriptions(srv *server.Server) (int, error) {
	sub, err := srv.Subsz(&server.SubszOptions{Subscriptions: true, Test: "demo.device.0"})
	if err != nil {
		return 0, err
	}
	return len(sub.Subs), nil
}

// listenLow listens on a free loopback port below those that the system hands out by itself, so that nobody else
// is given the port while it is closed for the outage.
func listenLow() (net.Listener, error) {
	const lowest, highest, tries = 20000, 32000, 100
	var errs []error
	for range tries {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", lowest+rand.IntN(highest-lowest)))
		if err == nil {
			return ln, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("no free port: %w", errors.Join(errs[:3]...))
}
