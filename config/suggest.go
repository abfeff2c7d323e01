package config

import (
	"slices"
	"strings"
)

// didYouMean returns `, did you mean "…"?` with the known word that is nearest to wrong, or "" if none is near.
func didYouMean(wrong string, known []string) string {
	best, most := "", 2
	if len(wrong) < 5 { // among short words nearly all are two edits apart
		most = 1
	}
	for _, word := range known {
		if strings.EqualFold(word, wrong) {
			best = word
			break
		}
		if d := distance(wrong, word, most); d <= most && (best == "" || d < distance(wrong, best, most)) {
			best = word
		}
	}
	if best == "" {
		return ""
	}
	return `, did you mean "` + best + `"?`
}

// distance counts the letters to insert, remove, replace or swap with their neighbour to make b out of a
// (optimal string alignment). It returns most+1 when a glance at the lengths shows that it is more than most.
func distance(a, b string, most int) int {
	if d := len(a) - len(b); d > most || -d > most {
		return most + 1
	}
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = slices.Min([]int{row[j] + cost, row[j+1] + 1, next[j] + 1})
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
