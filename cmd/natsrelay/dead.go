package main

import (
	"github.com/natsrelay/natsrelay/admin"
	"github.com/spf13/cobra"
)

// deadLetters is the shelf of what was given up.
func deadLetters() shelf {
	return shelf{command: admin.KindDead, nothing: "no dead letters", dir: deadDir}
}

func newDead() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead COMMAND ROUTE",
		Short: "Look into dead letters, and put them back into their routes",
		Long: `Dead letters are the messages that a route has given up and put on disk (dead_letter.to = "disk"). Each has headers that say why:
Natsrelay-Reason, -Status, -Attempts, -Route, -Time and -Error. If the relay runs, the commands ask it; else they work on its files.`,
		Example: "$ natsrelay dead ls",
		Args:    unknownCommand,
		RunE:    func(*cobra.Command, []string) error { return nil }, // never reached, see Args
	}
	s := deadLetters()
	cmd.AddCommand(newLs(s), newCat(s), newExport(s), newDeadReplay(), newDrop(s))
	return cmd
}
