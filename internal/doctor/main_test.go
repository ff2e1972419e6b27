package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"bridged/internal/cloudsim"
	"bridged/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret is in every configuration here, and in no report.
const secret = "doctor-must-not-show-this"

// rig is a cloud and a configuration for it.
type rig struct {
	t     *testing.T
	dir   string
	cloud *cloudsim.Cloud
	cfg   *config.Config
}

// sim starts a generic cloud with one user, changed as told.
func sim(t *testing.T, change func(*cloudsim.Options)) *cloudsim.Cloud {
	t.Helper()
	o := cloudsim.Options{Kind: cloudsim.Generic, Users: map[string]string{"u": secret}, Date: time.Now}
	if change != nil {
		change(&o)
	}
	c, err := cloudsim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// newRig writes a configuration. In it $WS, $WSS, $CA and $DIR stand for what belongs to the cloud.
func newRig(t *testing.T, cloud *cloudsim.Cloud, yaml string) *rig {
	t.Helper()
	dir := t.TempDir()
	if err := cloud.CA().WriteFile(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	yaml = strings.NewReplacer("$WSS", cloud.WSSURL(), "$WS", cloud.WSURL(), "$CA", filepath.Join(dir, "ca.pem"),
		"$DIR", dir, "$SECRET", secret).Replace(yaml)
	file := filepath.Join(dir, "config.yaml")
	yaml = fmt.Sprintf("state_dir: %s\n%s", dir, yaml)
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, config.Env{})
	if err != nil {
		t.Fatalf("%v\n%s", err, yaml)
	}
	return &rig{t: t, dir: dir, cloud: cloud, cfg: cfg}
}

// lab is a configuration with one device. cloud and device are added to those sections.
func lab(url, cloud, device string) string {
	return fmt.Sprintf(`
clouds:
  lab: {provider: generic, url: "%s", proxy: none%s}
devices:
  - {name: press, cloud: lab, username: u, password: {file: secret}, login: {anonymous: true, client_id: p}%s}
`, url, cloud, device)
}

const trusted = `, tls: {ca_file: $CA}`

// examine examines the first device, and checks what is true of every report.
func (r *rig) examine(o Options) *Report {
	r.t.Helper()
	var told []Step
	report := New(r.cfg, o).Examine(r.t.Context(), r.cfg.Devices[0], func(s Step) { told = append(told, s) })
	check(r.t, report)
	if len(told) != len(report.Steps) {
		r.t.Errorf("told of %d steps, the report has %d", len(told), len(report.Steps))
	}
	return report
}

func check(t *testing.T, r *Report) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte(secret)) {
		t.Errorf("shows a secret: %s", text)
	}
	if (r.Failure != nil) != (r.Result == Broken) {
		t.Errorf("%s with the failure %+v", r.Result, r.Failure)
	}
	broken := false
	for _, s := range r.Steps {
		if s.Summary == "" || s.Seconds < 0 || strings.Contains(s.Summary+strings.Join(s.Notes, ""), "\n") {
			t.Errorf("%+v", s)
		}
		broken = broken || s.Status == Failed
	}
	if broken != (r.Result == Broken) {
		t.Errorf("result %s, and the steps are %+v", r.Result, r.Steps)
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
}

// passes demands that all is well.
func (r *rig) passes(o Options) *Report {
	r.t.Helper()
	report := r.examine(o)
	if report.Result != Passed {
		r.t.Fatalf("%s: %+v", report.Result, report.Failure)
	}
	return report
}

// status is how a stage went, empty if it is not in the report.
func (r *Report) status(stage Stage) (status Status) {
	for _, s := range r.Steps {
		if s.Stage == stage {
			status = s.Status
		}
	}
	return status
}

func (r *Report) text(stage Stage) string {
	for _, s := range r.Steps {
		if s.Stage == stage {
			return s.Summary + "\n" + strings.Join(s.Notes, "\n")
		}
	}
	return ""
}

func waitOffline(t *testing.T, c *cloudsim.Cloud, device string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.WaitOffline(ctx, device); err != nil {
		t.Fatal(err)
	}
}
