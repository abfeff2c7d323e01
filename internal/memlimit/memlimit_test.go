package memlimit

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

func machine(files map[string]string) fstest.MapFS {
	fs := fstest.MapFS{}
	for name, text := range files {
		fs[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fs
}

func TestRead(t *testing.T) {
	const (
		own     = "proc/self/cgroup"
		service = "sys/fs/cgroup/system.slice/natsrelay.service/"
	)
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"not Linux":                         {nil, math.MaxInt64},
		"no limit":                          {map[string]string{own: "0::/system.slice/natsrelay.service\n", service + "memory.max": "max\n"}, math.MaxInt64},
		"MemoryMax":                         {map[string]string{own: "0::/system.slice/natsrelay.service\n", service + "memory.max": "1073741824\n"}, 1 << 30},
		"MemoryHigh below it":               {map[string]string{own: "0::/system.slice/natsrelay.service\n", service + "memory.max": "1073741824\n", service + "memory.high": "1048576\n"}, 1 << 20},
		"of the slice":                      {map[string]string{own: "0::/system.slice/natsrelay.service\n", service + "memory.max": "max\n", "sys/fs/cgroup/system.slice/memory.max": "4096\n"}, 4096},
		"a container":                       {map[string]string{own: "0::/\n", "sys/fs/cgroup/memory.max": "4096\n"}, 4096},
		"beside hierarchies of v1":          {map[string]string{own: "4:memory:/x\n0::/x\n", "sys/fs/cgroup/x/memory.max": "4096\n"}, 4096},
		"only hierarchies of v1":            {map[string]string{own: "4:memory:/x\n", "sys/fs/cgroup/x/memory.max": "4096\n"}, math.MaxInt64},
		"a group outside of the namespace":  {map[string]string{own: "0::/../x\n", "sys/fs/cgroup/x/memory.max": "4096\n"}, 4096},
		"a file that is not what it should": {map[string]string{own: "0::/x\n", "sys/fs/cgroup/x/memory.max": "lots\n"}, math.MaxInt64},
	} {
		if got := Read(machine(c.files)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestFollow(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("proc/self/cgroup", "0::/x\n")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			Follow(ctx, os.DirFS(dir), zerolog.Nop())
		}()
		for _, step := range []struct {
			max  string
			want int64
		}{{"1000000000", 900_000_000}, {"2000000000", 1_800_000_000}, {"max", math.MaxInt64}, {"1000000000", 900_000_000}} {
			write("sys/fs/cgroup/x/memory.max", step.max+"\n")
			time.Sleep(every)
			synctest.Wait()
			if got := debug.SetMemoryLimit(-1); got != step.want {
				t.Errorf("memory.max %s: limit %d, want %d", step.max, got, step.want)
			}
		}
		cancel()
		<-ended
	})
}
