package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"sync"
	"time"
)

// cloud takes every login and every message. It is a broker for devices, or for one bridge that speaks for all.
type cloud struct {
	r        *run
	scheme   string // ws, wss or tcp
	listener net.Listener
	tls      *tls.Config

	mu   sync.Mutex // protects the following field
	ends map[string]*end
}

func newCloud(r *run, scheme string, cert *tls.Certificate) (*cloud, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &cloud{r: r, scheme: scheme, listener: l, ends: make(map[string]*end)}
	if scheme == "wss" {
		c.tls = &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12}
	}
	r.running.Go(c.accept)
	return c, nil
}

func (c *cloud) accept() {
	for {
		tcp, err := c.listener.Accept()
		if err != nil {
			return // the run is over
		}
		c.r.track(tcp)
		c.r.running.Go(func() { c.r.ended(c.session(tcp)) })
	}
}

func (c *cloud) session(tcp net.Conn) error {
	nc := &conn{Conn: tcp}
	if c.tls != nil {
		nc.Conn = tls.Server(tcp, c.tls)
	}
	if c.scheme != "tcp" {
		if err := nc.upgrade(); err != nil {
			return fmt.Errorf("WebSocket handshake: %w", err)
		}
	}
	e, known := newEnd(c.r, nc), false
	err := e.serve(func(head byte, body []byte) error {
		known = true
		return c.handle(e, head, body)
	}, e.flush)
	if !known {
		return nil // the tunnel carries also the connection that looked whether somebody listens
	}
	return err
}

func (c *cloud) handle(e *end, head byte, body []byte) error {
	switch head & 0xf0 {
	case connect:
		id, err := clientID(body)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.ends[id] = e
		c.mu.Unlock()
		return e.send([]byte{connack, 2, 0, 0})
	case subscribe:
		if len(body) < 2 {
			return errMalformed
		}
		all, down := filters(body)
		answer := appendHeader(nil, suback, 2+all)
		answer = append(answer, body[:2]...)
		answer = append(answer, bytes.Repeat([]byte{1}, all)...)
		c.r.subscribed.Add(int64(down))
		return e.send(answer)
	case pingreq:
		c.r.pings.Add(1)
		return e.send([]byte{pingresp, 0})
	case disconnect:
		return errClosed
	}
	return e.packet(head, body)
}

// end is where messages for a device go.
func (c *cloud) end(device uint32) *end {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.ends[deviceName(device)]; e != nil {
		return e
	}
	return c.ends[bridgeName]
}

// certificate makes one for the cloud, and the file for those who are to trust it.
func certificate(file string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, IPAddresses: []net.IP{{127, 0, 0, 1}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, fmt.Errorf("the cloud's certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
