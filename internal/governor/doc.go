// Package governor decides when a device may dial its cloud, so that a gateway comes back after an outage as fast as
// its clouds allow and no faster. It knows nothing of sockets.
//
// A Governor, one for the process, grants dials. A dial starts when all of these allow it:
//
//   - the connect limit of the identity (Tencent: one in 5 s, Alibaba: five in a minute). What counts is CONNECT, when
//     it is answered: then it has arrived. The state belongs to the identity, not to whoever dials, so it survives
//     workers and reloads, and it is forgotten once it says nothing any more. One attempt of a limited identity is
//     under way at a time.
//   - the endpoint's and the process's rate, a token bucket each.
//   - the endpoint's and the process's dials at once. A handshake that takes longer than Config.SlowAfter is slow: it
//     makes room for another and counts towards the larger bound Limits.Open only. So an endpoint that accepts
//     connections and never answers some of them does not hold up its other devices, and one that answers none has a
//     bounded number of them.
//
// Dials that their identity's limit allows are granted first come, first served at each endpoint, and endpoints take
// turns. An endpoint that cannot take more at the moment is passed over: it does not hold up another.
//
// # Earlier processes
//
// What an identity has used up of its limit is not written down with each connect; that would wear out the flash. A
// process that ends in order leaves Used to its successor, which normally is empty. After a crash nobody knows: then
// Config.Earlier has each limited identity treated as if it had connected evenly, at its limit, until that moment. So
// a process that crashes again and again stays within the limit; only a crash right after a burst of connects may
// exceed it once. This costs Tencent's devices 5 s and Alibaba's 13 s, counted from Earlier, and nothing if the
// machine was started anew meanwhile and took that long.
//
// # Retries
//
// Retry is the other half: a state machine for each device that says how long to wait after a failure. It is pure,
// without a clock or a goroutine.
//
// # Concurrency
//
// All methods of Governor and Lease are safe for concurrent use. Whoever waits blocks in its own goroutine; there is
// none besides, and one timer for all. Each operation costs time logarithmic in the number of those who wait. A Retry
// is not safe for concurrent use.
package governor
