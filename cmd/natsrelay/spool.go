package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// spools is the shelf of what waits to be delivered.
func spools() shelf {
	return shelf{command: admin.KindSpool, nothing: "nothing on disk", dir: spoolDir}
}

func newSpool() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "spool COMMAND ROUTE",
		Short: "Look into, check and mend what routes keep on disk",
		Long: `If the relay runs, the commands ask it; else they work on its files. What is in memory alone is not shown. A route that has been taken
out of the configuration keeps its messages on disk until they are exported or dropped.`,
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

// A spoolTarget is where a spool command works: the state directory of a relay that is stopped, or the relay itself, if it runs.
type spoolTarget struct {
	shelf
	relayTarget
	stateDir string // flag
	create   bool   // the directory need not be there yet
}

func (s *spoolTarget) flags(cmd *cobra.Command) {
	s.relayTarget.flags(cmd)
	cmd.Flags().StringVar(&s.stateDir, "state-dir", "", "work on this `DIR`, without a configuration")
	_ = cmd.MarkFlagDirname("state-dir") // fails only if there were no such flag
}

// work calls stopped with the state directory, which no relay can use until it returns, and with the routes of the configuration, if one
// is used. If a relay runs on the directory, or --addr names one, it calls running instead; and so it does if the directory cannot be found, or not be
// looked into, and the configuration's relay answers: a service has its directory, and secrets that the configuration names, from systemd.
func (s *spoolTarget) work(ctx context.Context, stopped func(stateDir string, configured map[string]config.Buffer) error, running func(*admin.Client) error) (err error) {
	if s.addr != "" {
		client, err := s.client()
		if err != nil {
			return err
		}
		return advised(running(client))
	}
	dir, configured, err := s.state()
	if err != nil {
		if client := s.answering(ctx, dir); client != nil {
			return advised(running(client))
		}
		if dir == "" || !s.create || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	lock, err := spool.LockDir(dir)
	if errors.Is(err, unix.EROFS) {
		lock, err = spool.LockToRead(dir)
	}
	if locked, ok := errors.AsType[*spool.LockedError](err); ok {
		client, err := s.holder(ctx, locked)
		if err != nil {
			return err
		}
		return advised(running(client))
	}
	if err != nil {
		if client := s.answering(ctx, dir); client != nil {
			return advised(running(client))
		}
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	return stopped(dir, configured)
}

// state returns the state directory, and the routes of the configuration, if one is used. With an error the directory is not there, or, if
// it is "", not known.
func (s *spoolTarget) state() (dir string, configured map[string]config.Buffer, err error) {
	hints := []string{"the relay makes it when it runs for the first time"}
	if dir = s.stateDir; dir == "" {
		cfg, _, err := loadConfig(s.config)
		if err != nil {
			return "", nil, withHints(err, "--state-dir DIR needs no configuration")
		}
		dir, configured = cfg.StateDir, map[string]config.Buffer{}
		for _, r := range cfg.Routes {
			configured[r.Name] = r.Buffer
		}
		if dir == config.DefaultStateDir {
			hints = append(hints, "that of a service is elsewhere: --state-dir /var/lib/natsrelay")
		}
	}
	if _, err := os.Stat(dir); err != nil {
		return dir, configured, withHints(fmt.Errorf("state directory: %w", err), hints...)
	}
	return dir, configured, nil
}

// answering returns a client for the relay of the configuration, if it runs with the same directory, or else nil. "" and the default stand for any: where
// systemd has started the relay, only it knows.
func (s *spoolTarget) answering(ctx context.Context, dir string) *admin.Client {
	if s.stateDir != "" {
		return nil
	}
	client, err := s.client()
	if err != nil {
		return nil
	}
	status, err := client.Status(ctx)
	if err != nil || dir != "" && dir != config.DefaultStateDir && dir != status.StateDir {
		return nil
	}
	return client
}

// holder returns a client for the relay that holds the lock.
func (s *spoolTarget) holder(ctx context.Context, locked *spool.LockedError) (*admin.Client, error) {
	if s.stateDir != "" {
		return nil, withHints(locked, "--addr ADDRESS asks it, and so does its configuration (-c)")
	}
	client, err := s.client()
	if err != nil {
		return nil, withHints(fmt.Errorf("%w: %w", locked, err), "stop it first, or give it an [admin] address")
	}
	status, err := client.Status(ctx)
	if err != nil {
		return nil, withHints(advised(fmt.Errorf("%w: %w", locked, err)), "if that is another natsrelay spool or dead, wait for its end")
	}
	if status.PID != locked.PID {
		return nil, fmt.Errorf("%w, and the relay at %s is process %d", locked, client.Addr(), status.PID)
	}
	return client, nil
}

// workOn is work on what one route has.
func (s *spoolTarget) workOn(ctx context.Context, route string, stopped func(dir string) error, running func(*admin.Client) error) error {
	if err := checkRouteName(route); err != nil {
		return err
	}
	return s.work(ctx, func(stateDir string, _ map[string]config.Buffer) error {
		dir, err := s.existing(stateDir, route)
		if err != nil {
			return err
		}
		return stopped(dir)
	}, running)
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
			err = withHints(fmt.Errorf("route %q has %s in %s", route, s.nothing, stateDir), theseHave(routes))
		}
		return "", err
	}
	return dir, nil
}

// theseHave is advice for those who have asked for what a route does not have.
func theseHave(routes []string) string {
	if len(routes) == 0 {
		return "nor has any other route"
	}
	return "the routes that have: " + strings.Join(routes, ", ")
}

// checkRouteName keeps a name that no route can have from becoming a path.
func checkRouteName(route string) error {
	if !config.IsRouteName(route) {
		return withStatus(fmt.Errorf("%q is not the name of a route: they are made of a-z, 0-9, _ and -, 64 at most", route), exitUsage)
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
		if e.IsDir() && config.IsRouteName(e.Name()) { // what else may be there, such as lost+found, is not ours
			routes = append(routes, e.Name())
		}
	}
	return routes, err
}

// exactArguments is for commands that take just these.
func exactArguments(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return fmt.Errorf("argument %s is missing", names[len(args)])
		}
		return noArguments(cmd, args[len(names):])
	}
}
