// Package netns holds the tests of what networks do to bridged: the real program, built with the race detector, in a
// network namespace of its own, with its clouds and its devices in others. Between them are links that delay, lose or
// swallow packets, and interfaces that go down. That needs root.
//
// A link is a pair of TUN interfaces, one in each namespace. The test moves the packets from one to the other, in
// between it does to them what the kernel's netem would, which is not everywhere. Unlike a veth pair they have no
// checksums to be filled in by hardware, and no ARP that tells when the other side is gone.
//
// No packet leaves these namespaces. Each test has its own, removes them when it returns, and runs in parallel with
// others. What a killed test has left is removed by the next one.
package netns
