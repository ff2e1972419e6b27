// Package transport makes WebSocket connections to a cloud, and says exactly why when it cannot.
//
// A Dialer stands for one cloud. Each Dial goes through the same stages, every time anew:
//
//	dns      resolve the name of the cloud, or of the proxy: both address families at once
//	tcp      race the addresses (RFC 8305)
//	proxy    HTTP CONNECT or SOCKS5, if there is a proxy; then dns and tcp are part of this stage
//	tls      the handshake, for wss
//	upgrade  the WebSocket handshake
//
// Each stage has a time limit, and the whole has one. What the other side can make us read or keep is bounded at each
// stage. Whatever goes wrong is a *failure.Failure, told apart by type or number, never by an error's text, and holds
// no credentials. A Trace records what happened, for those who want to show it.
//
// TCP connections are wrapped by package netconn at the bottom, also below a proxy's TLS, so that writing to the
// result never blocks.
//
// # Concurrency
//
// A Dialer and a KeyPair are safe for concurrent use. A Dial runs on its caller's goroutine; those that it starts have
// ended when it returns, except for the resolver's, which end soon after. Callbacks are called from within Dial: they
// must not block. A Trace belongs to one Dial at a time.
package transport
