package cloudsim

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/gorilla/websocket"
)

// BenchmarkIdle shows the memory of a connection, its client's side included: B/op is of no interest.
func BenchmarkIdle(b *testing.B) {
	for _, scheme := range []string{"ws", "wss"} {
		b.Run(scheme, func(b *testing.B) {
			c, err := New(Options{Kind: Generic})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			url := map[string]string{"ws": c.WSURL(), "wss": c.WSSURL()}[scheme]
			before := memory()
			clients := make([]*websocket.Conn, 0, b.N)
			for i := range b.N {
				ws, resp, err := dialer(c).Dial(url, nil)
				if err != nil {
					b.Fatal(err)
				}
				_ = resp.Body.Close()
				if err := ws.WriteMessage(websocket.BinaryMessage, encode(login(fmt.Sprint(i), true))); err != nil {
					b.Fatal(err)
				}
				if _, _, err := ws.ReadMessage(); err != nil {
					b.Fatal(err)
				}
				clients = append(clients, ws)
			}
			b.ReportMetric(float64(memory()-before)/float64(b.N), "B/conn")
			for _, ws := range clients {
				_ = ws.Close()
			}
		})
	}
}

func memory() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// BenchmarkUp is a QoS 1 message from a device and its acknowledgement, 64 at a time.
func BenchmarkUp(b *testing.B) {
	c, err := New(Options{Kind: Generic, KeepReceived: 1000})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ws, resp, err := dialer(c).Dial(c.WSURL(), nil)
	if err != nil {
		b.Fatal(err)
	}
	_ = resp.Body.Close()
	defer func() { _ = ws.Close() }()
	in := &frameReader{ws: ws}
	send := func(p []byte) {
		if err := ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
			b.Fatal(err)
		}
	}
	var buf [4]byte
	receive := func() {
		for n := 0; n < len(buf); {
			k, err := in.Read(buf[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += k
		}
	}
	send(encode(login("d", true)))
	receive()
	const burst = 64
	var all []byte
	for i := range uint16(burst) {
		all = append(all, encode(publishPacket("plant/line/temperature", "12.5 degrees Celsius", 1, i+1))...)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%burst == 0 {
			if i > 0 {
				for range burst {
					receive()
				}
			}
			send(all)
		}
	}
}
