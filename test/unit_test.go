package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// units are the files of the repository, and the names that systemd is to know them by.
var units = map[string]string{
	"natsrelay.service":  "natsrelay.service",
	"natsrelay@.service": "natsrelay@edge.service",
}

// systemdTool returns a program of the package systemd. Without it the test is skipped, except in CI.
func systemdTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("%v; apt install systemd", err)
	}
	return path
}

// The units are valid, as far as systemd can tell without running them.
func TestUnitsVerify(t *testing.T) {
	t.Parallel()
	analyze := systemdTool(t, "systemd-analyze")
	binary := relayBinary(t)
	for file, name := range units {
		unit, err := os.ReadFile(filepath.Join("../systemd", file))
		if err != nil {
			t.Fatal(err)
		}
		// It looks whether the program is there.
		path := filepath.Join(t.TempDir(), name)
		installed := strings.ReplaceAll(string(unit), "/usr/bin/natsrelay", binary)
		if err := os.WriteFile(path, []byte(installed), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify %s: %v\n%s", file, err, out)
		}
	}
}

// systemd rates the exposure of the services at 1.5 or less, of 10.
func TestUnitsExposure(t *testing.T) {
	t.Parallel()
	analyze := systemdTool(t, "systemd-analyze")
	for file := range units {
		out, err := exec.Command(analyze, "security", "--offline=yes", "--threshold=15", filepath.Join("../systemd", file)).CombinedOutput()
		overall := regexp.MustCompile(`Overall exposure level .*`).Find(out)
		if err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
		t.Logf("%s", overall)
	}
}

// Both units are one service, but for what an instance has of its own, and they agree with what the program says and does.
func TestUnitsAgree(t *testing.T) {
	t.Parallel()
	single, instance := unitSettings(t, "natsrelay.service"), unitSettings(t, "natsrelay@.service")
	if got := strings.NewReplacer(" (%i)", "", "natsrelay-%i", "natsrelay", "%i.toml", "relay.toml").Replace(instance); got != single {
		t.Errorf("natsrelay@.service is another service:\n%s\nthan natsrelay.service:\n%s", got, single)
	}
	for _, want := range []string{
		"Type=notify", "ExecReload=/bin/kill -HUP $MAINPID", "Restart=always", "RestartPreventExitStatus=78", "StateDirectory=natsrelay",
		"WatchdogSec=60s", "WatchdogSignal=SIGTERM", "MemoryMax=1G",
		"TimeoutStopSec=60s", // more than the default of drain_timeout, 25s
	} {
		if !strings.Contains(single, want+"\n") {
			t.Errorf("there is no %s", want)
		}
	}
}

// unitSettings returns a unit without its comments.
func unitSettings(t *testing.T, file string) string {
	t.Helper()
	unit, err := os.ReadFile(filepath.Join("../systemd", file))
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(string(unit), "")
}

// The user that the units name is the one that sysusers.d makes.
func TestSysusers(t *testing.T) {
	t.Parallel()
	sysusers := systemdTool(t, "systemd-sysusers")
	root, err := filepath.Abs("../systemd/natsrelay.sysusers")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mkdir(t, dir+"/etc")
	if out, err := exec.Command(sysusers, "--root="+dir, root).CombinedOutput(); err != nil {
		t.Fatalf("systemd-sysusers: %v\n%s", err, out)
	}
	passwd, err := os.ReadFile(dir + "/etc/passwd")
	if err != nil || !strings.Contains(string(passwd), "natsrelay:x:") {
		t.Errorf("%v: %s", err, passwd)
	}
}
