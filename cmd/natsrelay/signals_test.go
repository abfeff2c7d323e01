package main

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/natsrelay/natsrelay/admin"
	"github.com/natsrelay/natsrelay/internal/natstest"
)

// TestRunOutlivesItsLog: when nobody reads the log any more, the relay goes on, and still stops in order.
func TestRunOutlivesItsLog(t *testing.T) {
	addr := "127.0.0.1:" + strconv.Itoa(natstest.FreePort(t))
	file := writeConfig(t, natstest.Start(t, "", nil).URL(), "http://127.0.0.1:9")
	withAddress(t, file, addr)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("natsrelay", "run", "-c", file) // this test's own binary: see TestMain
	cmd.Stderr = writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, unless the test has failed
	writer.Close()
	client, err := admin.NewClient(addr, "")
	if err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the relay is ready", func() bool {
		st, err := client.Status(t.Context())
		return err == nil && st.Ready
	})
	reader.Close()
	if _, err := client.Pause(t.Context(), "orders"); err != nil { // which is logged
		t.Fatal(err)
	}
	if _, err := client.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the relay has ended badly: %v", err)
	}
}

// TestDemoEndsWithItsReader: when nobody reads on, the demo ends, and leaves neither its folder nor its relay behind.
func TestDemoEndsWithItsReader(t *testing.T) {
	dir := t.TempDir()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("natsrelay", "demo")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.Stdout = writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	if _, err := reader.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	reader.Close()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitFailed {
		t.Errorf("it ended with %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, left behind: %v", err, left)
	}
}
