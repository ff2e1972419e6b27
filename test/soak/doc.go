// Package soak holds the endurance test: bridged relays for a long time, while everything that can go wrong with
// clouds, proxies and devices does, at random. In the end nothing that was acknowledged is lost, everything has come in
// order, the ledgers balance, and bridged holds no more memory, goroutines and files than it did after a while.
//
// The time is -soak.time: "make soak" takes ten minutes, the gate half a minute. The seed of a run is printed, and
// -soak.seed repeats it, as far as the scheduler lets it.
//
// bridged is the test's own binary, started as a process that does what main does, so that it can be asked for what
// only the inside knows, like the number of its goroutines.
package soak
