// Package arch holds the tests that keep the structure which ARCHITECTURE.md describes. It has no code.
package arch
