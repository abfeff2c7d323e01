// Package memlimit tells Go's garbage collector how much memory the control group leaves the process. Under MemoryMax= of systemd, or the
// limit of a container, a heap that may double before it is collected is killed by the kernel where it could have been
// collected sooner.
//
// It reads the two files of cgroup v2, which are an interface of the kernel. Hierarchies of v1, which systemd has given up, are not
// looked for: there is no limit then, as without this package.
package memlimit

import (
	"bufio"
	"context"
	"io/fs"
	"math"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

const (
	// share is the percentage of the limit that is the collector's: the rest is for what it does not count, such as the pages of the
	// binary and of files under way to the disk.
	share = 90
	// every is how often the limit is looked at again: `systemctl set-property` can change it at any time.
	every = 30 * time.Second
)

// Follow keeps the collector's limit below that of the control group until ctx ends. root is the root of the file system. Whoever sets
// GOMEMLIMIT in the environment has decided, and does not call it.
func Follow(ctx context.Context, root fs.FS, log zerolog.Logger) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for last := int64(math.MaxInt64); ; {
		if limit := Read(root); limit != last {
			last = limit
			set(limit, log)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func set(limit int64, log zerolog.Logger) {
	if limit == math.MaxInt64 {
		debug.SetMemoryLimit(limit)
		log.Info().Msg("the control group does not limit memory any more")
		return
	}
	collector := limit / 100 * share
	debug.SetMemoryLimit(collector)
	log.Info().Int64("limit", limit).Int64("gomemlimit", collector).Msg("the garbage collector keeps within the control group's memory limit")
}

// Read returns the least limit that the control group of this process and those around it set, in bytes; math.MaxInt64 if there is none.
func Read(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	group, ok := ownGroup(root)
	for ok {
		for _, file := range []string{"memory.max", "memory.high"} {
			text, err := fs.ReadFile(root, path.Join("sys/fs/cgroup", group, file))
			if err != nil {
				continue // the root group has none, and a group without the controller neither
			}
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil { // else it is "max"
				least = min(least, n)
			}
		}
		if group == "/" {
			break
		}
		group = path.Dir(group)
	}
	return least
}

// ownGroup returns the path of the process's control group, beginning with a slash.
func ownGroup(root fs.FS) (string, bool) {
	f, err := root.Open("proc/self/cgroup")
	if err != nil {
		return "", false // not Linux
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if group, v2 := strings.CutPrefix(lines.Text(), "0::"); v2 {
			return path.Clean("/" + group), true
		}
	}
	return "", false
}
