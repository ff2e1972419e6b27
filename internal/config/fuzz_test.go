package config

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// memory is a disk of files in memory, private to their owner.
type memory map[string]string

func (m memory) read(name string, limit int64) ([]byte, fs.FileMode, error) {
	data, ok := m[name]
	switch {
	case !ok:
		return nil, 0, fs.ErrNotExist
	case int64(len(data)) > limit:
		return nil, 0, errTooLarge
	}
	return []byte(data), 0o600, nil
}

func (m memory) glob(pattern string) (found []string, err error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, err
	}
	for name := range m {
		if ok, err := path.Match(pattern, name); ok && err == nil {
			found = append(found, name)
		}
	}
	return found, nil
}

// fuzzEnv is an environment with nothing in it.
var fuzzEnv = Env{LookupEnv: func(string) (string, bool) { return "", false }, disk: memory{}}

// seeds are the configurations, or the CSV files, of the golden tests.
func seeds(f *testing.F, ext string) {
	f.Helper()
	names, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(names) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			if strings.HasSuffix(file.Name, ext) {
				f.Add(string(file.Data))
			}
		}
	}
}

// checkOutcome checks what must hold for every configuration: it is usable, or each fault says where and what.
func checkOutcome(t *testing.T, c *Config, err error) {
	t.Helper()
	var faults Faults
	switch {
	case err == nil && c == nil:
		t.Fatal("neither a configuration nor faults")
	case err == nil:
		checkPlaces(t, c.Warnings)
		checkUsable(t, c)
	case !errors.As(err, &faults) || len(faults) == 0 || c != nil:
		t.Fatalf("%v with %v", c, err)
	}
	checkPlaces(t, faults)
}

func checkPlaces(t *testing.T, problems []Problem) {
	t.Helper()
	for _, p := range problems {
		if p.File == "" || p.Line < 1 || p.Column < 1 || p.What == "" || strings.Contains(p.String(), "\n") {
			t.Errorf("problem %+v", p)
		}
	}
}

// checkUsable checks that an accepted configuration has no holes.
func checkUsable(t *testing.T, c *Config) {
	t.Helper()
	for _, cloud := range c.Clouds {
		if cloud.URL == nil || cloud.URL.Port() == "" || cloud.URL.Path == "" || cloud.Limits.MaxInFlight < 1 {
			t.Errorf("cloud %+v", cloud)
		}
	}
	names := make(map[string]bool)
	for _, d := range c.Devices {
		if names[d.Name] || badName(d.Name) != nil || d.Cloud == nil || d.Identity == nil || d.Queue.MaxMessages < 1 {
			t.Errorf("device %+v", d)
		}
		names[d.Name] = true
		if err := d.Identity.Validate(); err != nil {
			t.Errorf("device %+v: %v", d, err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	example, err := os.ReadFile("../../config.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	f.Add(base)
	seeds(f, "config.yaml")
	f.Fuzz(func(t *testing.T, data string) {
		c, err := parse("config.yaml", []byte(data), 0o600, fuzzEnv)
		checkOutcome(t, c, err)
	})
}

func FuzzCSV(f *testing.F) {
	f.Add("DeviceName,DeviceSecret,ProductKey\nd1,s1,pk\n")
	f.Add("name;login password;allow_from\nd1;\"s\n\"\"1\";10.0.0.1 10.0.0.2\n")
	seeds(f, ".csv")
	f.Fuzz(func(t *testing.T, data string) {
		env := fuzzEnv
		env.disk = memory{"/fleet.csv": data}
		c, err := parse("/config.yaml", []byte("device_files: [/*.csv]\n"+base), 0o600, env)
		checkOutcome(t, c, err)
	})
}

func FuzzDeviceYAML(f *testing.F) {
	f.Add("- {name: a, cloud: lab, login: {anonymous: true}}\n")
	f.Add("devices: [{name: a, cloud: lab, topics: [{local: a/+, cloud: b/+}]}]\n")
	seeds(f, "a.yaml")
	f.Fuzz(func(t *testing.T, data string) {
		env := fuzzEnv
		env.disk = memory{"/d.yaml": data}
		c, err := parse("/config.yaml", []byte("device_files: [/d.yaml]\n"+base), 0o600, env)
		checkOutcome(t, c, err)
	})
}
