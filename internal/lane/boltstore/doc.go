// Package boltstore is a lane.Store in one bbolt file, spool.db in the state directory.
//
// # What is in the file
//
//	meta     "version", and under "n" and a lane's number its direction and device
//	lanes    direction, device → the lane's number and its State
//	messages lane's number, sequence number[, part] → part of a message
//	recent   a running number → lane's number, sequence number, part, and the same part of a message
//	marks    lane's number, packet identifier → checksum
//	notes    name → value
//
// A message goes to recent first, where those of all lanes lie side by side in the order in which they came, so that a
// commit for a hundred lanes fills a few pages and does not touch one or two for each lane. When recent has grown to a
// bound, what is still needed of it is moved to messages, which is where a lane is read from in order. The index of
// recent, and nothing else of a message, is in memory. A lane that puts a page's worth or more at once puts it into
// messages directly. A message longer than a quarter of a page is cut into parts: bbolt keeps at least two, and often
// four, values in a page however long they are, and writes all of them again with each change.
//
// Every value ends with a checksum of itself and of the key that it belongs to. A delivered message stays where it is
// until enough of them can be deleted together; State.Head says which those are.
//
// # Damage
//
// bbolt trusts its file: a page that is not what it should be makes it panic, fault, recurse without end or allocate
// without bound. Therefore it gets to see only pages that were read and checked here before: the whole file's frame
// when it is opened, and each page that a commit will touch. All reading is done here, from the file descriptor. When
// something is wrong all the same, the file is set aside as spool.db.damaged-TIME and a new one is made of everything
// in it that can be read and proves true.
//
// # Concurrency
//
// Commit, Maintain and Close wait for each other; Read may be called at any time and runs beside them, in a snapshot.
// The directory is locked while a Store is open.
package boltstore
