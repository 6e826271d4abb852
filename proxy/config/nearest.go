package config

import (
	"fmt"
	"strings"
)

// unknown says that there is no such key, and which one was meant.
func unknown(key string, keys []string) string {
	best, distance := "", 1+len(key)/2
	for _, k := range keys {
		if d := editDistance(key, k); d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("there is no key %q here: did you mean %q?", key, best)
	}
	return fmt.Sprintf("there is no key %q here: want one of %s", key, strings.Join(keys, ", "))
}

// editDistance counts the letters to insert, delete, change or swap with their
// neighbour: the optimal string alignment distance.
func editDistance(a, b string) int {
	const most = 64
	if len(a) > most || len(b) > most {
		return len(a) + len(b)
	}
	var before, last, row [most + 1]int
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
