package failure

import "maps"

// table holds every kind. Its parts stand in the files that declare the kinds.
var table = join(networkTable, proxyTable, tlsTable, upgradeTable, mqttTable, gatewayTable)

func join(parts ...map[Kind]Info) map[Kind]Info {
	all := make(map[Kind]Info)
	for _, p := range parts {
		maps.Copy(all, p)
	}
	return all
}
