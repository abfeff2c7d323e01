package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// helpWidth is how wide help is: what fits a terminal that nobody has made wider.
const helpWidth = 80

// help prints what --help asks for.
func help(cmd *cobra.Command, _ []string) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s.\n\n", cmd.Short)
	if cmd.Long != "" {
		fmt.Fprintf(out, "%s\n\n", wrap(cmd.Long, helpWidth))
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
	if flags := cmd.Flags().FlagUsagesWrapped(helpWidth); flags != "" {
		fmt.Fprintf(out, "\nFlags:\n%s\n", indent(flags, "  "))
	}
	if cmd.Example != "" {
		fmt.Fprintf(out, "\nExample:\n%s\n", indent(cmd.Example, "    "))
	}
}

// wrap breaks the paragraphs of a text anew, so that no line is longer than width. Those that begin with a space are left as they are.
func wrap(text string, width int) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		if !strings.HasPrefix(p, " ") {
			paragraphs[i] = wrapParagraph(p, width)
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

func wrapParagraph(text string, width int) string {
	var out strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		length := utf8.RuneCountInString(word)
		switch {
		case column == 0:
		case column+1+length > width:
			out.WriteByte('\n')
			column = 0
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += length
	}
	return out.String()
}

// indent puts by in front of each line and drops newlines at the end.
func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+by)
}
