// Command natsrelay relays messages from NATS to HTTP endpoints and to other NATS servers, through an ordered buffer
// in memory and on disk.
package main

import (
	"context"
	"io"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program but for the process: it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	parsed := false
	root := newRoot(func() { parsed = true })
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !parsed {
		err = usageFailure(cmd, err)
	}
	return report(stderr, err)
}
