// Package control is how other processes of this machine speak to a running bridged: HTTP on a Unix socket in the state
// directory, which only its owner, and root, may use.
//
//	POST /api/v1/reload   reads the configuration again
//	GET  ...              what package admin answers, without a token
//
// Listen is for the process that holds the state directory's lock: it removes what an earlier one has left. The socket
// is left behind, too: if its process removed it at the end it might be that of the next. All functions are safe for
// concurrent use.
package control
