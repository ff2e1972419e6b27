package cli

import (
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"bridged/internal/demo"
)

// styleOf says how to print to w. What is no terminal gets UTF-8 without colour.
func styleOf(w io.Writer, env LookupEnv) demo.Style {
	if out, ok := w.(*output); ok {
		w = out.w
	}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return demo.Style{}
	}
	return terminalStyle(env)
}

// terminalStyle is colour unless NO_COLOR is set (no-color.org) or the terminal is dumb, and ASCII unless the locale
// says UTF-8.
func terminalStyle(env LookupEnv) demo.Style {
	get := func(name string) string {
		value, _ := env(name)
		return value
	}
	var locale string
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} { // in this order, says POSIX
		if locale = get(name); locale != "" {
			break
		}
	}
	locale = strings.ToUpper(strings.ReplaceAll(locale, "-", ""))
	return demo.Style{
		Colour: get("NO_COLOR") == "" && get("TERM") != "dumb",
		ASCII:  !strings.Contains(locale, "UTF8"),
	}
}
