package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/config"
	"github.com/natsrelay/natsrelay/relay/spool"
	"github.com/spf13/cobra"
)

func newLs(s shelf) *cobra.Command {
	target := spoolTarget{shelf: s}
	cmd := &cobra.Command{
		Use:     "ls [ROUTE …]",
		Short:   "List what there is, with its messages, size, age and damage",
		Example: "$ natsrelay " + s.command + " ls",
		RunE: func(cmd *cobra.Command, routes []string) error {
			return target.work(cmd.Context(), func(stateDir string, configured map[string]config.Buffer) error {
				held, err := s.list(cmd.Context(), stateDir, routes, configured)
				return errors.Join(s.print(cmd.OutOrStdout(), held, " in "+stateDir), err)
			}, func(client *admin.Client) error {
				held, err := s.listRunning(cmd.Context(), client, routes)
				return errors.Join(s.print(cmd.OutOrStdout(), held, ""), err)
			})
		},
	}
	target.flags(cmd)
	return cmd
}

// list describes what the routes, or all of them, have on the shelf. configured is nil if there is no configuration.
func (s shelf) list(ctx context.Context, stateDir string, routes []string, configured map[string]config.Buffer) (all []admin.Holding, err error) {
	if len(routes) == 0 {
		if routes, err = s.routes(stateDir); err != nil {
			return nil, err
		}
	}
	var errs []error
	for _, route := range routes {
		dir, err := s.existing(stateDir, route)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		report, err := spool.Inspect(dir)
		if err != nil {
			errs = append(errs, fmt.Errorf("route %s: %w", route, err))
			continue
		}
		held := holdingOf(ctx, route, dir, report)
		if _, ok := configured[route]; !ok && configured != nil {
			held.Route += " (not in the configuration)"
		}
		all = append(all, held)
	}
	return all, errors.Join(errs...)
}

// listRunning asks the running relay.
func (s shelf) listRunning(ctx context.Context, client *admin.Client, routes []string) (all []admin.Holding, err error) {
	held, err := client.List(ctx, s.command)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, h := range held {
		if len(routes) > 0 && !slices.Contains(routes, h.Route) {
			continue
		}
		if h.Error != "" {
			errs = append(errs, fmt.Errorf("route %s: %s", h.Route, h.Error))
			continue
		}
		if !h.Runs {
			h.Route += " (does not run)"
		}
		all = append(all, h)
	}
	for _, route := range routes {
		if !slices.ContainsFunc(held, func(h admin.Holding) bool { return h.Route == route }) {
			errs = append(errs, s.hasNothing(route, held))
		}
	}
	return all, errors.Join(errs...)
}

// hasNothing is the error of a route that has nothing on the shelf of a running relay.
func (s shelf) hasNothing(route string, held []admin.Holding) error {
	routes := make([]string, len(held))
	for i, h := range held {
		routes[i] = h.Route
	}
	return withHints(fmt.Errorf("route %q has %s", route, s.nothing), theseHave(routes))
}

// holding asks the running relay what one route has.
func holding(ctx context.Context, client *admin.Client, s shelf, route string) (admin.Holding, error) {
	held, err := client.List(ctx, s.command)
	if err != nil {
		return admin.Holding{}, err
	}
	for _, h := range held {
		if h.Route == route {
			return h, nil
		}
	}
	return admin.Holding{}, s.hasNothing(route, held)
}

// print prints what there is where it was looked for.
func (s shelf) print(out io.Writer, held []admin.Holding, where string) error {
	if len(held) == 0 {
		_, err := fmt.Fprintln(out, s.nothing+where)
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ROUTE\tMESSAGES\tBYTES\tOLDEST\tNEWEST\tSEGMENTS\tDAMAGE")
	for _, h := range held {
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\t%d\t%s\n", h.Route, h.Messages, h.Bytes, when(h.Oldest), when(h.Newest), h.Segments, h.Damage)
	}
	return table.Flush()
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// damageOf says in a word what a report has found.
func damageOf(r spool.Report) string { return damageIn(reportOf(r)) }
