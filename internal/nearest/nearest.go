// Package nearest finds the word that somebody meant who wrote another.
package nearest

import (
	"cmp"
	"slices"
	"strings"
)

// Of returns the one of words that word is most like; "" if it is like none.
func Of(word string, words []string) string {
	best, distance := "", 1+len(word)/2
	for _, w := range words {
		if d := editDistance(word, w); d < distance {
			best, distance = w, d
		}
	}
	return best
}

// Some returns up to n of words, those first that word is most like.
func Some(word string, words []string, n int) []string {
	list := slices.Clone(words)
	slices.SortStableFunc(list, func(a, b string) int { return cmp.Compare(editDistance(word, a), editDistance(word, b)) })
	return list[:min(n, len(list))]
}

// Want says what would be right in the place of word, as the end of a message.
func Want(word string, words []string) string {
	if best := Of(word, words); best != "" {
		return `did you mean "` + best + `"?`
	}
	switch len(words) {
	case 0:
		return "there is none"
	case 1:
		return "want " + words[0]
	}
	return "want one of " + strings.Join(words, ", ")
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
