// Package lane keeps the relay contract for one direction of one device: messages leave in the order in which they
// came, each is acknowledged to its source only when it has been taken care of, and every one is accounted for.
//
// A Lane stands between a Source, which offers messages and wants to know when each is settled, and a Consumer, which
// delivers them to the far side. Both directions of a device use the same code: upward the device's connection is the
// source and the cloud session the consumer, downward the reverse.
//
//	Offer ─▶ [ done … in flight … | queued … ] ─▶ Deliver
//	          head                cursor     tail
//
// Messages are numbered in the order of Offer. Those before the cursor have been handed to the consumer; Attach moves
// the cursor back to the oldest message that is not done, so that everything unacknowledged goes out again, in order,
// marked as a duplicate. A message is settled when it is done, dropped with a reason, or (once lanes have a store)
// written and synced: entry.outcome is the place for that, and settleLocked the only way there.
//
// # Concurrency
//
// All methods are safe for concurrent use and never block on I/O or on the other side. Sources and consumers are
// called without any lock of the lane, so they may call it back. Calls to one consumer are made one at a time and in
// order, and so are calls to sources: a message is never reported settled before an earlier one with a source (MQTT
// 3.1.1, 4.6). They run on whichever goroutine caused them and therefore must not block.
package lane
