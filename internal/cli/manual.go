package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// WriteManual writes the manual page bridged(1) in the man macros: what the commands' help says, and what surrounds
// them.
func WriteManual(w io.Writer, version string, date time.Time) error {
	m := &manual{w: bufio.NewWriter(w)}
	root := newRoot(&options{lookupEnv: func(string) (string, bool) { return "", false }})
	m.macro(".TH BRIDGED 1 %s %s", quoted(date.UTC().Format(time.DateOnly)), quoted("bridged "+version))
	m.section("NAME")
	m.text("bridged - " + lowerFirst(root.Short))
	m.section("SYNOPSIS")
	m.macro(".B bridged")
	m.text("COMMAND [FLAG...]")
	m.section("DESCRIPTION")
	m.paragraphs(root.Long)
	m.section("COMMANDS")
	for _, c := range root.Commands() {
		m.command(c)
	}
	m.section("FLAGS OF ALL COMMANDS")
	m.flags(root.PersistentFlags())
	m.paragraphs(aroundCommands)
	return m.w.Flush()
}

// aroundCommands is what no command's help says. A line in capitals begins a section.
const aroundCommands = `FILES
/etc/bridged/config.yaml is the configuration. /usr/share/doc/bridged/configuration.md tells of every key, and
/usr/share/doc/bridged/examples/config.yaml shows them all.

/etc/bridged/secrets is a directory for secrets that only the user bridged may read.

/var/lib/bridged holds the messages that are acknowledged and not delivered. One process at a time may use it.

ENVIRONMENT
CREDENTIALS_DIRECTORY is where systemd puts the credentials that the configuration may name. NOTIFY_SOCKET,
WATCHDOG_USEC and WATCHDOG_PID are systemd's, too: bridged tells it when it is ready, how many devices are online, and
that it makes progress. HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are followed by clouds without a proxy of their
own in the configuration. NO_COLOR turns colours off.

SIGNALS
SIGTERM and SIGINT end "bridged run" in order, a second one at once. SIGHUP has it read its configuration again.

EXIT STATUS
0: fine. 1: failed. 2: the configuration or the command line is wrong.

SEE ALSO
systemd.exec(5) for LoadCredential=, mosquitto_pub(1)`

type manual struct{ w *bufio.Writer }

// macro writes a line as it is.
func (m *manual) macro(format string, args ...any) { fmt.Fprintf(m.w, format+"\n", args...) }

func (m *manual) section(title string) { m.macro(".SH %s", quoted(title)) }

// text writes lines in which nothing is a request.
func (m *manual) text(s string) {
	for line := range strings.Lines(s) {
		line = escape(strings.TrimRight(line, "\n"))
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		m.macro("%s", line)
	}
}

// paragraphs writes text with empty lines between paragraphs.
func (m *manual) paragraphs(s string) {
	begun := false // a section, or this text
	for p := range strings.SplitSeq(s, "\n\n") {
		first, rest, _ := strings.Cut(p, "\n")
		if rest != "" && first == strings.ToUpper(first) {
			m.section(first)
			p, begun = rest, false
		}
		if begun {
			m.macro(".PP")
		}
		m.text(p)
		begun = true
	}
}

func (m *manual) command(c *cobra.Command) {
	m.macro(".SS %s", quoted(strings.TrimPrefix(c.UseLine(), "bridged ")))
	long := c.Long
	if long == "" {
		long = c.Short + "."
	}
	m.paragraphs(long)
	m.flags(c.NonInheritedFlags())
	if c.Example != "" {
		m.macro(".PP\n.nf\n.RS")
		m.text(dedent(c.Example))
		m.macro(".RE\n.fi")
	}
}

func (m *manual) flags(flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		m.macro(".TP\n.B %s", escape(strings.TrimSpace(name+" "+value)))
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "0s" && f.DefValue != "[]" {
			usage += " (default " + f.DefValue + ")"
		}
		m.text(usage)
	})
}

// dedent removes the indentation of all lines.
func dedent(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimLeft(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func escape(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(s)
}

func quoted(s string) string { return `"` + strings.ReplaceAll(escape(s), `"`, `\(dq`) + `"` }

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }
