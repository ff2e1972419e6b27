package cli

import (
	"fmt"
	"net"
	"strconv"
)

// checkAddress checks a flag that takes an address to listen on.
func checkAddress(flag, value, example string) error {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return misused(fmt.Errorf("--%s %q is not HOST:PORT", flag, value),
			fmt.Sprintf("write for example --%s %s", flag, example))
	}
	return nil
}
