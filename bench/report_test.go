package bench

import (
	"slices"
	"testing"
)

// A cost is what some messages took.
type cost struct {
	seconds, cpu float64
	allocs       uint64
}

// report reports, of the rounds in which all contenders took their turn with so many messages, the medians of each: its throughput, its
// processor time, and both in proportion to what the first contender needed in the same round, for whoever else uses the machine disturbs
// all of a round alike. Of the ratios of throughput it reports the least and the greatest as well.
func report(b *testing.B, names []string, rounds [][]cost, messages int) {
	each := func(value func(own, first cost) float64, i int) []float64 {
		var all []float64
		for _, r := range rounds {
			all = append(all, value(r[i], r[0]))
		}
		slices.Sort(all)
		return all
	}
	median := func(all []float64) float64 { return all[len(all)/2] }
	n := float64(messages)
	for i, name := range names {
		b.ReportMetric(median(each(func(own, _ cost) float64 { return n / own.seconds }, i)), name+":msg/s")
		b.ReportMetric(median(each(func(own, _ cost) float64 { return own.cpu / n * 1e6 }, i)), name+":cpu-s/M")
		if rounds[0][i].allocs > 0 {
			b.ReportMetric(median(each(func(own, _ cost) float64 { return float64(own.allocs) / n }, i)), name+":allocs/msg")
		}
		if i > 0 {
			ratios := each(func(own, first cost) float64 { return first.seconds / own.seconds }, i)
			b.ReportMetric(median(ratios), name+":throughput-ratio")
			b.ReportMetric(ratios[0], name+":throughput-ratio-min")
			b.ReportMetric(ratios[len(ratios)-1], name+":throughput-ratio-max")
			b.ReportMetric(median(each(func(own, first cost) float64 { return own.cpu / first.cpu }, i)), name+":cpu-ratio")
		}
	}
	b.ReportMetric(0, "ns/op") // says nothing here
}
