// Command tunnel is what bench compares bridged with: it carries the bytes of each TCP connection over a WebSocket
// connection of its own, and knows nothing about them. It does so with as little as it takes, and as well as it can be
// done in plain Go.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"os"
	"sync"

	"github.com/gorilla/websocket"
)

const bufferSize = 4 << 10

func main() {
	listen := flag.String("listen", "127.0.0.1:1883", "the address to listen on")
	url := flag.String("url", "", "the URL of the WebSocket server")
	ca := flag.String("ca", "", "a file with the authorities to trust")
	flag.Parse()
	log.Fatal(run(*listen, *url, *ca))
}

// run returns when it cannot go on.
func run(listen, url, ca string) error {
	dialer := &websocket.Dialer{
		Subprotocols: []string{"mqtt"}, ReadBufferSize: bufferSize, WriteBufferSize: bufferSize,
		WriteBufferPool: new(sync.Pool),
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return errors.New("no certificate in " + ca)
		}
		dialer.TLSClientConfig = &tls.Config{
			RootCAs: pool, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(8),
		}
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go tunnel(c, dialer, url)
	}
}

func tunnel(c net.Conn, dialer *websocket.Dialer, url string) {
	defer c.Close()
	ws, resp, err := dialer.Dial(url, nil)
	if err != nil {
		log.Print(err)
		return
	}
	_ = resp.Body.Close() // empty
	defer ws.Close()
	go func() {
		defer c.Close()
		defer ws.Close()
		up(c, ws)
	}()
	down(c, ws)
}

func up(c net.Conn, ws *websocket.Conn) {
	buf := make([]byte, bufferSize)
	for {
		n, err := c.Read(buf)
		if err != nil || ws.WriteMessage(websocket.BinaryMessage, buf[:n]) != nil {
			return
		}
	}
}

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

func down(c net.Conn, ws *websocket.Conn) {
	for {
		_, r, err := ws.NextReader()
		if err != nil {
			return
		}
		buf := buffers.Get().(*[bufferSize]byte) // only now: an idle connection needs none
		_, err = io.CopyBuffer(struct{ io.Writer }{c}, r, buf[:])
		buffers.Put(buf)
		if err != nil {
			return
		}
	}
}
