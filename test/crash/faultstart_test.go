package crash

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// bridged starts where it cannot write. Devices whose cloud is well do not notice, what was stored is delivered,
// nothing is acknowledged that is not safe, and when the disk works all goes on.
func TestStartWithoutDisk(t *testing.T) {
	t.Parallel()
	full := [2]func(*tmpfs){(*tmpfs).fill, (*tmpfs).empty}
	readOnly := [2]func(*tmpfs){func(f *tmpfs) { f.remount("ro") }, func(f *tmpfs) { f.remount("rw") }}
	for _, tc := range []struct {
		name      string
		fails     [2]func(*tmpfs) // and works again
		before    bool            // it has run there before, and stored something
		directory bool            // the state directory is there
	}{
		{"full", full, true, true},
		{"full from the first start on", full, false, false},
		{"read-only", readOnly, true, true},
		{"read-only from the first start on", readOnly, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			disk := newTmpfs(t, "2m")
			away, well := newCloud(t), newCloud(t)
			away.Down()
			devices := names(2)
			s := newSite(t, settings{
				cloud: away.WSURL(), well: well.WSURL(), state: filepath.Join(disk.dir, "state"), queue: queueYAML("spill"),
				devices: devices, each: func(i int) string { return []string{", cloud: sim", ", cloud: well"}[i] },
			})
			s.fails = true
			stored := 0
			if tc.before {
				s.start()
				s.ready()
				publish(t, s, devices[0], 0)
				s.kill()
				stored++
			} else if tc.directory {
				if err := os.Mkdir(s.state, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			tc.fails[0](disk)
			s.start()
			s.ready()
			publish(t, s, devices[1], 0)
			if err := away.Up(); err != nil {
				t.Fatal(err)
			}
			until(t, "what was stored is delivered", func() bool { return away.from(devices[0]) == stored }, s.process.said)
			away.Down()

			l, err := dial(t.Context(), s.addr, devices[0], false)
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			for n := stored; n < stored+50; n++ { // more than a full disk has room for in the file
				p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
				p.TopicName, p.Payload, p.Qos, p.MessageID = "up/"+devices[0], text(devices[0], n), 1, uint16(n+1)
				if err := l.send(p); err != nil {
					t.Fatal(err)
				}
			}
			if !tc.before || tc.name == "read-only" {
				select {
				case p := <-l.in:
					t.Fatalf("%v, although nothing can be stored", p)
				case <-time.After(2 * time.Second):
				}
				s.logged(cannotStore)
			}
			tc.fails[1](disk)
			for range 50 {
				next[*packets.PubackPacket](t, l)
			}
			s.kill()
			if err := away.Up(); err != nil {
				t.Fatal(err)
			}
			s.start()
			until(t, "all arrives", func() bool { return away.from(devices[0]) == stored+50 }, s.process.said)
			s.stop()
			s.ledger(nil)
		})
	}
}
