// Package e2e holds the end-to-end tests: the real bridged, built with the race detector, as a process between programs
// that other people wrote. Mosquitto with a WebSocket listener is the cloud; mosquitto_pub, mosquitto_sub and MQTT.js
// are devices; where a test has to see every packet a raw connection is one.
//
// Everything listens on loopback. Each test starts what it needs, on ports of its own, and has ended it when it
// returns, so tests run in parallel. What a failed test's programs said is shown.
package e2e
