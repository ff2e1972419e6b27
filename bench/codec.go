package main

import (
	"encoding/binary"
	"errors"
	"strings"
)

// The packet types of MQTT 3.1.1 (2.2.1) that are spoken here, as first bytes.
const (
	connect     = 0x10
	connack     = 0x20
	publish     = 0x30
	puback      = 0x40
	subscribe   = 0x80
	suback      = 0x90
	unsubscribe = 0xA0
	pingreq     = 0xC0
	pingresp    = 0xD0
	disconnect  = 0xE0
)

var errMalformed = errors.New("malformed packet")

// split takes the first packet off a stream. ok is false if it is not complete yet.
func split(b []byte) (head byte, body, rest []byte, ok bool) {
	n, shift := 0, 0
	for i := 1; i < len(b) && i < 5; i++ {
		n |= int(b[i]&0x7f) << shift
		shift += 7
		if b[i]&0x80 == 0 {
			if len(b) < i+1+n {
				return 0, nil, b, false
			}
			return b[0], b[i+1 : i+1+n], b[i+1+n:], true
		}
	}
	return 0, nil, b, false
}

func appendHeader(b []byte, head byte, n int) []byte {
	b = append(b, head)
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// login is what devices present.
const user, password = "bench", "bench"

func appendConnect(b []byte, clientID string, keepalive uint16) []byte {
	b = appendHeader(b, connect, 10+6+len(clientID)+len(user)+len(password))
	b = appendString(b, "MQTT")
	b = append(b, 4, 0xC2, byte(keepalive>>8), byte(keepalive))
	return appendString(appendString(appendString(b, clientID), user), password)
}

func appendSubscribe(b []byte, filter string) []byte {
	b = appendHeader(b, subscribe|2, 2+2+len(filter)+1)
	b = append(b, 0, 1)
	return append(appendString(b, filter), 1)
}

// appendPublish appends a PUBLISH of QoS 1.
func appendPublish(b []byte, topic string, id uint16, payload []byte) []byte {
	b = appendHeader(b, publish|2, 2+len(topic)+2+len(payload))
	b = appendString(b, topic)
	b = binary.BigEndian.AppendUint16(b, id)
	return append(b, payload...)
}

const pubackSize = 4

func appendPuback(b []byte, id uint16) []byte { return append(b, puback, 2, byte(id>>8), byte(id)) }

// clientID is that of a CONNECT.
func clientID(body []byte) (string, error) {
	for range 2 { // the protocol's name first
		if len(body) < 2 || len(body) < 2+int(binary.BigEndian.Uint16(body)) {
			return "", errMalformed
		}
		n := int(binary.BigEndian.Uint16(body))
		if string(body[2:2+n]) != "MQTT" {
			return string(body[2 : 2+n]), nil
		}
		if len(body) < 2+n+4 {
			return "", errMalformed
		}
		body = body[2+n+4:]
	}
	return "", errMalformed
}

// filters is how many a SUBSCRIBE has, and how many of them are for messages to devices.
func filters(body []byte) (all, down int) {
	for b := body[2:]; len(b) >= 3; {
		n := int(binary.BigEndian.Uint16(b))
		if len(b) < 3+n {
			break
		}
		if strings.HasPrefix(string(b[2:2+n]), "down/") {
			down++
		}
		all++
		b = b[3+n:]
	}
	return all, down
}

// published takes a PUBLISH apart. id is 0 for QoS 0.
func published(head byte, body []byte) (id uint16, payload []byte, err error) {
	if len(body) < 2 {
		return 0, nil, errMalformed
	}
	at := 2 + int(binary.BigEndian.Uint16(body))
	if head&0x06 != 0 {
		if len(body) < at+2 {
			return 0, nil, errMalformed
		}
		id = binary.BigEndian.Uint16(body[at:])
		at += 2
	}
	if len(body) < at {
		return 0, nil, errMalformed
	}
	return id, body[at:], nil
}
