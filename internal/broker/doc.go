// Package broker is the LAN side: it accepts connections from devices, checks who they are, and moves their messages
// into and out of lanes.
//
// mochi checks CONNECT and answers it, and decodes and encodes packets. After CONNACK it is let go, and the link reads
// packets itself: mochi's in-flight map is shared by both directions, its queues drop, its topic tree would carry one
// device's message to another, and each connection would keep goroutines and buffers. Every connection has an
// identifier of its own within mochi, because the devices' sessions are ours too: mochi's takeover lets two connections
// that arrive at once both live.
//
// A link is one connection. A device has at most one link at a time: a later one ends the earlier and waits until it
// has left, so that what the cloud side is told (connected, disconnected, the will that is due) is in exact order. A
// session is the MQTT session's state and outlives links if the device asked for that.
//
// Upward, the link's reader offers each message to the up lane; the acknowledgement is written when the lane has
// settled it. When the lane is full the link parks a few messages and goes on reading, so that the device's pings are
// answered, its acknowledgements count, and its end is noticed. When no more can be parked the device is not read until
// there is room. What is still parked when the link ends is forgotten: the device, which got no acknowledgement,
// repeats it. Downward, the link is the down lane's consumer.
//
// # Known gaps
//
// MQTT 3.1 allows DUP on SUBSCRIBE, UNSUBSCRIBE and PUBREL; mochi takes it for a malformed packet and the connection
// ends. While a device waits because no more can be parked it gets no answer to PINGREQ. That it has hung up is noticed
// when there is room, since it may have said DISCONNECT, and that it has vanished as well; or when it connects again. A
// connection that was reset is noticed at once.
//
// # Concurrency
//
// A login has a goroutine, and so has the end of a link. In between an event loop (package netconn) has the link
// read, and nothing that it calls may block. Writing never does, so whoever has something to send writes it there and
// then. Locks are taken in the order device.mu, session.mu, link.mu. device.mu is held over calls to lanes and to
// Upstream, which call back into sessions and links but never into a device; the other two are never held over such
// calls, but for session.mu over Marks.Mark, and neither is parking.mu, under which no other is taken.
package broker
