package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/spf13/cobra"
)

// spools is the shelf of what waits to be delivered.
func spools() shelf { return shelf{command: "spool", nothing: "nothing on disk", dir: spoolDir} }

func newSpool() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "spool COMMAND ROUTE",
		Short: "Look into, check and mend what routes keep on disk",
		Long: `The commands work on the files of a relay that is stopped. A route that has been taken out of the configuration keeps its
messages on disk until they are exported or dropped.`,
		Example: "$ natsrelay spool ls",
		Args:    unknownCommand,
		RunE:    func(*cobra.Command, []string) error { return nil }, // never reached, see Args
	}
	cmd.AddCommand(newLs(spools()), newCat(spools()), newSpoolVerify(), newSpoolRepair(), newExport(spools()), newSpoolReplay(), newDrop(spools()))
	return cmd
}

// A shelf is one of the two kinds of things that routes keep on disk. They have the same files, and so the same commands.
type shelf struct {
	command string // natsrelay COMMAND
	nothing string // what a route has that has nothing there
	dir     func(stateDir, route string) string
}

// A spoolTarget is where a spool command works: the state directory of a relay that is stopped.
type spoolTarget struct {
	shelf
	config, stateDir string // flags
	create           bool   // the directory need not be there yet
}

func (s *spoolTarget) flags(cmd *cobra.Command) {
	configFlag(cmd, &s.config)
	cmd.Flags().StringVar(&s.stateDir, "state-dir", "", "work on this `DIR`, without a configuration")
	_ = cmd.MarkFlagDirname("state-dir") // fails only if there were no such flag
}

// withState calls fn with the state directory, which no relay can use until fn returns, and with the routes of the configuration, if one is used.
func (s *spoolTarget) withState(fn func(stateDir string, configured map[string]bool) error) (err error) {
	dir, configured := s.stateDir, map[string]bool(nil)
	if dir == "" {
		cfg, _, err := loadConfig(s.config)
		if err != nil {
			return withHints(err, "--state-dir DIR needs no configuration")
		}
		dir, configured = cfg.StateDir, map[string]bool{}
		for _, r := range cfg.Routes {
			configured[r.Name] = true
		}
	}
	if _, err := os.Stat(dir); err != nil && !s.create {
		return withHints(fmt.Errorf("state directory: %w", err), "the relay makes it when it runs for the first time")
	}
	lock, err := spool.LockDir(dir)
	if locked, ok := errors.AsType[*spool.LockedError](err); ok {
		return withHints(fmt.Errorf("a relay is running on %s, with the pid %d", dir, locked.PID), "stop it first: its spools can only be worked on while it is stopped")
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	return fn(dir, configured)
}

// withRoute calls fn with the folder of what a route has on the shelf.
func (s *spoolTarget) withRoute(route string, fn func(dir string) error) error {
	return s.withState(func(stateDir string, _ map[string]bool) error {
		dir, err := s.existing(stateDir, route)
		if err != nil {
			return err
		}
		return fn(dir)
	})
}

// existing returns the folder of what a route has on the shelf, or an error that says what there is instead.
func (s shelf) existing(stateDir, route string) (string, error) {
	if err := checkRouteName(route); err != nil {
		return "", err
	}
	dir := s.dir(stateDir, route)
	if _, err := os.Stat(dir); err != nil {
		routes, listErr := s.routes(stateDir)
		if errors.Is(err, os.ErrNotExist) && listErr == nil {
			err = withHints(fmt.Errorf("route %q has %s in %s", route, s.nothing, stateDir), fmt.Sprintf("the routes that have: %q", routes))
		}
		return "", err
	}
	return dir, nil
}

// checkRouteName keeps a name that no route can have from becoming a path.
func checkRouteName(route string) error {
	if !regexp.MustCompile(`^[a-z0-9_-]+$`).MatchString(route) {
		return withStatus(fmt.Errorf("%q is not the name of a route: they are made of a-z, 0-9, _ and -", route), exitUsage)
	}
	return nil
}

// routes returns the names of the routes that have a folder on the shelf.
func (s shelf) routes(stateDir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(s.dir(stateDir, "any")))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var routes []string
	for _, e := range entries {
		if e.IsDir() {
			routes = append(routes, e.Name())
		}
	}
	return routes, err
}

// exactArguments is for commands that take just these.
func exactArguments(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return fmt.Errorf("argument %s is missing", names[len(args)])
		}
		return noArguments(nil, args[len(names):])
	}
}
