// Command gendoc writes docs/troubleshooting.md from the table of package failure. Run it by "go generate
// ./internal/failure" after changing the table; a test fails until then.
package main

import (
	"bytes"
	_ "embed" // for intro
	"fmt"
	"os"
	"strings"

	"bridged/internal/failure"
)

// target is as seen from internal/failure, where go generate runs.
const target = "../../docs/troubleshooting.md"

func main() {
	if err := os.WriteFile(target, page(), 0o644); err != nil {
		panic(err) // for the developer who runs it
	}
}

// intro is what comes before the table.
//
//go:embed intro.md
var intro string

// classes say what the classes mean.
var classes = map[failure.Class]string{
	failure.ClassNetwork:   "No way to the cloud, or it was lost.",
	failure.ClassProxy:     "The proxy cannot be reached, or refuses.",
	failure.ClassTLS:       "A certificate, or the TLS handshake.",
	failure.ClassRejected:  "The cloud does not accept the login, or something that the device asks for.",
	failure.ClassTakenOver: "Somebody else uses the device's identity.",
	failure.ClassThrottled: "The other side asks to come back later.",
	failure.ClassClock:     "The gateway's time is wrong.",
	failure.ClassProtocol:  "The other side does not speak what it should.",
	failure.ClassConfig:    "The configuration, or a file that it names.",
	failure.ClassMessage:   "The cloud ends the session when it is sent a certain message.",
}

// page is the document.
func page() []byte {
	b := bytes.NewBufferString(intro)
	for _, c := range failure.Classes() {
		fmt.Fprintf(b, "\n### %s\n\n%s\n", c, classes[c])
		for _, k := range failure.Kinds() {
			if i := k.Info(); i.Class == c {
				fmt.Fprintf(b, "\n**`%s`**: %s.\n\n", k, i.Says)
				fmt.Fprintf(b, "- Likely causes: %s.\n- Next step: %s.\n", strings.Join(i.Causes, "; "), i.Remedy)
			}
		}
	}
	return b.Bytes()
}
