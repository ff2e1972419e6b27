package demo

import (
	"context"
	"fmt"
	"time"

	"bridged/internal/cloudsim"
)

// trouble is something that goes wrong with a cloud's connection.
type trouble struct {
	cloud string
	lasts bool // for the rhythm's outage; otherwise it is over at once
}

// troubles come in turn. Alibaba allows five connects a minute, so its connection is only cut.
var troubles = []trouble{{"tencent", true}, {"aliyun", false}, {"lab", true}}

// recovery is how long a bridge may need after an outage: Tencent allows a connect each five seconds.
const recovery = 8 * time.Second

// makeTrouble has an outage now and then until ctx ends, which no outage outlasts. It begins none that would not be
// over by the time the demo is.
func (s *stage) makeTrouble(ctx context.Context) {
	for i := 0; ; i++ {
		t := troubles[i%len(troubles)]
		deadline, limited := ctx.Deadline()
		if limited && time.Until(deadline) < s.opts.rhythm.calm+s.opts.rhythm.outage+recovery {
			return
		}
		if !pause(ctx, s.opts.rhythm.calm) {
			return
		}
		c := s.cloud(t.cloud)
		if !t.lasts {
			s.note(c.label(), "connection cut: the bridge signs in anew")
			c.Drop(cloudsim.All, cloudsim.CutReset)
			continue
		}
		s.note(c.label(), fmt.Sprintf("out of reach for %s: messages go to disk", s.opts.rhythm.outage))
		c.Down()
		pause(ctx, s.opts.rhythm.outage)
		if err := c.Up(); err != nil {
			s.fault(err.Error())
			return
		}
		s.note(c.label(), "within reach again: the bridge retries")
	}
}
