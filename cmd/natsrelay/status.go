package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/internal/human"
	"github.com/natsrelay/natsrelay/relay"
	"github.com/spf13/cobra"
)

func newStatus() *cobra.Command {
	var target relayTarget
	var watch, asJSON bool
	cmd := &cobra.Command{
		Use:   "status [--watch] [--json]",
		Short: "Ask the running relay how its routes stand",
		Long: `Counters begin with the relay's process. WAITING is what is in memory, what is on disk, which may be the same, and what the relay has not yet taken from its stream; DEAD are the messages that became
dead letters. A route that is not ready says why.`,
		Example: "$ natsrelay status --watch",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := target.client()
			if err != nil {
				return err
			}
			show := newStatusPrinter(cmd.OutOrStdout(), watch, asJSON).show
			if watch {
				return advised(client.Watch(cmd.Context(), show))
			}
			status, err := client.Status(cmd.Context())
			if err != nil {
				return advised(err)
			}
			return show(status)
		},
	}
	target.flags(cmd)
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again and again, with messages a second")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what the relay answers, one line each time")
	return cmd
}

// A statusPrinter shows one status after the other.
type statusPrinter struct {
	out                      io.Writer
	json, terminal, watching bool

	again  bool                         // it has shown one already:
	before map[string]admin.RouteStatus // this one,
	at     time.Time                    // of this time
}

func newStatusPrinter(out io.Writer, watching, asJSON bool) *statusPrinter {
	return &statusPrinter{out: out, json: asJSON, terminal: isTerminal(out), watching: watching}
}

func (p *statusPrinter) show(s *admin.Status) error {
	if p.json {
		return json.NewEncoder(p.out).Encode(s)
	}
	switch {
	case p.watching && p.terminal:
		_, _ = io.WriteString(p.out, "\x1b[H\x1b[J") // home, clear
	case p.again:
		_, _ = io.WriteString(p.out, "\n")
	}
	err := p.print(s)
	p.again, p.at, p.before = true, s.Time, map[string]admin.RouteStatus{}
	for _, r := range s.Routes {
		p.before[r.Name] = r
	}
	return err
}

func (p *statusPrinter) print(s *admin.Status) error {
	ready := "ready"
	switch {
	case s.Stopping:
		ready = "stopping"
	case !s.Ready:
		ready = "not ready"
	}
	if _, err := fmt.Fprintf(p.out, "%s: %s, natsrelay %s, process %d, up %v\n\n", s.Instance, ready, s.Build.Version, s.PID, s.Time.Sub(s.Began).Round(time.Second)); err != nil {
		return err
	}
	table := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "ROUTE\tSTATE\tRECEIVED\tDELIVERED\tDROPPED\tDEAD\tWAITING\tOLDEST")
	if p.watching {
		fmt.Fprint(table, "\tIN/s\tOUT/s")
	}
	fmt.Fprintln(table)
	for _, r := range s.Routes {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s", r.Name, shown(&r), r.Received, r.Delivered, sum(r.Dropped), sum(r.DeadLetters), waiting(&r), age(r.OldestAgeSeconds))
		if p.watching {
			in, out := p.rates(&r, s.Time)
			fmt.Fprintf(table, "\t%s\t%s", in, out)
		}
		fmt.Fprintln(table)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return p.troubles(s)
}

// troubles prints why what is not well is not.
func (p *statusPrinter) troubles(s *admin.Status) error {
	var lines []string
	if s.ReloadFailed {
		lines = append(lines, "the last reload failed, see the log: the configuration before it is in force")
	}
	for _, r := range s.Routes {
		for _, why := range r.Troubles {
			lines = append(lines, r.Name+" is not ready: "+why)
		}
	}
	for _, c := range s.Connections {
		if !c.Connected {
			lines = append(lines, "connection "+c.Name+" is down: "+cmp.Or(c.Trouble, "not made yet"))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(p.out, "\n%s\n", strings.Join(lines, "\n"))
	return err
}

// rates returns the messages a second since the last time, "-" at first.
func (p *statusPrinter) rates(r *admin.RouteStatus, now time.Time) (in, out string) {
	before, ok := p.before[r.Name]
	span := now.Sub(p.at).Seconds()
	if !ok || span <= 0 || before.Received > r.Received {
		return "-", "-"
	}
	perSecond := func(n uint64) string { return fmt.Sprintf("%.0f", float64(n)/span) }
	return perSecond(r.Received - before.Received), perSecond(r.Delivered - before.Delivered)
}

// shown returns the state of the route, with what its word may hide: the sink may work, and nothing arrive.
func shown(r *admin.RouteStatus) string {
	if !r.Ready && (r.State == relay.StateFlowing || r.State == relay.StateDraining) {
		return string(r.State) + ", not ready"
	}
	return string(r.State)
}

func waiting(r *admin.RouteStatus) string {
	text := fmt.Sprintf("%d in memory", r.Memory.Messages)
	if r.Disk.Messages > 0 {
		text += fmt.Sprintf(", %d on disk (%s)", r.Disk.Messages, human.Bytes(r.Disk.Bytes))
	}
	if r.SourcePending != nil && *r.SourcePending > 0 {
		text += fmt.Sprintf(", %d in the stream", *r.SourcePending)
	}
	return text
}

func age(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	d := time.Duration(seconds * float64(time.Second))
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func sum(counts map[string]uint64) (n uint64) {
	for _, v := range counts {
		n += v
	}
	return n
}
