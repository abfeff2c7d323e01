package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// help prints what --help asks for.
func help(cmd *cobra.Command, _ []string) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s.\n\n", cmd.Short)
	if cmd.Long != "" {
		fmt.Fprintf(out, "%s\n\n", cmd.Long)
	}
	writeUsage(out, cmd)
}

// usage is help without the description.
func usage(cmd *cobra.Command) error {
	writeUsage(cmd.OutOrStderr(), cmd)
	return nil
}

// writeUsage prints one screen that ends in a working example.
func writeUsage(out io.Writer, cmd *cobra.Command) {
	fmt.Fprintf(out, "Usage:\n    %s\n", strings.TrimSuffix(cmd.UseLine(), " [flags]"))
	if cmd.HasAvailableSubCommands() {
		fmt.Fprint(out, "\nCommands:\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() && c.Name() != "help" {
				fmt.Fprintf(out, "    %-12s%s\n", c.Name(), c.Short)
			}
		}
	}
	if help := cmd.Flags().Lookup("help"); help != nil {
		help.Hidden = true // whoever reads this has found it
	}
	if flags := cmd.Flags().FlagUsages(); flags != "" {
		fmt.Fprintf(out, "\nFlags:\n%s\n", indent(flags, "  "))
	}
	if cmd.Example != "" {
		fmt.Fprintf(out, "\nExample:\n%s\n", indent(cmd.Example, "    "))
	}
}

// indent puts by in front of each line and drops newlines at the end.
func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+by)
}
