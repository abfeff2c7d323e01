package main

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/config"
	"github.com/spf13/cobra"
)

// A relayTarget is the running relay that a command talks to.
type relayTarget struct {
	config, addr, token string // flags
}

func (t *relayTarget) flags(cmd *cobra.Command) {
	configFlag(cmd, &t.config)
	t.addrFlags(cmd)
}

func (t *relayTarget) addrFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.addr, "addr", "", "`ADDRESS` of the relay (HOST:PORT, unix:/PATH, https://…), without a configuration")
	cmd.Flags().StringVar(&t.token, "token", "", "the `TOKEN` that the relay wants, if not that of the configuration")
}

// client returns a client for the relay at --addr, or that of the configuration, of which it reads no more than that.
func (t *relayTarget) client() (*admin.Client, error) {
	if t.addr != "" {
		c, err := admin.NewClient(t.addr, t.token)
		return c, withStatusIf(err, exitUsage)
	}
	cfg, path, err := load(t.config, config.LoadAdmin)
	if err != nil {
		return nil, withHints(err, "--addr ADDRESS needs no configuration")
	}
	if cfg.Listen == "" {
		return nil, fmt.Errorf("the relay of %s cannot be asked: its admin server is off ([admin] listen)", path)
	}
	token := t.token
	if token == "" {
		token = cfg.Token.Reveal()
	}
	return admin.NewClient(cfg.Listen, token)
}

// advised adds advice to the error of a relay, or of none.
func advised(err error) error {
	if _, ok := errors.AsType[*admin.NoRelayError](err); ok {
		return withHints(err, "is it running, with this configuration? --addr ADDRESS asks another one")
	}
	if answer, ok := errors.AsType[*admin.AnswerError](err); ok && answer.Code == http.StatusUnauthorized {
		return withHints(err, "--token TOKEN, or the configuration that the relay runs with (-c)")
	} else if ok && answer.Code == http.StatusNotFound {
		return withHints(err, "natsrelay status, spool ls and dead ls show what there is")
	}
	return err
}

func withStatusIf(err error, status int) error {
	if err == nil {
		return nil
	}
	return withStatus(err, status)
}
