package sources

import "slices"

// runs is a set of stream sequences, kept as runs of neighbours: 16 bytes each. It remembers most runs at most, and forgets the lowest first.
type runs struct {
	most int
	all  []run // ascending, with gaps between them
}

type run struct{ from, to uint64 }

// add puts a sequence into the set. They come nearly in order.
func (r *runs) add(n uint64) {
	i := len(r.all) // the first run that begins after n
	for i > 0 && r.all[i-1].from > n {
		i--
	}
	switch {
	case i > 0 && n <= r.all[i-1].to:
		return
	case i > 0 && n == r.all[i-1].to+1:
		r.all[i-1].to = n
		if i < len(r.all) && r.all[i].from == n+1 {
			r.all[i-1].to = r.all[i].to
			r.all = slices.Delete(r.all, i, i+1)
		}
	case i < len(r.all) && r.all[i].from == n+1:
		r.all[i].from = n
	default:
		r.all = slices.Insert(r.all, i, run{n, n})
		if len(r.all) > r.most {
			r.all = slices.Delete(r.all, 0, len(r.all)-r.most*3/4) // some more, so that it does not move them each time
		}
	}
}

// has reports whether a sequence is in the set.
func (r *runs) has(n uint64) bool {
	_, found := slices.BinarySearchFunc(r.all, n, func(x run, n uint64) int {
		switch {
		case x.to < n:
			return -1
		case x.from > n:
			return 1
		}
		return 0
	})
	return found
}
