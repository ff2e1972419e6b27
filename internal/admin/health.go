package admin

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"bridged/internal/bridge"
)

// stuckAfter is for how long nothing may move. With the unit's WatchdogSec it is what the watchdog looks for as well.
const stuckAfter = 30 * time.Second

// healthz says whether the process works: whether what looks at all devices comes through, which takes every lock that
// there is, and whether all that has to come round does.
func (a *Admin) healthz(w http.ResponseWriter, r *http.Request) {
	what := ""
	if silent := time.Since(a.started) - time.Duration(a.beat.Load()); silent > stuckAfter {
		what = fmt.Sprintf("nothing has moved for %s", silent.Round(time.Second))
	} else if names := a.opts.Source.Stuck(stuckAfter); len(names) > 0 {
		what = fmt.Sprintf("no progress for %s by %s", stuckAfter, strings.Join(names, ", "))
	}
	if what != "" {
		refuse(w, r, Fault{
			Status: http.StatusServiceUnavailable, Detail: "bridged is stuck: " + what,
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
