package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version, and what it was built from and with",
		Example: "$ natsrelay version",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), versionLine())
			return err
		},
	}
}

func versionLine() string {
	return fmt.Sprintf("natsrelay %s %s %s/%s", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// buildVersion returns the version and the revision of this build, as far as Go has recorded them.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	return describeBuild(info)
}

func describeBuild(info *debug.BuildInfo) string {
	version, revision := versionOf(info)
	if revision == "" {
		return version
	}
	return version + " " + revision
}

// versionOf returns "" for a revision that is not known.
func versionOf(info *debug.BuildInfo) (version, revision string) {
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	version, revision = info.Main.Version, fmt.Sprintf("%.12s", settings["vcs.revision"])
	if version == "" {
		version = "(devel)"
	}
	if revision != "" && settings["vcs.modified"] == "true" {
		revision += "+changes"
	}
	return version, revision
}
