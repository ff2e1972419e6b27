package admin

import (
	"fmt"
	"net/http"
	"time"

	"bridged/internal/bridge"
)

// stuckAfter is for how long no look at all devices may succeed. Each one takes every lock that there is.
const stuckAfter = 30 * time.Second

// healthz says whether the process works: whether what looks at all devices comes through.
func (a *Admin) healthz(w http.ResponseWriter, r *http.Request) {
	silent := time.Since(a.started) - time.Duration(a.beat.Load())
	if silent > stuckAfter {
		refuse(w, r, Fault{
			Status: http.StatusServiceUnavailable,
			Detail: fmt.Sprintf("bridged is stuck: nothing has moved for %s", silent.Round(time.Second)),
			Remedy: "restart it, and report this with its log",
		})
		return
	}
	answer(w, r, Health{Status: "ok"})
}

// readyz says whether devices may connect and messages can be stored.
func (a *Admin) readyz(w http.ResponseWriter, r *http.Request) {
	o := a.opts.Source.Overview()
	if reasons := notReady(&o); len(reasons) > 0 {
		refuse(w, r, Fault{Status: http.StatusServiceUnavailable, Detail: reasons[0], Reasons: reasons})
		return
	}
	answer(w, r, Health{Status: "ready"})
}

// notReady is why devices cannot rely on the bridge, empty if they can.
func notReady(o *bridge.Overview) []string {
	reasons := []string{}
	switch {
	case o.Stopping:
		reasons = append(reasons, "bridged is stopping")
	case !o.Serving:
		reasons = append(reasons, "bridged is starting: devices cannot connect yet")
	}
	if f := o.Spool.Fault; f != nil {
		reasons = append(reasons, "messages cannot be stored on disk: "+f.Err.Error())
	}
	return reasons
}
