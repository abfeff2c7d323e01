package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/natsrelay/natsrelay/config"
)

// Exit statuses. systemd need not restart a relay that ends with one of the last two.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 78 // EX_CONFIG of sysexits.h
)

// A failure is an error with an exit status of its own, or with advice.
type failure struct {
	error
	status int // 0 = as the error inside says
	hints  []string
}

func (f *failure) Unwrap() error { return f.error }

// withHints adds lines of advice to an error.
func withHints(err error, hints ...string) error { return &failure{error: err, hints: hints} }

// withStatus gives an error an exit status.
func withStatus(err error, status int) error { return &failure{error: err, status: status} }

// report prints the error, if any, and returns the exit status that says the same.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return exitDone
	}
	what := err.Error()
	if problems, ok := errors.AsType[config.Errors](err); ok {
		for _, p := range problems {
			fmt.Fprintln(stderr, p) // a line each, as compilers print them, so that editors can jump there
		}
		what = "the configuration has " + count(len(problems), "problem")
	}
	fmt.Fprintf(stderr, "natsrelay: error: %s\n", what)
	status := exitFailed
	for {
		f, ok := errors.AsType[*failure](err)
		if !ok {
			return status
		}
		if status == exitFailed && f.status != 0 {
			status = f.status
		}
		for _, hint := range f.hints {
			fmt.Fprintf(stderr, "natsrelay: hint: %s\n", hint)
		}
		err = f.error
	}
}

// count returns "1 problem", "2 problems".
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
