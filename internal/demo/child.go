package demo

import (
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"time"
)

// stopLimit is how long a relay may take to stop in order: its drain_timeout, and what comes after that.
const stopLimit = 10*time.Second + patience

// A child is the relay, in a process of its own so that it can be killed.
type child struct {
	cmd      *exec.Cmd
	expected atomic.Bool   // its end is wanted
	ended    chan struct{} // closed when it has ended
	err      error         // how it ended; valid once ended is closed
}

// startChild runs `exe run -c config`. What it logs goes to log. If it ends unasked, lost is called.
func startChild(exe, config string, log *relayLog, lost func(error)) (*child, error) {
	cmd := exec.Command(exe, "run", "-c", config)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the relay: %w", err)
	}
	c := &child{cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		c.err = cmd.Wait()
		if !c.expected.Load() {
			lost(fmt.Errorf("the relay ended by itself: %v", cmd.ProcessState))
		}
	}()
	return c, nil
}

// kill ends the relay as a power cut would end it, but for the disk: SIGKILL.
func (c *child) kill() {
	c.expected.Store(true)
	_ = c.cmd.Process.Kill() // it has ended already if this fails
	<-c.ended
}

// stop ends the relay in order, and kills it if that takes too long.
func (c *child) stop() error {
	c.expected.Store(true)
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		c.kill()
		return fmt.Errorf("stop the relay: %w", err)
	}
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	select {
	case <-c.ended:
	case <-limit.C:
		c.kill()
		return fmt.Errorf("the relay did not stop within %v", stopLimit)
	}
	if c.err != nil {
		return fmt.Errorf("the relay stopped badly: %w", c.err)
	}
	return nil
}
