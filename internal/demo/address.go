package demo

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
)

// splitAddress takes a listen address apart.
func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("listen address: %w", err)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("listen address %s: the port is not a number from 0 to 65535", address)
	}
	return host, int(n), nil
}

// unspecified says whether listening on host means every address.
func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// hostNames are the names and addresses that this machine is reached by when it listens on host.
func hostNames(host string) []string {
	if !unspecified(host) {
		return []string{host}
	}
	var names []string
	for _, ip := range ownAddresses() {
		names = append(names, ip.String())
	}
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	return names
}

// visibleHost is where other machines reach this one when it listens on host.
func visibleHost(host string) string {
	if !unspecified(host) {
		return host
	}
	for _, ip := range ownAddresses() {
		if ip.To4() != nil {
			return ip.String()
		}
	}
	return "127.0.0.1"
}

// ownAddresses are this machine's addresses that others may know.
func ownAddresses() (ips []net.IP) {
	addrs, _ := net.InterfaceAddrs() // none is as good as an error
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			ips = append(ips, n.IP)
		}
	}
	return ips
}

// withHost puts a host into an address, in place of one that nobody can connect to.
func withHost(address, host string) string {
	u, err := url.Parse(address)
	if err != nil || !unspecified(u.Hostname()) {
		return address
	}
	u.Host = net.JoinHostPort(host, u.Port())
	return u.String()
}
