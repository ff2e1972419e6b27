// Package cloudsim runs simulated IoT clouds on loopback: real MQTT 3.1.1 servers over WebSocket (ws and wss) that
// check logins and enforce limits like the vendor they stand for, record everything a client does, and fail on
// command. It serves tests, the demo and the sim command.
//
// A [Cloud] has two sides. Devices connect to [Cloud.WSURL] or [Cloud.WSSURL]; both share one set of sessions. The
// program that started it is the cloud's application: it publishes with [Cloud.Publish] and [Cloud.PublishAll], reads
// what devices sent with [Cloud.Received] or [Options.OnMessage], and breaks things with the fault methods of
// faults.go.
//
// The aliyun and tencent kinds deliver a device's publishes to the application only, as those clouds do; the generic
// kind is a broker, with fan-out between devices, retained messages and wills. Kinds differ in how a login is checked
// and in their [Rules], which are plain data. What a client does against the rules or against MQTT is recorded, see
// [Cloud.Violations]. Not checked: whether a device of the first two kinds keeps to its own topics.
//
// The package checks signatures by code of its own, written from the vendors' documents. It must not import the
// packages that it is meant to test: what they share, they would get wrong together.
//
// All methods of Cloud are safe for concurrent use. One mutex guards sessions, faults and records; nothing blocks
// while it is held. Each connection has one goroutine that reads, and one that writes while there is something to
// write, so a client that does not read delays nobody else. Close waits for all of them.
package cloudsim
