// Package doctor connects devices to their clouds for a person who wants to know whether that works, and if not, why.
//
// An examination goes the way that a worker goes, one stage after the other, and reports each: the configuration, the
// files of the secrets, the clock, a bridged that runs; then DNS, TCP, the proxy, TLS and the WebSocket handshake by
// package transport; then CONNECT, SUBSCRIBE of the configured filters, a PUBLISH to the device's doctor_topic if it
// has one, and DISCONNECT. The first failure ends it, except for a filter that is refused: there a session goes on,
// too.
//
// # The device's session
//
// A cloud lets one client use an identity. If a bridged runs with the same state directory and has, or is about to
// have, a session for the device, or does not tell, the examination ends before CONNECT, which would end that
// session. TakeOver connects all the same; the bridged that runs then connects again by itself.
//
// What the cloud keeps for the device must survive:
//
//   - CONNECT asks for a persistent session (clean session 0). A clean one would discard the device's subscriptions and
//     what is queued for it (MQTT 3.1.1, 3.1.2.4).
//   - Messages that come are not acknowledged, and nor is anything else, so that they come again when the device
//     connects (4.4). Only QoS 0 messages are lost, as for a device that is away.
//   - Nothing is unsubscribed. The filters that are subscribed to are those that a bridged would subscribe to.
//   - Packet identifiers are beyond those that a worker uses, so that none is taken for a repetition of its.
//   - Nothing is published with the retain flag, and there is no will.
//
// If the cloud had no session for the device, it has one now, which nobody wanted: it would queue messages, and have
// a worker believe that the cloud still knows subscriptions that expired long ago. So it is discarded by connecting
// once more, clean, and disconnecting, within the cloud's connect limit. That is done only where "session present"
// can be relied upon, and unless a bridged uses the identity; for Alibaba nobody says what that flag means, so there
// the session is left.
//
// # Concurrency
//
// A Doctor is safe for concurrent use. An examination runs on its caller's goroutine, and what it starts has ended when
// it returns. All examinations of a Doctor keep to the limits of clouds and configuration together. A Report belongs to
// whoever got it.
package doctor
