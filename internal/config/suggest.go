package config

import (
	"strconv"
	"strings"
)

// suggest says which of the known words was meant, or lists them all after the intro if none is near.
func suggest(got string, known []string, intro string) string {
	best, distance := "", 1+max(1, len(got)/3)
	for _, k := range known {
		if n := editDistance(strings.ToLower(got), k); n < distance {
			best, distance = k, n
		}
	}
	if best != "" {
		return "did you mean " + strconv.Quote(best) + "?"
	}
	return intro + strings.Join(known, ", ")
}

// orList is "a", "a or b", "a, b or c".
func orList(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// longWord is where a word is no typing error any more.
const longWord = 64

// editDistance is how many characters must be inserted, removed, replaced or swapped with their neighbour to make b of
// a.
func editDistance(a, b string) int {
	if len(a) > longWord {
		return len(a)
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}

// quote shows a value that is no secret, cut where it gets long.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		return strconv.Quote(s[:most] + "...")
	}
	return strconv.Quote(s)
}
