// Package lane keeps the relay contract for one direction of one device: messages leave in the order in which they
// came, each is acknowledged to its source only when it has been taken care of, and every one is accounted for.
//
// A Lane stands between a Source, which offers messages and wants to know when each is settled, and a Consumer, which
// delivers them to the far side. Both directions of a device use the same code: upward the device's connection is the
// source and the cloud session the consumer, downward the reverse.
//
//	Offer ─▶ [ done … in flight … | queued … ⟨ on disk only ⟩ … queued ] ─▶ Deliver
//	          head                cursor     gap                  tail
//
// Messages are numbered in the order of Offer. Those before the cursor have been handed to the consumer; Attach moves
// the cursor back to the oldest message that is not done, so that everything unacknowledged goes out again, in order,
// marked as a duplicate. A message is settled when it is done, dropped with a reason, or on disk; settleLocked is the
// only way there.
//
// # On disk
//
// Lanes of a Spool share a Store. A message stays in memory, and nothing is written, as long as the far side
// acknowledges within Config.SpillAfter. Otherwise, and at once while the far side is known to be away, the lane asks
// the spool to store everything that is not on disk yet, in order. The spool's writer gathers what all lanes have,
// commits it with one sync, and then, not before, the sources are told. What is on disk and not needed soon leaves
// memory; it makes up the gap, which is read in pieces as the lane drains. So each live message before disk.saved is on
// disk, none behind it is, and order never is a merge. Deletions are lazy: they go with some later commit, and a crash
// repeats what they would have deleted.
//
// Each commit carries the lane's ledger as of that moment, counting only what is stored, so that after a crash it is
// true for what is left.
//
// A lane may be given back with Spool.Release while the others go on: everything is stored, and what is there waits
// until a lane of that name is wanted again.
//
// When the store fails nothing is settled that is not on disk; lanes go on in memory up to their bounds, and the spool
// tries again until it works.
//
// # Concurrency
//
// All methods are safe for concurrent use and never block on I/O or on the other side. Sources and consumers are
// called without any lock of the lane, so they may call it back. Calls to one consumer are made one at a time and in
// order, and so are calls to sources: a message is never reported settled before an earlier one with a source (MQTT
// 3.1.1, 4.6). They run on whichever goroutine caused them and therefore must not block.
//
// Who has several packets at hand corks the lane meanwhile, so that what comes of them goes to the other side in one
// piece: see Cork, Consumer.Flush and Batcher.
package lane
