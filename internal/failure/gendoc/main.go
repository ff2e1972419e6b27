// Command gendoc writes docs/troubleshooting.md from the table of package failure. Run it by "go generate
// ./internal/failure" after changing the table; a test fails until then.
package main

import (
	"bytes"
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

const intro = `<!-- Generated from internal/failure by "go generate ./internal/failure". Change the table there. -->

# Troubleshooting

## A device does not get through

` + "```sh" + `
bridged doctor boiler-1      # one device, stage by stage
bridged check --online       # all of them, and what failed
` + "```" + `

` + "`doctor`" + ` connects as bridged would. It tells of each stage with its time, and explains the first that fails: what it is, what
usually causes it, and the next step. The last word of that is below, for each kind of failure. The same names are in the log
(` + "`kind`, `class`" + `) and in the metrics.

| stage | what is looked at |
| --- | --- |
| ` + "`configuration`" + ` | what the device needs can be made: certificates, the login |
| ` + "`secrets`" + ` | where its secrets are, their files' modes, and whether the service can read them |
| ` + "`clock`" + ` | whether the gateway's time can be right; ` + "`upgrade`" + ` tells what the cloud says it is |
| ` + "`daemon`" + ` | whether a bridged runs that has the device's session |
| ` + "`dns`, `tcp`" + ` | addresses, and each that was tried; of the proxy, if there is one |
| ` + "`proxy`" + ` | whether it connects to the cloud; ` + "`dns`" + ` tells which one, and by which setting |
| ` + "`tls`" + ` | version, certificates and their days left, pins, whether a client certificate was asked for and shown |
| ` + "`upgrade`" + ` | the answer to the WebSocket handshake, with the headers that matter |
| ` + "`connect`" + ` | the login, and whether the cloud had a session for the device |
| ` + "`subscribe`" + ` | the filters that are configured with ` + "`subscribe`" + `, and the cloud's verdict on each |
| ` + "`publish`" + ` | a message to the device's ` + "`doctor_topic`" + `, if one is configured; never retained |
| ` + "`goodbye`" + ` | an end in order |

A cloud allows one connection per device. If a bridged runs with the same ` + "`state_dir`" + ` that has the device's session, or does
not tell, ` + "`doctor`" + ` stops before the login: that would end the session. ` + "`--take-over`" + ` logs in all the same, and the bridged
that runs connects again by itself. Messages that wait for the device in the cloud stay there: ` + "`doctor`" + ` acknowledges none.
Where the cloud had no session for the device, the one that ` + "`doctor`" + ` made is discarded again, by a second login (not at
Alibaba, where it stays).

It has the environment and the user of the shell that it is started from: with ` + "`proxy: env`" + `, or secrets in the environment, that
may not be the service's. Devices of ` + "`passthrough`" + ` clouds cannot be tried, since they bring their logins.

### For programs

` + "`bridged doctor DEVICE --json`" + ` prints one report, ` + "`bridged check --online --json`" + ` an object with the numbers ` + "`ok`, `failed`, `held`" + `,
the names ` + "`pass_through`" + ` of entries that cannot be tried, and the reports as ` + "`devices`" + `. The exit status is 1 if a device
does not get through. Names stay as they are; others may be added.

| of a report | what it is |
| --- | --- |
| ` + "`device`, `cloud`, `url`, `at`, `duration_seconds`" + ` | what was tried, and when |
| ` + "`result`" + ` | ` + "`ok`, `failed`, or `held`" + `: all is well, without a login, since a bridged runs that has the session |
| ` + "`steps`" + ` | of each stage ` + "`stage`, `status` (`ok`, `warning`, `failed`, `skipped`), `duration_seconds`, `summary`, `notes`" + ` |
| ` + "`failure`" + ` | only if it failed: ` + "`stage`, `kind`, `class`, `reason`, `error`, `causes`, `remedy`, `retry_after_seconds`" + ` |
| ` + "`daemon`" + ` | ` + "`running`, `state`, `holds`" + ` |
| ` + "`clock`" + ` | ` + "`state` (`fine`, `unsynchronised`, `corrected`, `wrong`)" + `, and by the word of ` + "`source`: `offset_seconds`, `uncertainty_seconds`" + ` |
| ` + "`proxy`, `proxy_variable`, `addresses`, `tries`" + ` | the way out; a try has ` + "`address`, `duration_seconds`, `error`" + ` |
| ` + "`tls`, `proxy_tls`" + ` | ` + "`version`, `cipher`, `server_name`, `chain`, `pinned`, `client_certificate_asked`, `client_certificate_shown`" + `; a certificate has ` + "`subject`, `issuer`, `names`, `not_before`, `not_after`, `days_left`, `pin`" + ` |
| ` + "`http_status`, `http_headers`" + ` | the answer to the WebSocket handshake |
| ` + "`session`" + ` | ` + "`present`, `kept_messages`, `lost_qos0_messages`, `discarded`" + ` |
| ` + "`filters`" + ` | ` + "`filter`, `asked_qos`, `granted_qos`" + `, which is null if it was refused |

## What can go wrong

[connecting.md](connecting.md) says how soon each class is tried again.
`

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
