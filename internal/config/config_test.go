package config

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// envOf is an environment with these variables only.
func envOf(vars map[string]string) Env {
	return Env{LookupEnv: func(name string) (string, bool) {
		value, ok := vars[name]
		return value, ok
	}}
}

// exampleEnv is what config.example.yaml refers to.
var exampleEnv = map[string]string{
	"BOILER1_LOGIN":   "lan-secret-1",
	"BOILER1_SECRET":  "cloud-secret-1",
	"PUMP7_SECRET":    "MTIzNDU2Nzg5MGFiY2RlZg==",
	"PRESS2_LOGIN":    "lan-secret-2",
	"PRESS2_PASSWORD": "cloud-secret-2",
}

// writeFiles puts files into a new directory, private to their owner, together with the certificates of testdata/pem.
func writeFiles(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	pems, err := filepath.Glob("testdata/pem/*")
	if err != nil || len(pems) == 0 {
		t.Fatalf("no certificates in testdata/pem: %v", err)
	}
	for _, name := range pems {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, filepath.Base(name)), string(data))
	}
	for name, data := range files {
		writeFile(t, filepath.Join(dir, name), data)
	}
	return dir
}

func writeFile(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

// load loads a configuration that must be valid.
func load(t *testing.T, yaml string, env map[string]string) *Config {
	t.Helper()
	dir := writeFiles(t, map[string]string{"config.yaml": yaml})
	c, err := Load(filepath.Join(dir, "config.yaml"), envOf(env))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
