package bench

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A process is a child under measurement.
type process struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	onStop func() // nil: nothing
}

func startProcess(b *testing.B, path string, args ...string) *process {
	b.Helper()
	p := &process{cmd: exec.Command(path, args...)}
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return p
}

func (p *process) stop(b *testing.B) {
	b.Helper()
	if p.onStop != nil {
		p.onStop()
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		if p.cmd.Args[1] != bareArg {
			b.Fatalf("%s: %v\n%s", p.cmd, err, &p.stderr)
		}
	}
}

// cpu returns the processor time that the process has used so far (proc_pid_stat(5), fields 14 and 15, in ticks of 1/100 s).
func (p *process) cpu(b *testing.B) time.Duration {
	b.Helper()
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		b.Fatalf("unexpected /proc stat: %s", stat)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
