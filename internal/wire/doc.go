// Package wire is MQTT 3.1.1 as it goes over a WebSocket connection to a cloud: packets to bytes and back, and the
// parts of a session that are the same for whoever has one.
//
// Append functions are pure. A Reader belongs to one goroutine. Nothing here starts goroutines.
package wire
