package enroll

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	secretMode = 0o600
	deviceMode = 0o644 // no secrets in it
)

// ExistsError says which files are in the way.
type ExistsError struct{ Paths []string }

func (e *ExistsError) Error() string {
	const most = 3
	if n := len(e.Paths); n > most {
		return fmt.Sprintf("%s and %d more exist already", strings.Join(e.Paths[:most], ", "), n-most)
	}
	return strings.Join(e.Paths, ", ") + " exist already"
}

// Is says that it is fs.ErrExist.
func (e *ExistsError) Is(target error) bool { return target == fs.ErrExist }

// Write writes the plan's files below a directory, which is made if it is missing. Without force nothing is
// overwritten: if one file exists the error is an ExistsError, and nothing is written.
func (p *Plan) Write(dir string, force bool) (err error) {
	files := p.Files()
	if !force {
		if err := absent(dir, files); err != nil {
			return err
		}
	}
	if err := makeDirs(dir); err != nil {
		return err
	}
	var staged []string
	defer func() {
		for _, path := range staged { // those that did not take their places
			err = errors.Join(err, ignoreMissing(os.Remove(path)))
		}
	}()
	for _, f := range files {
		path, err := stage(filepath.Join(dir, f.Path), f)
		if err != nil {
			return err
		}
		staged = append(staged, path)
	}
	return place(dir, files, staged, force)
}

func makeDirs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for sub, mode := range map[string]os.FileMode{Secrets: 0o700, Devices: 0o755} {
		path := filepath.Join(dir, sub)
		switch err := os.Mkdir(path, mode); {
		case errors.Is(err, fs.ErrExist): // then it is as somebody wants it
		case err != nil:
			return err
		default:
			if err := inherit(path, os.Lchown); err != nil {
				return err
			}
		}
	}
	return nil
}

// absent checks that none of the files is there.
func absent(dir string, files []File) error {
	found := new(ExistsError)
	for _, f := range files {
		path := filepath.Join(dir, f.Path)
		switch _, err := os.Lstat(path); {
		case err == nil:
			found.Paths = append(found.Paths, path)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	if len(found.Paths) > 0 {
		return found
	}
	return nil
}

// stage writes a file beside its place, and syncs it.
func stage(path string, f File) (temporary string, err error) {
	// The dot keeps it out of the patterns that name device files, should it be left behind: its name has another ending.
	t, err := os.CreateTemp(filepath.Dir(path), ".import-*.tmp") // mode 0600
	if err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, t.Close())
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(t.Name())))
		}
	}()
	mode := os.FileMode(deviceMode)
	if f.Secret {
		mode = secretMode
	}
	if _, err = t.WriteString(f.data.Reveal()); err == nil {
		err = t.Chmod(mode)
	}
	if err == nil {
		err = inheritFile(t)
	}
	if err == nil {
		err = t.Sync()
	}
	return t.Name(), err
}

// place gives the files their names, or takes back those that have theirs.
func place(dir string, files []File, staged []string, force bool) error {
	for i, f := range files {
		path := filepath.Join(dir, f.Path)
		var err error
		if force {
			err = os.Rename(staged[i], path)
		} else {
			err = os.Link(staged[i], path) // fails if it is there by now
		}
		if err == nil {
			continue
		}
		if force {
			return err
		}
		for _, f := range files[:i] {
			err = errors.Join(err, ignoreMissing(os.Remove(filepath.Join(dir, f.Path))))
		}
		return err
	}
	return errors.Join(syncDir(filepath.Join(dir, Secrets)), syncDir(filepath.Join(dir, Devices)))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// inherit gives what root has made to the owner of the directory that it is in, as who bridged probably runs. give
// must not follow links, which that owner may have put there.
func inherit(path string, give func(path string, uid, gid int) error) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	uid, gid := owner(info)
	return give(path, uid, gid) // -1 changes nothing
}

// inheritFile does so with a file that is open.
func inheritFile(f *os.File) error {
	return inherit(f.Name(), func(_ string, uid, gid int) error { return f.Chown(uid, gid) })
}

// owner is user and group, -1 if they are not known.
func owner(info fs.FileInfo) (uid, gid int) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return -1, -1
}

// WriteSecret writes a new file that only its owner may read, and syncs it. If root writes it that is the owner of the
// directory. The error is an fs.ErrExist if there is one.
func WriteSecret(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, secretMode)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	if err = inheritFile(f); err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	return err
}
