package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// newRoot returns the command tree. It calls parsed once the command line is understood:
// an error before that is a matter of usage.
func newRoot(parsed func()) *cobra.Command {
	root := &cobra.Command{
		Use:   "natsrelay COMMAND",
		Short: "Relay messages from NATS to HTTP endpoints and other NATS servers, in order, through outages",
		Example: `$ natsrelay init > relay.toml    # a route to start from
$ natsrelay listen &             # something for it to deliver to
$ natsrelay run`,
		Args:                       unknownCommand,
		RunE:                       func(*cobra.Command, []string) error { return nil }, // never reached, see Args
		SilenceErrors:              true,
		SilenceUsage:               true,
		PersistentPreRun:           func(*cobra.Command, []string) { parsed() },
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
		Version:                    versionLine(),
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.Flags().Bool("version", false, "as natsrelay version, which is what help shows")
	_ = root.Flags().MarkHidden("version") // fails only if there were no such flag
	root.SetUsageFunc(usage)
	root.SetHelpFunc(help)
	root.AddCommand(newDemo(), newRun(), newCheck(), newInit(), newListen(), newStatus(), newPause(), newResume(), newSpool(), newDead(), newVersion(), newCompletion(), newMan())
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Example = "$ natsrelay help run"
		help.Args = namesCommand
	}
	return root
}

// namesCommand is for commands whose arguments name a command.
func namesCommand(cmd *cobra.Command, args []string) error {
	found, rest, err := cmd.Root().Find(args)
	if err == nil && len(rest) > 0 {
		err = unknownCommand(found, rest)
	}
	return err
}

// unknownCommand says what is wrong with a command line that names no command.
func unknownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("a command is missing")
	}
	err := fmt.Errorf("unknown command %q", args[0])
	if similar := root.SuggestionsFor(args[0]); len(similar) > 0 {
		return withHints(err, fmt.Sprintf("did you mean %q?", similar[0]))
	}
	return err
}

// noArguments is for commands that take flags only.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unexpected argument %q", args[0])
	if strings.HasSuffix(args[0], ".toml") && cmd.Flags().Lookup("config") != nil {
		return withHints(err, cmd.CommandPath()+" -c "+args[0])
	}
	return err
}

// usageFailure is the error of a command line that was not understood.
func usageFailure(cmd *cobra.Command, err error) error {
	if _, ok := errors.AsType[*failure](err); !ok {
		err = withHints(err, cmd.CommandPath()+" --help")
	}
	return withStatus(err, exitUsage)
}
