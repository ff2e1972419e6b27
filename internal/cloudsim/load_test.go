package cloudsim

import (
	"fmt"
	"sync"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

// chatter logs in, subscribes and publishes as fast as it is acknowledged, until its connection ends. It returns how
// many messages were acknowledged, and whether it was connected at all.
func chatter(c *Cloud, url, name string) (acked int, connected bool) {
	ws, resp, err := dialer(c).Dial(url, nil)
	if err != nil {
		return 0, false
	}
	defer func() { _ = ws.Close() }()
	_ = resp.Body.Close()
	in := &frameReader{ws: ws}
	send := func(p packets.ControlPacket) { _ = ws.WriteMessage(websocket.BinaryMessage, encode(p)) }
	send(login(name, true))
	send(subscribePacket(1, name+"/#", 1))
	for id := uint16(1); ; {
		p, err := packets.ReadPacket(in)
		if err != nil {
			return acked, true
		}
		switch p := p.(type) {
		case *packets.PublishPacket:
			if p.Qos > 0 {
				send(idPacket(packets.Puback, p.MessageID))
			}
		case *packets.SubackPacket:
			send(publishPacket(name+"/x", "m", 1, id))
		case *packets.PubackPacket:
			acked, id = acked+1, max(id+1, 1)
			send(publishPacket(name+"/x", "m", 1, id))
		}
	}
}

// Close in the middle of everything leaves nothing behind, and every acknowledged message is on record.
func TestCloseUnderLoad(t *testing.T) {
	before := goleak.IgnoreCurrent()
	c := start(t, Options{Kind: Generic})
	const n = 40
	acked := make([]int, n)
	var clients sync.WaitGroup
	for i := range n {
		clients.Go(func() {
			url := c.WSURL()
			if i%4 == 0 {
				url = c.WSSURL()
			}
			for { // until nobody listens any more
				n, connected := chatter(c, url, fmt.Sprint("d", i))
				acked[i] += n
				if !connected {
					return
				}
			}
		})
	}
	stop := make(chan struct{})
	var saboteur sync.WaitGroup
	saboteur.Go(func() { // every public thing at once, for the race detector
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			victim := fmt.Sprint("d", i%n)
			c.WithholdAcks(victim)
			c.Totals()
			_, _ = c.PublishAll(victim+"/x", []byte("app"), 1, true)
			_ = c.Publish(victim, victim+"/y", nil, 0)
			c.ReleaseAcks(victim)
			c.Delay(victim, 1)
			c.Heal()
			if i%n == 0 {
				c.Sessions()
				c.Drop(victim, Cut(i/n%3))
			}
		}
	})
	must(t, func() error { _, err := c.WaitReceived(ctx(t), 2000); return err }())
	c.Close()
	close(stop)
	saboteur.Wait()
	clients.Wait()
	c.Close()
	goleak.VerifyNone(t, before)
	for i := range n {
		if got := len(c.ReceivedFrom(fmt.Sprint("d", i))); got < acked[i] {
			t.Errorf("device %d: %d acknowledged, %d on record", i, acked[i], got)
		}
	}
	noViolations(t, c)
}
