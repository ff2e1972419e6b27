package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"bridged/internal/bridge"
	"bridged/internal/config"
	"bridged/internal/credentials"
	"bridged/internal/failure"
	"bridged/internal/governor"
	"bridged/internal/transport"
	"bridged/internal/upstream"
)

// walk is an examination of a device.
type walk struct {
	d      *Doctor
	dev    *config.Device
	tell   func(Step)
	report *Report
	// failure is the first one.
	failure *failure.Failure

	dialer *transport.Dialer
	target transport.Target
}

func newWalk(d *Doctor, dev *config.Device, tell func(Step)) *walk {
	return &walk{d: d, dev: dev, tell: tell, report: &Report{
		Device: dev.Name, Cloud: dev.Cloud.Name, URL: URLOf(dev.Cloud),
		At: time.Now(), Result: Passed, Steps: []Step{},
	}}
}

// URLOf is a cloud's URL without its query, which may hold a token.
func URLOf(c *config.Cloud) string {
	u := *c.URL
	u.RawQuery = ""
	return u.Redacted()
}

// run goes through the stages until one of them fails.
func (w *walk) run(ctx context.Context) {
	ask := func(s *Step) *failure.Failure { return w.daemon(ctx, s) }
	if !w.step(ctx, Configuration, w.configuration) || !w.step(ctx, Secrets, w.secrets) ||
		!w.step(ctx, Clock, w.clock) || !w.step(ctx, Daemon, ask) {
		return
	}
	lease, err := w.d.governor.Wait(ctx, w.dial())
	if err != nil { // it is ctx's
		w.step(ctx, Connect, nil)
		return
	}
	defer lease.Done()
	s := w.reach(ctx)
	if s == nil {
		return
	}
	defer s.close()
	if w.report.Daemon.Holds && !w.d.opts.TakeOver {
		w.report.Result = Held
		w.skip(Connect, "it would end the session of the bridged that runs; --take-over connects all the same")
		return
	}
	stop := context.AfterFunc(ctx, s.abort)
	defer stop()
	w.talk(ctx, s, lease)
}

// dial is what the governor is asked.
func (w *walk) dial() governor.Dial {
	return governor.Dial{
		Endpoint: w.dev.Cloud.URL.Host, Identity: bridge.ConnectKey(w.dev), Limit: w.dev.Cloud.Limits.Connects,
	}
}

// step goes through a stage and reports it. It returns whether the stage did not fail.
func (w *walk) step(ctx context.Context, stage Stage, run func(*Step) *failure.Failure) bool {
	s := Step{Stage: stage, Status: OK}
	began := time.Now()
	var f *failure.Failure
	if ctx.Err() == nil {
		f = run(&s)
	}
	s.Seconds = time.Since(began).Seconds()
	if err := ctx.Err(); err != nil { // whatever it looked like to the stage
		f = failure.New(failure.Cancelled, failure.StageOnline, err, "")
	}
	if f != nil {
		s.Status, s.Summary = Failed, f.Error()
		w.fail(stage, f)
	}
	w.add(s)
	return f == nil
}

func (w *walk) skip(stage Stage, why string) {
	w.add(Step{Stage: stage, Status: Skipped, Summary: why})
}

func (w *walk) add(s Step) {
	w.report.Steps = append(w.report.Steps, s)
	if w.tell != nil {
		w.tell(s)
	}
}

// fail notes the first failure.
func (w *walk) fail(stage Stage, f *failure.Failure) {
	if w.failure != nil {
		return
	}
	w.failure = upstream.BlameClock(f, bridge.Timed(w.dev), w.d.clock.State())
	w.report.Result, w.report.Failure = Broken, failed(stage, w.failure)
}

func (w *walk) done() *Report {
	w.report.Seconds = time.Since(w.report.At).Seconds()
	return w.report
}

// configuration makes what is needed to connect, as a worker would.
func (w *walk) configuration(s *Step) *failure.Failure {
	c := w.dev.Cloud
	var err error
	if w.dialer, err = w.d.dialer(c); err != nil {
		return failure.New(failure.Settings, failure.StageConfig, err, "")
	}
	w.target.URL = c.URL
	if files := w.dev.ClientCertificate; files.CertFile != "" && c.URL.Scheme == "wss" {
		pair, err := transport.LoadKeyPair(files.CertFile, files.KeyFile, nil)
		if err != nil {
			return failure.New(failure.TLSClientCertUnusable, failure.StageConfig, err, "")
		}
		w.target.Certificate = pair
		left := transport.Certificate{NotAfter: pair.Expires()}.DaysLeft(w.d.clock.Now())
		note(s, left < soon, "client certificate %s: %s", files.CertFile, daysLeft(left))
	}
	if _, f := w.sign(); f != nil {
		return f
	}
	s.Summary = fmt.Sprintf("%s, cloud %s (%s)", w.d.cfg.File, c.Name, c.Provider)
	if len(w.d.cfg.Warnings) > 0 {
		note(s, false, `there are warnings about the configuration: "bridged check" shows them`)
	}
	return nil
}

// sign makes the login for now.
func (w *walk) sign() (credentials.Login, *failure.Failure) {
	login, err := w.dev.Identity.Sign(w.d.clock.Now(), rand.Text()[:credentials.NonceLength])
	if err != nil {
		return login, failure.New(failure.NoCredentials, failure.StageConfig, err, "")
	}
	return login, nil
}

// note adds a line to a step. alarm makes the step a warning.
func note(s *Step, alarm bool, format string, args ...any) {
	s.Notes = append(s.Notes, fmt.Sprintf(format, args...))
	if alarm && s.Status == OK {
		s.Status = Warning
	}
}

// soon is how many days before its end a certificate is worth a warning.
const soon = 30

func daysLeft(n int) string {
	switch {
	case n < 0:
		return "has expired"
	case n == 1:
		return "1 day left"
	}
	return fmt.Sprintf("%d days left", n)
}

// asFailure is err as Dial returns it.
func asFailure(err error) *failure.Failure {
	var f *failure.Failure
	if errors.As(err, &f) {
		return f
	}
	return failure.New(failure.Other, failure.StageConfig, err, "")
}
