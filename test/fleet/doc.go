// Package fleet holds the test of a large gateway: two thousand devices of one bridged, which is the real program, come
// back after an outage of their clouds, as fast as the clouds allow and no faster.
package fleet
