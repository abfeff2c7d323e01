package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

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
			return target.withState(func(stateDir string, configured map[string]bool) error {
				return s.list(cmd.OutOrStdout(), stateDir, routes, configured)
			})
		},
	}
	target.flags(cmd)
	return cmd
}

func (s shelf) list(out io.Writer, stateDir string, routes []string, configured map[string]bool) error {
	if len(routes) == 0 {
		var err error
		if routes, err = s.routes(stateDir); err != nil {
			return err
		}
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ROUTE\tMESSAGES\tBYTES\tOLDEST\tNEWEST\tSEGMENTS\tDAMAGE")
	var errs []error
	for _, route := range routes {
		if err := s.listOne(table, stateDir, route, configured == nil || configured[route]); err != nil {
			errs = append(errs, fmt.Errorf("route %s: %w", route, err))
		}
	}
	return errors.Join(append(errs, table.Flush())...)
}

func (s shelf) listOne(table io.Writer, stateDir, route string, configured bool) error {
	dir, err := s.existing(stateDir, route)
	if err != nil {
		return err
	}
	report, err := spool.Inspect(dir)
	if err != nil {
		return err
	}
	name := route
	if !configured {
		name += " (not in the configuration)"
	}
	st := report.Stats
	fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\t%d\t%s\n", name, st.Records, st.FileBytes, when(st.Oldest), when(st.Newest), st.Segments, damageOf(report))
	return nil
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// damageOf says in a word what a report has found.
func damageOf(r spool.Report) string {
	if len(r.Damage) == 0 {
		return "none"
	}
	lost := 0
	for _, d := range r.Damage {
		lost += d.Records
	}
	return fmt.Sprintf("%s, %s lost", count(len(r.Damage), "place"), count(lost, "message"))
}
