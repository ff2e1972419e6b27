// Package page holds the tests of the status page in a real browser: a bridge, simulated clouds and package admin's
// server in this process, and Chromium, which is driven by its own protocol. A message in the browser's console, such
// as a violation of the content security policy, fails a test.
package page
