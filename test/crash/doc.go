// Package crash holds the tests of what must survive: the real bridged, built with the race detector, as a process that
// is killed with SIGKILL again and again, between devices that publish and take numbered messages and a simulated cloud
// that comes and goes. In the end every message that was acknowledged has arrived, in order, and the ledgers balance.
//
// The moments are random. Each test prints its seed, and -crash.seed repeats it, as far as the scheduler lets it.
//
// Everything listens on loopback. Each test starts what it needs and has ended it when it returns, so tests run in
// parallel.
package crash
