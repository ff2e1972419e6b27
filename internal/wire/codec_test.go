package wire

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

// What AppendPublish and AppendAck write, somebody else's decoder reads.
func FuzzAppendPublish(f *testing.F) {
	f.Add("a/b", []byte("x"), byte(1), true, true, uint16(7))
	f.Add("", []byte{}, byte(0), false, false, uint16(0))
	f.Add("t", bytes.Repeat([]byte("y"), 200_000), byte(2), false, true, uint16(65535))
	f.Fuzz(func(t *testing.T, topic string, payload []byte, qos byte, retain, dup bool, id uint16) {
		if len(topic) > 65535 {
			return
		}
		qos %= 3
		b := AppendPublish([]byte("before"), topic, payload, qos, retain, dup, id)
		got, err := packets.ReadPacket(bytes.NewReader(b[len("before"):]))
		if err != nil {
			t.Fatal(err)
		}
		p, ok := got.(*packets.PublishPacket)
		if !ok || p.TopicName != topic || !bytes.Equal(p.Payload, payload) || p.Qos != qos ||
			p.Retain != retain || p.Dup != dup {
			t.Errorf("got %v", got)
		}
		if qos > 0 && p.MessageID != id {
			t.Errorf("identifier %d, want %d", p.MessageID, id)
		}
	})
}

func TestAppendAck(t *testing.T) {
	for _, kind := range []byte{packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp} {
		got, err := packets.ReadPacket(bytes.NewReader(AppendAck(nil, kind, 0x1234)))
		if err != nil {
			t.Fatal(err)
		}
		if got.Details().MessageID != 0x1234 {
			t.Errorf("%T %d", got, got.Details().MessageID)
		}
		if _, ok := got.(*packets.PubrelPacket); ok && got.Details().Qos != 1 {
			t.Error("PUBREL without its reserved flag")
		}
	}
}

// Frames of every size arrive at somebody else's WebSocket server as they were sent.
func TestWriteFrame(t *testing.T) {
	got := make(chan []byte, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := new(websocket.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.Close()
		for {
			kind, p, err := ws.ReadMessage()
			if err != nil {
				return
			}
			if kind != websocket.BinaryMessage {
				t.Errorf("a message of type %d", kind)
			}
			got <- p
		}
	}))
	defer server.Close()
	ws, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+server.URL[len("http"):], nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // empty
	defer ws.Close()
	for _, n := range []int{0, 1, 7, 8, 125, 126, 127, 1000, 65535, 65536, 300_000} {
		b := make([]byte, FrameHead+n)
		for i := range n {
			b[FrameHead+i] = byte(i * 7)
		}
		want := bytes.Clone(b[FrameHead:])
		if err := WriteFrame(ws, b); err != nil {
			t.Fatal(err)
		}
		if p := <-got; !bytes.Equal(p, want) {
			t.Errorf("%d bytes arrived as %d other bytes", n, len(p))
		}
	}
}
