package config

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName bounds the names of devices and clouds, which stand in logs, metrics and paths of the API.
const maxName = 128

// badName says what is wrong with the name of a device or cloud, nil if nothing is.
func badName(s string) *flaw {
	bad := func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) || strings.ContainsRune(`/\`, r) }
	switch {
	case s == "":
		return &flaw{"is empty", "write a name"}
	case len(s) > maxName:
		return &flaw{fmt.Sprintf("has %d bytes", len(s)), fmt.Sprintf("write at most %d", maxName)}
	case !utf8.ValidString(s):
		return &flaw{"is not UTF-8", "save the file as UTF-8"}
	case strings.ContainsFunc(s, bad):
		return &flaw{quote(s) + " has spaces, slashes or unprintable characters", "write for example boiler-1"}
	}
	return nil
}
