package test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/natsrelay/natsrelay/internal/natstest"
	"golang.org/x/sys/unix"
)

// mountTmpfs mounts a small file system. It needs root: without, the test is skipped, except in CI.
func mountTmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("mount a tmpfs: %v", err)
		}
		t.Skipf("mount a tmpfs: %v; run this test as root", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// The file system is filled by somebody else in an outage: the route goes on from memory, says so, and returns to the
// disk when there is room again. Nothing is lost, nothing out of order.
func TestFileSystemFull(t *testing.T) {
	t.Parallel()
	dir := mountTmpfs(t, "8m")
	ballast := filepath.Join(dir, "ballast")
	edge := natstest.Start(t, "", nil)
	web := newEndpoint(t, newTally())
	relay := newRelay(t, writeConfig(t, t.TempDir(), oneRoute, mkdir(t, dir+"/state"), edge.URL(),
		`spill_after = "0s"`+"\n"+`memory = "32MiB"`+"\n"+`disk = "64MiB"`+"\n"+`min_free = 0`, "", web.url()))
	relay.start()
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 1 }, "the relay subscribes")
	pub := edge.Client()
	web.down()
	publishAt(t, pub, 0, 2000, 5000)
	within(t, 60*time.Second, func() bool { return relay.log.contains("spilling to disk") }, "the relay spills")
	fill(t, ballast)
	publishAt(t, pub, 2000, 4000, 5000)
	within(t, 60*time.Second, func() bool { return relay.log.contains("going on from memory") }, "the relay says so")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	publishAt(t, pub, 6000, 2000, 5000)
	within(t, 60*time.Second, func() bool { return relay.log.contains("disk works again") }, "the relay returns to the disk")
	web.up()
	within(t, 60*time.Second, func() bool { return web.tally.count() == 8000 }, "all arrive")
	relay.stop()
	web.tally.check(t, "http", 8000, 16)
}

// fill writes a file until the file system has no room for another byte.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, piece := range [][]byte{make([]byte, 1<<20), make([]byte, 4096)} {
		for err == nil {
			_, err = f.Write(piece)
		}
		err = nil
	}
}

// Somebody removes the spool's folder in an outage. What was only there is lost, and counted; what comes afterwards is kept.
func TestSpoolFolderVanishes(t *testing.T) {
	t.Parallel()
	edge := natstest.Start(t, "", nil)
	web := newEndpoint(t, newTally())
	dir := t.TempDir()
	relay := newRelay(t, writeConfig(t, dir, oneRoute, mkdir(t, dir+"/state"), edge.URL(), `spill_after = "0s"`, "", web.url()))
	relay.start()
	within(t, 60*time.Second, func() bool { return edge.Interest("test.1") == 1 }, "the relay subscribes")
	pub := edge.Client()
	web.down()
	publishAt(t, pub, 0, 2000, 5000)
	within(t, 60*time.Second, func() bool { return relay.log.contains("spilling to disk") }, "the relay spills")
	// The relay may put new files there between the removal of the old ones and that of the folder.
	within(t, 60*time.Second, func() bool { return os.RemoveAll(dir+"/state/spool") == nil }, "the folder is removed")
	publishAt(t, pub, 2000, 2000, 5000)
	web.up()
	// All of it is in memory still, so nothing is lost at all.
	within(t, 60*time.Second, func() bool { return web.tally.count() == 4000 }, "all arrive")
	relay.stop()
	web.tally.check(t, "http", 4000, 16)
}
