// Package upstream keeps each device's own session to its cloud.
//
// A Worker stands for one device. It runs one goroutine while it tries to get a cloud session because there is a
// reason to have one, and none otherwise. Each connection attempt goes through the same steps: wait for the backoff
// (governor.Retry) and for its turn (governor.Governor), sign afresh, dial (package transport), CONNECT, bring the
// cloud's subscriptions in line with what the device wants, and relay until the connection ends:
//
//	idle → waiting → signing → dialing → connecting → subscribing → online → draining → idle
//
// A session is one connection. Up: it is the consumer of the device's up lane and tells the lane which messages the
// cloud acknowledged. Down: the worker is the source of the down lane, and a message is acknowledged to the cloud
// when the lane has settled it, and only on the connection on which it came. What outlives a connection is kept in
// the worker: the packet identifiers of both directions, which make up the MQTT session's state, and the
// subscriptions.
//
// When the device needs another session, with its will or without what the cloud has kept, the present one first
// delivers what it has begun (yieldLocked). Whatever ends an attempt or a session against the worker's will is a
// *failure.Failure. A message that has the cloud close the connection each time is found out and dropped (suspicion).
//
// # Concurrency
//
// All methods of a Worker are safe for concurrent use and none waits for the network. Writing to the cloud does not
// block (package netconn), so whoever has something to send does it there and then. An event loop of that package has
// a session read, and nothing that this calls may block. A Keeper serves the timers of all workers. Locks are taken in
// the order Worker.mu, session.mu, and neither is held while a lane or a callback is called, except for the lane's
// Empty and Counters.
package upstream
