package demo

import (
	"net"
	"slices"
	"testing"
)

func TestAddresses(t *testing.T) {
	for _, host := range []string{"", "0.0.0.0", "::"} {
		visible := visibleHost(host)
		if ip := net.ParseIP(visible); ip == nil || ip.IsUnspecified() {
			t.Errorf("%q: others are told %q", host, visible)
		}
		if names := hostNames(host); visible != "127.0.0.1" && !slices.Contains(names, visible) {
			t.Errorf("%q: the certificate for %q does not hold %s", host, names, visible)
		}
	}
	for _, host := range []string{"127.0.0.1", "broker.plant"} {
		if visible, names := visibleHost(host), hostNames(host); visible != host || !slices.Equal(names, []string{host}) {
			t.Errorf("%s: %s, %s", host, visible, names)
		}
	}
	for address, want := range map[string]string{
		"wss://0.0.0.0:18001/mqtt": "wss://192.0.2.7:18001/mqtt",
		"ws://[::]:18000/":         "ws://192.0.2.7:18000/",
		"ws://127.0.0.1:18000/":    "ws://127.0.0.1:18000/",
	} {
		if got := withHost(address, "192.0.2.7"); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
