package crash

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"golang.org/x/sync/errgroup"
)

// stateFiles describes every file of the state directory: its size, and when it was written.
func (s *site) stateFiles() map[string]string {
	s.tb.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(s.state, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files[path] = fmt.Sprintf("%d bytes, %s", info.Size(), info.ModTime())
		}
		return err
	})
	if err != nil {
		s.tb.Fatal(err)
	}
	return files
}

// unchanged waits until nothing was written to the state directory for a while, and returns it.
func (s *site) unchanged(long time.Duration) map[string]string {
	s.tb.Helper()
	last, since := s.stateFiles(), time.Now()
	until(s.tb, "nothing is written", func() bool {
		if now := s.stateFiles(); !maps.Equal(now, last) {
			last, since = now, time.Now()
		}
		return time.Since(since) >= long
	}, nil)
	return last
}

// written is how many bytes bridged has caused to be written to a disk.
func (s *site) written() int64 {
	s.tb.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.process.cmd.Process.Pid))
	if err != nil {
		s.tb.Fatal(err)
	}
	for _, l := range strings.Split(string(content), "\n") {
		if text, ok := strings.CutPrefix(l, "write_bytes: "); ok {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				s.tb.Fatal(err)
			}
			return n
		}
	}
	s.tb.Fatalf("no write_bytes in %s", content)
	return 0
}

// While the cloud acknowledges promptly nothing is written to the disk, not a byte. The same is measured where every
// message is to be written first, to see that it can be measured.
func TestNoWritesWhileHealthy(t *testing.T) {
	t.Parallel()
	for _, durability := range durabilities {
		t.Run(durability, func(t *testing.T) {
			t.Parallel()
			c := newCloud(t)
			devices := names(10)
			// A busy machine is not a slow cloud.
			queue := fmt.Sprintf("{spill_after: 10s, durability: %s}", durability)
			s := newSite(t, settings{cloud: c.WSURL(), queue: queue, devices: devices})
			s.start()
			h := newHealthy(t, c, s, devices)
			h.relay(t, 10) // the first messages
			files, bytes := s.unchanged(3*time.Second), s.written()
			each := 1000
			if durability == "always" {
				each = 100
			}
			h.relay(t, each)
			later := s.unchanged(3 * time.Second) // what is written late counts as well
			switch wrote := s.written() - bytes; {
			case durability == "always":
				if wrote == 0 || maps.Equal(files, later) {
					t.Errorf("%d bytes were written; the files before and after: %v, %v", wrote, files, later)
				}
			case wrote != 0 || !maps.Equal(files, later):
				t.Errorf("%d bytes were written; the files before and after: %v, %v", wrote, files, later)
			}
			h.stop()
			s.stop()
		})
	}
}

// healthy are devices that publish and take messages, at a cloud that is well.
type healthy struct {
	cloud *cloud
	up    []*steady
}

// steady is a device that stays connected.
type steady struct {
	name string
	link *link
	next int // number of its next message
}

func newHealthy(t *testing.T, c *cloud, s *site, devices []string) *healthy {
	t.Helper()
	s.ready()
	h := &healthy{cloud: c}
	for i, name := range devices {
		l, err := dial(t.Context(), s.addr, name, i%2 == 0)
		if err != nil {
			t.Fatal(err)
		}
		h.up = append(h.up, &steady{name: name, link: l})
		p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
		p.MessageID, p.Topics, p.Qoss = 1, []string{"down/" + name}, []byte{1}
		if err := l.send(p); err != nil {
			t.Fatal(err)
		}
		if ack, ok := (<-l.in).(*packets.SubackPacket); !ok || ack.ReturnCodes[0] != 1 {
			t.Fatalf("%s: the answer to SUBSCRIBE is %v", name, ack)
		}
	}
	t.Cleanup(h.stop)
	until(t, "all devices have subscribed", func() bool { return c.subscribed(devices) }, nil)
	return h
}

func (h *healthy) stop() {
	for _, d := range h.up {
		d.link.close()
	}
	h.up = nil
}

// relay relays messages of QoS 1, so many for each device in each direction.
func (h *healthy) relay(t *testing.T, n int) {
	t.Helper()
	var run errgroup.Group
	for _, d := range h.up {
		for i := range n {
			if err := h.cloud.Publish(d.name, "down/"+d.name, text(d.name, i), 1); err != nil {
				t.Fatal(err)
			}
		}
		run.Go(func() error { return d.exchange(n) })
	}
	if err := run.Wait(); err != nil {
		t.Fatal(err)
	}
}

// exchange publishes messages and takes as many.
func (d *steady) exchange(n int) error {
	sent, acked, got := 0, 0, 0
	for acked < n || got < n {
		for sent < n && sent-acked < 20 {
			p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
			p.TopicName, p.Payload, p.Qos = "up/"+d.name, text(d.name, d.next), 1
			p.MessageID = uint16(1 + d.next%1000)
			if err := d.link.send(p); err != nil {
				return err
			}
			sent++
			d.next++
		}
		switch p := (<-d.link.in).(type) {
		case *packets.PubackPacket:
			acked++
		case *packets.PublishPacket:
			got++
			if err := d.link.answer(packets.Puback, p.MessageID); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s got %v, with %d of %d acknowledged and %d taken", d.name, p, acked, n, got)
		}
	}
	return nil
}
