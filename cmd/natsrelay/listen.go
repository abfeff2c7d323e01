package main

import (
	"fmt"
	"net"
	"os/signal"
	"syscall"

	"github.com/natsrelay/natsrelay/internal/listen"
	"github.com/spf13/cobra"
)

func newListen() *cobra.Command {
	return &cobra.Command{
		Use:   "listen [ADDR]",
		Short: "Receive HTTP requests and print them, to try things on",
		Long: `It prints one line for each request: time, status, method, path, Nats-Subject, Idempotency-Key, size, and the beginning
of the body. ADDR is 127.0.0.1:8080 if not given. It answers 200, and misbehaves on demand:

    /status/503    answers with this status
    /slow/10s      answers after this time
    /flaky/30      answers 503 to this percentage of the requests

They combine, and more may follow: /slow/1s/flaky/30/v1/orders.`,
		Example: `$ natsrelay listen 127.0.0.1:8080 &
$ curl -d '{"n":1}' -H 'Nats-Subject: orders.1' http://127.0.0.1:8080/flaky/30`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			addr := "127.0.0.1:8080"
			if len(args) == 1 {
				addr = args[0]
			}
			ln, err := net.Listen("tcp", addr)
			if err != nil {
				return withHints(err, "give another address, such as: natsrelay listen 127.0.0.1:8081")
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			fmt.Fprintf(cmd.ErrOrStderr(), "listening on http://%s, stop with Ctrl-C\n", ln.Addr())
			return listen.New(cmd.OutOrStdout()).Serve(ctx, ln)
		},
	}
}
