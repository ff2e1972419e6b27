// Package demo shows bridged to people who have no cloud account: Run puts simulated clouds, the real bridge and
// virtual devices into one process, tells what happens line by line, and accounts for every message; Simulate runs the
// simulated clouds alone, for trying a configuration or a firmware.
//
// A book counts the messages of one direction of one device: each must arrive, in order and once, and be acknowledged.
// A message may come twice only where a connection was lost meanwhile. What is against that is a fault, and Run fails.
//
// Run and Simulate block and leave no goroutine behind. Books and the account that is printed are safe for concurrent
// use; everything else belongs to the goroutines that Run starts.
package demo
