package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A relayProcess is the real binary, run with one configuration, over and over.
type relayProcess struct {
	t      *testing.T
	binary string
	config string
	env    []string  // beside the test's own
	log    logBuffer // of all runs
	runs   int       // how many of them said so in the log before this one
	cmd    *exec.Cmd // nil while it does not run
}

func newRelay(t *testing.T, config string) *relayProcess {
	p := &relayProcess{t: t, binary: relayBinary(t), config: config}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the relay's log ends with:\n%s", p.log.tail(60))
			p.printStacks()
		}
		p.kill()
	})
	return p
}

// printStacks ends a relay that has not done what it should, and prints what its goroutines were at.
func (p *relayProcess) printStacks() {
	if p.cmd == nil {
		return
	}
	lines := p.log.count()
	p.cmd.Process.Signal(syscall.SIGQUIT) // an error: it has ended
	p.cmd.Wait()
	p.cmd = nil
	p.t.Logf("its goroutines:\n%s", p.log.tail(p.log.count()-lines))
}

// starting is what a run says first, when it has begun to listen for signals.
const starting = `"message":"starting"`

func (p *relayProcess) start() {
	p.t.Helper()
	p.runs = p.log.countOf(starting)
	p.cmd = exec.Command(p.binary, "run", "-c", p.config)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stderr = &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// kill is kill -9.
func (p *relayProcess) kill() {
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Kill()
	p.cmd.Wait() // an error: it was killed
	p.cmd = nil
}

// stop ends the relay in order and expects it to say that all is well.
func (p *relayProcess) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.wait()
}

// signal waits until the process takes signals: before that they end it.
func (p *relayProcess) signal(s syscall.Signal) {
	p.t.Helper()
	within(p.t, 60*time.Second, func() bool { return p.log.countOf(starting) > p.runs }, "the relay begins")
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// ended reports whether the process has ended, though nobody has waited for it yet.
func (p *relayProcess) ended() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// wait waits for the end, which must be an orderly one.
func (p *relayProcess) wait() {
	p.t.Helper()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("natsrelay run: %v", err)
	}
	p.cmd = nil
}

// command runs another command of the program, with the relay's configuration, and returns what it printed.
func (p *relayProcess) command(args ...string) string {
	p.t.Helper()
	out, err := p.try(args...)
	if err != nil {
		p.t.Fatalf("natsrelay %q: %v\n%s", args, err, out)
	}
	return out
}

// try is command for one that may fail.
func (p *relayProcess) try(args ...string) (string, error) {
	out, err := exec.Command(p.binary, append(args, "-c", p.config)...).CombinedOutput()
	return string(out), err
}

// A logBuffer keeps what a process writes.
type logBuffer struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines.Write(p)
}

func (b *logBuffer) contains(text string) bool { return b.countOf(text) > 0 }

// countOf returns how often the text is in the log.
func (b *logBuffer) countOf(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Count(b.lines.Bytes(), []byte(text))
}

// count returns how many lines there are.
func (b *logBuffer) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Count(b.lines.Bytes(), []byte("\n"))
}

func (b *logBuffer) tail(lines int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := bytes.Split(bytes.TrimSpace(b.lines.Bytes()), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// within waits until cond holds, and ends the test if it does not in time.
func within(t *testing.T, limit time.Duration, cond func() bool, what string, args ...any) {
	t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, fmt.Sprintf(what, args...))
		}
	}
}

func mkdir(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}
