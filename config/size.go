package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Units of sizes, for the defaults and bounds of the schema.
const (
	mib int64 = 1 << 20
	gib int64 = 1 << 30
)

// units of a size, each before those that end in its name.
var units = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"B", 1},
}

// parseSize reads a whole number with a unit behind it, such as 64MiB.
func parseSize(s string) (int64, bool) {
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || int64(n) > math.MaxInt64/u.bytes {
			return 0, false
		}
		return int64(n) * u.bytes, true
	}
	return 0, false
}

// formatSize writes n with the largest binary unit that keeps it whole.
func formatSize(n int64) string {
	best := units[len(units)-1]
	for _, u := range units[:4] {
		if n != 0 && n%u.bytes == 0 {
			best = u
		}
	}
	return fmt.Sprintf("%d%s", n/best.bytes, best.name)
}
