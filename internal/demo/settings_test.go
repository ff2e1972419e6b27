package demo

import (
	"os"
	"path/filepath"
	"testing"

	"bridged/internal/cloudsim"
)

// Whatever clouds are simulated, the configuration for them is one that bridged takes, without a warning.
func TestSettings(t *testing.T) {
	ca, err := cloudsim.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	for name, clouds := range map[string]map[string]place{
		"aliyun":  {"aliyun": {URL: "wss://127.0.0.1:1/", CAFile: "ca.pem"}},
		"tencent": {"tencent": {URL: "ws://127.0.0.1:2/"}},
		"lab":     {"lab": {URL: "wss://127.0.0.1:3/mqtt", CAFile: "ca.pem"}},
		"all": {
			"aliyun": {URL: "ws://127.0.0.1:1/"}, "tencent": {URL: "wss://127.0.0.1:2/", CAFile: "ca.pem"},
			"lab": {URL: "ws://127.0.0.1:3/mqtt"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := ca.WriteFile(filepath.Join(dir, "ca.pem")); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "config.yaml"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			file, err := settings{Command: "demo", Listen: "[::1]:1883", Clouds: clouds}.write(dir)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := load(file)
			if err != nil {
				text, _ := os.ReadFile(file)
				t.Fatalf("%v\n%s", err, text)
			}
			if len(cfg.Clouds) != len(clouds) || len(cfg.Warnings) > 0 || cfg.Listen[0].Address != "[::1]:1883" {
				t.Errorf("%d clouds, warnings %v, listen %v", len(cfg.Clouds), cfg.Warnings, cfg.Listen)
			}
			for _, d := range fleet() {
				if _, there := clouds[d.cloud]; there != (cfg.Device(d.name) != nil) {
					t.Errorf("device %s is there: %t", d.name, !there)
				}
			}
		})
	}
}
