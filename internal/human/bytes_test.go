package human_test

import (
	"math"
	"testing"

	"github.com/natsrelay/natsrelay/internal/human"
)

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 64 << 20: "64.0 MiB", 1288490189: "1.2 GiB", math.MaxInt64: "8.0 EiB",
	} {
		if got := human.Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}
