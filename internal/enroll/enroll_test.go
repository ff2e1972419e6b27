package enroll

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"bridged/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "enroll-must-not-show-this"

func plan(t *testing.T) *Plan {
	t.Helper()
	p, err := New([]config.Entry{
		{Line: 2, Name: "a", DeviceName: "a", ProductKey: "pk", DeviceSecret: secret},
		{Line: 3, Name: "b", DeviceName: "B: #1", ProductID: "PID", DeviceSecret: secret, LoginPasswordHash: secret},
	}, "/some/fleet.csv", "c")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// files lists what is below a directory, with modes.
func files(t *testing.T, dir string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		found = append(found, info.Mode().Perm().String()+" "+name)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return found
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc", "bridged")
	p := plan(t)
	if err := p.Write(dir, false); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"-rw-r--r-- devices.d/a.yaml", "-rw-r--r-- devices.d/b.yaml", "-rw------- secrets/a.secret",
		"-rw------- secrets/b.login-hash", "-rw------- secrets/b.secret",
	}
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	text, err := os.ReadFile(filepath.Join(dir, "devices.d/b.yaml"))
	wantText := `# Made by "bridged import" from fleet.csv, line 3.
- name: b
  cloud: c
  device_name: 'B: #1'
  product_id: PID
  device_secret: {file: ../secrets/b.secret}
  login:
    password_hash: {file: ../secrets/b.login-hash}
`
	if err != nil || string(text) != wantText {
		t.Errorf("%v\n%s", err, text)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "secrets/b.secret")); err != nil || string(got) != secret+"\n" {
		t.Errorf("%q, %v", got, err)
	}

	err = p.Write(dir, false)
	var exists *ExistsError
	if !errors.As(err, &exists) || len(exists.Paths) != 5 || !errors.Is(err, fs.ErrExist) ||
		!strings.HasSuffix(err.Error(), "and 2 more exist already") {
		t.Errorf("%v", err)
	}
	before, err := os.Stat(filepath.Join(dir, "secrets/a.secret"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(dir, true); err != nil {
		t.Error(err)
	}
	after, err := os.Stat(filepath.Join(dir, "secrets/a.secret"))
	if err != nil || os.SameFile(before, after) {
		t.Errorf("written in place: %v", err)
	}
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// Nothing is left of what could not be written as a whole.
func TestAllOrNothing(t *testing.T) {
	for name, inTheWay := range map[string]string{
		"no directory for devices": "devices.d", "no directory for secrets": "secrets",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, inTheWay), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, force := range []bool{false, true} {
				if err := plan(t).Write(dir, force); err == nil {
					t.Error("no error")
				}
				if got := files(t, dir); len(got) != 1 {
					t.Errorf("force %t: left %q", force, got)
				}
			}
		})
	}
	// A file that comes into being after it was looked for.
	p, dir := plan(t), t.TempDir()
	if err := makeDirs(dir); err != nil {
		t.Fatal(err)
	}
	var staged []string
	for _, f := range p.Files() {
		path, err := stage(filepath.Join(dir, f.Path), f)
		if err != nil {
			t.Fatal(err)
		}
		staged = append(staged, path)
	}
	last := filepath.Join(dir, "devices.d/b.yaml")
	if err := os.WriteFile(last, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := place(dir, p.Files(), staged, false); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	for _, path := range staged {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if got := files(t, dir); !slices.Equal(got, []string{"-rw------- devices.d/b.yaml"}) {
		t.Errorf("left %q", got)
	}
	if got, err := os.ReadFile(last); err != nil || string(got) != "mine" {
		t.Errorf("%q, %v", got, err)
	}
}

// What root writes belongs to whom the directory belongs to.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a directory to another user")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, 12346); err != nil {
		t.Fatal(err)
	}
	if err := plan(t).Write(dir, false); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"secrets", "devices.d", "secrets/a.secret", "devices.d/a.yaml"} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if uid, gid := owner(info); uid != 12345 || gid != 12346 {
			t.Errorf("%s belongs to %d:%d", path, uid, gid)
		}
	}
}

// A directory of secrets that is there already may belong to another user than the one around it, as where bridged is
// installed from a package. That user has to read them.
func TestOwnerOfSecrets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a directory to another user")
	}
	dir := t.TempDir()
	secrets := filepath.Join(dir, Secrets)
	if err := errors.Join(os.Chown(dir, 0, 12346), os.Mkdir(secrets, 0o700), os.Chown(secrets, 12345, 12346)); err != nil {
		t.Fatal(err)
	}
	if err := plan(t).Write(dir, false); err != nil {
		t.Fatal(err)
	}
	if err := WriteSecret(filepath.Join(secrets, "a.login"), []byte("one")); err != nil {
		t.Fatal(err)
	}
	for path, user := range map[string]int{"secrets/a.secret": 12345, "secrets/a.login": 12345, "devices.d/a.yaml": 0} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if uid, gid := owner(info); uid != user || gid != 12346 {
			t.Errorf("%s belongs to %d:%d", path, uid, gid)
		}
	}
}

func TestWriteSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := WriteSecret(path, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := WriteSecret(path, []byte("two")); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 || info.Size() != 3 {
		t.Errorf("%v, %v", info, err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "one" {
		t.Errorf("%q, %v", got, err)
	}
}
