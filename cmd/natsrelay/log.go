package main

import (
	"io"
	"os"
	"time"

	"github.com/natsrelay/natsrelay/config"
	"github.com/rs/zerolog"
	"golang.org/x/term"
)

// newLogger returns the relay's logger. It writes for eyes on a terminal and JSON elsewhere, if the configuration does not say.
func newLogger(cfg config.Log, out io.Writer) (zerolog.Logger, error) {
	if err := setLogLevel(cfg.Level); err != nil {
		return zerolog.Nop(), err
	}
	// zerolog knows these two only as settings of the whole process, as the level that all loggers share.
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	zerolog.DurationFieldFormat = zerolog.DurationFormatString

	terminal := isTerminal(out)
	out = zerolog.SyncWriter(out) // zerolog itself does not serialize
	if cfg.Format == "console" || cfg.Format == "auto" && terminal {
		out = zerolog.ConsoleWriter{Out: out, NoColor: !terminal || os.Getenv("NO_COLOR") != "", TimeFormat: time.TimeOnly + ".000"}
	}
	return zerolog.New(out).With().Timestamp().Logger(), nil
}

// setLogLevel changes what all loggers write from now on.
func setLogLevel(name string) error {
	level, err := zerolog.ParseLevel(name)
	if err == nil {
		zerolog.SetGlobalLevel(level)
	}
	return err
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
