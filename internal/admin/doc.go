// Package admin shows how a running bridge is, over HTTP: health, metrics, a JSON API, server-sent events, and the
// status page that is built on them. It reads snapshots and changes nothing.
//
//	GET /healthz               the process works
//	GET /readyz                devices may connect, and messages can be stored
//	GET /metrics               for Prometheus
//	GET /api/v1/status         the fleet at a glance
//	GET /api/v1/devices        the devices, filtered and sorted
//	GET /api/v1/devices/NAME   one device: why it is how it is
//	GET /api/v1/events         what changes, as it changes
//	GET /api/v1/openapi.yaml   what all this looks like
//	GET /debug/pprof/          if it is turned on
//	GET /                      the status page, if there is one
//
// openapi.yaml is the contract; a test holds every answer against it. Numbers have their unit in the name: *_seconds,
// *_bytes, *_messages. What is counted from the start of the process, or longer, ends in _total.
//
// One goroutine looks at all devices now and then, for rates and events; nothing is done for a message. All methods are
// safe for concurrent use. No answer holds a secret.
package admin
