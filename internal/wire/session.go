package wire

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"

	"bridged/internal/credentials"
	"bridged/internal/failure"
	"bridged/internal/netconn"
	"bridged/internal/transport"
)

// Connect is the CONNECT that logs in, without a will.
func Connect(login credentials.Login, keepalive time.Duration, clean bool) *packets.ConnectPacket {
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion = "MQTT", 4
	p.ClientIdentifier = login.ClientID
	p.UsernameFlag, p.Username = login.Username != "", login.Username
	p.PasswordFlag, p.Password = login.Password != "", []byte(login.Password)
	p.Keepalive = uint16(keepalive / time.Second)
	p.CleanSession = clean
	return p
}

// Connack reads the answer to CONNECT, which may take so long. refused says that there was one, and that it was a
// refusal. The connection has a read deadline afterwards.
func (r *Reader) Connack(nc *netconn.Conn, within time.Duration) (
	present, refused bool, f *failure.Failure,
) {
	_ = nc.SetReadDeadline(time.Now().Add(within)) // fails only on a closed connection, as reading will
	p, err := r.Next()
	if err != nil {
		f := transport.ReadFailure(failure.StageConnect, err, nc)
		f.Stage = failure.StageConnect // the reader does not know
		return false, false, f
	}
	ack, ok := p.(*packets.ConnackPacket)
	if !ok {
		err := fmt.Errorf("got %T", p)
		return false, false, failure.New(failure.NoConnack, failure.StageConnect, err, "")
	}
	if ack.ReturnCode == 0 {
		return ack.SessionPresent, false, nil
	}
	f = failure.New(failure.Connack(ack.ReturnCode), failure.StageConnect, nil, "")
	if f.Kind == failure.ConnackUnknown {
		f.Detail = fmt.Sprintf("code %d", ack.ReturnCode)
	}
	return false, true, f
}

// ProtocolError is for what the cloud sends and must not.
func ProtocolError(err error, detail string, args ...any) *failure.Failure {
	return failure.New(failure.ProtocolError, failure.StageOnline, err, detail, args...)
}

// GoodbyeTimeout is how long the last packets may take to leave, and the cloud to close the connection after them.
const GoodbyeTimeout = time.Second

// Goodbye follows DISCONNECT: it ends the WebSocket connection, waits until the cloud has everything and closes, and
// reads what it still sends. To close while something is unread resets the connection, which may overtake DISCONNECT:
// the cloud would publish the will. heard says that the cloud has closed its side, too. The caller closes nc.
func Goodbye(ws *websocket.Conn, nc *netconn.Conn) (heard bool) {
	_ = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""),
		time.Now().Add(GoodbyeTimeout)) // a courtesy
	until := time.Now().Add(GoodbyeTimeout)
	nc.Drain(GoodbyeTimeout)
	if nc.Pending() > 0 || nc.CloseWrite() != nil {
		return false
	}
	_ = nc.SetReadDeadline(until)     // fails only on a closed connection, as reading will
	_, err := io.Copy(io.Discard, nc) // whatever ends it
	var timeout interface{ Timeout() bool }
	return !errors.As(err, &timeout) || !timeout.Timeout()
}
