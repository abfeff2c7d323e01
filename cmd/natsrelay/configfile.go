package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/natsrelay/natsrelay/config"
	"github.com/spf13/cobra"
)

// defaultConfigs are where the configuration is looked for, in this order.
func defaultConfigs() []string { return []string{"relay.toml", "/etc/natsrelay/relay.toml"} }

// configFlag adds -c to a command.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "", "configuration `FILE` (default ./relay.toml, then /etc/natsrelay/relay.toml)")
	_ = cmd.MarkFlagFilename("config", "toml") // fails only if there were no such flag
}

// loadConfig reads the configuration that the command line, or nobody, has named, and returns the path of it.
func loadConfig(path string) (*config.Config, string, error) { return load(path, config.Load) }

// load reads from the configuration what read reads from a path.
func load[T any](path string, read func(string, config.Env) (T, error)) (got T, _ string, err error) {
	if path == "" {
		if path, err = findConfig(); err != nil {
			return got, "", err
		}
	}
	got, err = read(path, config.OS())
	if errors.Is(err, fs.ErrNotExist) {
		err = withHints(err, "natsrelay init > "+path)
	}
	if err != nil {
		return got, "", withStatus(err, exitConfig)
	}
	return got, path, nil
}

func findConfig() (string, error) {
	paths := defaultConfigs()
	for _, path := range paths {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path, nil // also if it cannot be read: loading it says why
		}
	}
	err := fmt.Errorf("no configuration: neither ./%s nor %s exists", paths[0], paths[1])
	return "", withHints(withStatus(err, exitConfig), "natsrelay init > relay.toml")
}
