// Command bridged bridges plain MQTT devices on the LAN to their clouds over WebSocket.
package main

import (
	"context"
	"os"

	"bridged/internal/cli"
)

func main() {
	os.Exit(cli.Run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.LookupEnv))
}
