package boltstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// mounted lists what is run as root of a name space of its own, on a file system that can be filled and remounted.
var mounted = map[string]func(dir string) error{
	"full":         fillDisk,
	"full open":    openFull,
	"full compact": compactFull,
	"full mend":    mendFull,
	"mend later":   mendLater,
	"read only":    openReadOnly,
	"create":       createReadOnly,
	"appear":       appear,
}

func TestMounted(t *testing.T) {
	for name := range mounted {
		t.Run(name, func(t *testing.T) {
			cmd := childCommand(t, name, nil, t.TempDir())
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
			}
			switch err := cmd.Run(); {
			case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EINVAL):
				t.Skipf("this system gives users no name spaces of their own: %v", err)
			case err != nil:
				t.Error(err)
			}
		})
	}
}

// runMounted is in the child.
func runMounted(name, dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=3m,mode=700"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		return err
	}
	return mounted[name](state)
}

// ballast fills the disk but for some bytes, and returns what frees it.
func ballast(dir string, left int64) (free func() error, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil, err
	}
	name := filepath.Join(filepath.Dir(dir), "ballast")
	size := max(0, int64(st.Bavail)*st.Bsize-left)
	return func() error { return os.Remove(name) }, os.WriteFile(name, make([]byte, size), 0o600)
}

// The disk fills up. Nothing that cannot be written is said to be, what was is there, and all goes on when there is
// room.
func fillDisk(dir string) error {
	s, err := open(dir, Options{}, small)
	if err != nil {
		return err
	}
	m := newModel()
	grow := func(i int) error {
		b := m.fill(key(fmt.Sprint(i%8)), 6, 500)
		if err := s.Commit(b); err != nil {
			m.lane(key(fmt.Sprint(i % 8))).state.Next -= 6 // they were not put
			m.lane(key(fmt.Sprint(i % 8))).settle()
			return err
		}
		m.apply(b)
		return nil
	}
	for round := range 3 {
		free, err := ballast(dir, 60<<10)
		if err != nil {
			return err
		}
		failed := 0
		for i := 0; failed < 10; i++ {
			switch err := grow(i); {
			case errors.Is(err, syscall.ENOSPC):
				failed++
			case err != nil:
				return err
			case i > 500:
				return errors.New("the disk was never full")
			}
		}
		if d := m.differs(s); d != "" {
			return fmt.Errorf("full: %s", d)
		}
		if err := free(); err != nil {
			return err
		}
		for i := range 10 {
			if err := grow(i); err != nil {
				return fmt.Errorf("with room again: %w", err)
			}
		}
		if d := m.differs(s); d != "" {
			return fmt.Errorf("with room again: %s", d)
		}
		if round == 1 { // also when it starts while the disk is full
			if free, err = ballast(dir, 0); err != nil {
				return err
			}
			if err := s.Close(); err != nil {
				return err
			}
			if s, err = open(dir, Options{}, small); err != nil {
				return err
			}
			if d := m.differs(s); d != "" {
				return fmt.Errorf("started while full: %s", d)
			}
			if err := free(); err != nil {
				return err
			}
		}
	}
	if set, err := filepath.Glob(filepath.Join(dir, damagedName+"*")); len(set) > 0 || err != nil {
		return errors.New("the file was taken for damaged")
	}
	return s.Close()
}

// mustSay returns an error unless an error is of a kind and says what it should.
func mustSay(err, kind error, parts ...string) error {
	if !errors.Is(err, kind) {
		return fmt.Errorf("the error is: %w", err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			return fmt.Errorf("%q does not say %q", err.Error(), p)
		}
	}
	return nil
}

// There is no room for a first file. It is made when there is.
func openFull(dir string) error {
	free, err := ballast(dir, 0)
	if err != nil {
		return err
	}
	return withoutFile(dir, syscall.ENOSPC, "make room", free)
}

// withoutFile opens a store where no file can be made, until works was called.
func withoutFile(dir string, kind error, says string, works func() error) error {
	s, err := open(dir, Options{}, small)
	if err != nil {
		return err
	}
	m := newModel()
	if d := m.differs(s); d != "" {
		return errors.New(d)
	}
	b := m.fill(key("d"), 3, 10)
	for range 2 {
		if err := mustSay(s.Commit(b), kind, s.path, says); err != nil {
			return err
		}
	}
	if err := works(); err != nil {
		return err
	}
	if err := s.Commit(b); err != nil {
		return err
	}
	m.apply(b)
	return sameAgain(s, m)
}

// sameAgain checks what a store holds, also when it is opened anew.
func sameAgain(s *Store, m *model) error {
	if d := m.differs(s); d != "" {
		return errors.New(d)
	}
	err := s.Close()
	if err != nil {
		return err
	}
	if s, err = open(s.dir, Options{}, small); err != nil {
		return err
	}
	if d := m.differs(s); d != "" {
		return errors.New(d)
	}
	return s.Close()
}

// There is no room for a copy of a file that is mostly free.
func compactFull(dir string) error {
	log, logs := observed()
	s, err := open(dir, Options{Log: log}, small)
	if err != nil {
		return err
	}
	m := newModel()
	for i := range 40 {
		b := m.fill(key(fmt.Sprint(i%8)), 30, 300)
		if err := s.Commit(b); err != nil {
			return err
		}
		m.apply(b)
	}
	for i := range 8 {
		if err := s.Commit(m.deliver(key(fmt.Sprint(i)), 145)); err != nil {
			return err
		}
	}
	free, err := ballast(dir, 16<<10)
	if err != nil {
		return err
	}
	if err := s.Maintain(); err != nil {
		return err
	}
	if s.Stats().Compactions > 0 || logs.FilterMessage("the spool is not compacted").Len() != 1 ||
		logs.FilterLevelExact(zap.DebugLevel).Len() != logs.Len() {
		return fmt.Errorf("%+v, %v", s.Stats(), logs.All())
	}
	if err := free(); err != nil {
		return err
	}
	if err := s.Maintain(); err != nil {
		return err
	}
	if s.Stats().Compactions != 1 {
		return fmt.Errorf("%+v", s.Stats())
	}
	if d := m.differs(s); d != "" {
		return errors.New(d)
	}
	return s.Close()
}

// There is no room to salvage what a damaged file has. It is left alone until there is.
func mendFull(dir string) error {
	s, err := open(dir, Options{}, small)
	if err != nil {
		return err
	}
	m := newModel()
	for i := range 20 {
		b := m.fill(key(fmt.Sprint(i%8)), 30, 300)
		if err := s.Commit(b); err != nil {
			return err
		}
		m.apply(b)
	}
	if err := s.Close(); err != nil {
		return err
	}
	data, err := os.ReadFile(s.path)
	if err != nil {
		return err
	}
	meta, _, err := readMeta(strings.NewReader(string(data)))
	if err != nil {
		return err
	}
	clear(data[meta.root*pageSize:][:pageSize])
	if err := os.WriteFile(s.path, data, 0o600); err != nil {
		return err
	}
	free, err := ballast(dir, 64<<10)
	if err != nil {
		return err
	}
	_, err = open(dir, Options{}, small)
	if err := mustSay(err, syscall.ENOSPC, "salvaging "+s.path, "MiB"); err != nil {
		return err
	}
	if now, err := os.ReadFile(s.path); err != nil || string(now) != string(data) {
		return errors.New("the damaged file was touched")
	}
	if err := free(); err != nil {
		return err
	}
	if s, err = open(dir, Options{}, small); err != nil {
		return err
	}
	for _, l := range m.lanes {
		l.state.Sent = l.state.Next - 1 // nobody knows what was sent
	}
	if d := m.differs(s); d != "" {
		return errors.New(d)
	}
	return s.Close()
}

// A file that is in use is damaged, and there is no room to mend it for a while.
func mendLater(dir string) error {
	s, err := open(dir, Options{}, small)
	if err != nil {
		return err
	}
	m := newModel()
	b := m.fill(key("d"), 30, 300)
	if err := s.Commit(b); err != nil {
		return err
	}
	m.apply(b)
	meta, _, err := readMeta(s.h.r)
	if err != nil {
		return err
	}
	if _, err := s.h.f.WriteAt(make([]byte, pageSize), int64(meta.root)*pageSize); err != nil {
		return err
	}
	free, err := ballast(dir, 0)
	if err != nil {
		return err
	}
	b = m.fill(key("d"), 3, 10)
	for range 2 * mendMost {
		if err := mustSay(s.Commit(b), syscall.ENOSPC, "salvaging "+s.path); err != nil {
			return err
		}
	}
	if err := free(); err != nil {
		return err
	}
	if err := s.Commit(b); err != nil {
		return err
	}
	m.apply(b)
	return sameAgain(s, m)
}

func remount(dir string, flags uintptr) error {
	return syscall.Mount("", filepath.Dir(dir), "", syscall.MS_REMOUNT|flags, "")
}

// The file system is mounted for reading only. What is there can be read.
func openReadOnly(dir string) error {
	s, err := open(dir, Options{}, small)
	if err != nil {
		return err
	}
	m := newModel()
	b := m.fill(key("d"), 30, 300)
	if err := s.Commit(b); err != nil {
		return err
	}
	m.apply(b)
	if err := s.Close(); err != nil {
		return err
	}
	if err := remount(dir, syscall.MS_RDONLY); err != nil {
		return err
	}
	if s, err = open(dir, Options{}, small); err != nil {
		return err
	}
	before, err := os.ReadFile(s.path)
	if err != nil {
		return err
	}
	b = m.fill(key("d"), 3, 10)
	for range 2 {
		if err := mustSay(s.Commit(b), syscall.EROFS, s.path, "mounted for writing"); err != nil {
			return err
		}
		if records, err := s.Read(key("d"), 1, 100, 100, 1<<20); len(records) != 30 || err != nil {
			return fmt.Errorf("%d messages, %w", len(records), err)
		}
	}
	if err := mustSay(s.Maintain(), syscall.EROFS); err != nil {
		return err
	}
	if after, err := os.ReadFile(s.path); err != nil || string(after) != string(before) {
		return errors.New("the file was changed")
	}
	if err := remount(dir, 0); err != nil {
		return err
	}
	if err := s.Commit(b); err != nil {
		return err
	}
	m.apply(b)
	return sameAgain(s, m)
}

// The file system is mounted for reading only, and there is no file.
func createReadOnly(dir string) error {
	if err := remount(dir, syscall.MS_RDONLY); err != nil {
		return err
	}
	return withoutFile(dir, syscall.EROFS, "mounted for writing", func() error { return remount(dir, 0) })
}

// A file appears, with messages that the user of the store knows nothing of. It is left alone until the next start.
func appear(dir string) error {
	other := dir + "2"
	if err := os.Mkdir(other, 0o700); err != nil {
		return err
	}
	s, err := open(other, Options{}, small)
	if err != nil {
		return err
	}
	m := newModel()
	b := m.fill(key("d"), 3, 10)
	if err := s.Commit(b); err != nil {
		return err
	}
	m.apply(b)
	if err := s.Close(); err != nil {
		return err
	}
	free, err := ballast(dir, 0)
	if err != nil {
		return err
	}
	late, err := open(dir, Options{}, small)
	if err != nil {
		return err
	}
	if d := newModel().differs(late); d != "" {
		return errors.New(d)
	}
	if err := errors.Join(free(), os.Rename(s.path, late.path)); err != nil {
		return err
	}
	b = newModel().fill(key("d"), 1, 10)
	for range 2 {
		if err := mustSay(late.Commit(b), errAppeared, late.path, "start it again"); err != nil {
			return err
		}
	}
	if err := late.Close(); err != nil {
		return err
	}
	if s, err = open(dir, Options{}, small); err != nil {
		return err
	}
	return sameAgain(s, m)
}

func TestNoPermission(t *testing.T) {
	s := opened(t, tempDir(t), small)
	closed(t, s)
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.path, 0); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if os.Getuid() == 0 {
			if _, err := unix.SetfsuidRetUid(65534); err != nil { // nobody, who may not do everything
				done <- err
				return
			}
		}
		_, err := Open(s.dir, Options{})
		done <- err
	}()
	if err := mustSay(<-done, os.ErrPermission, s.path, "readable and writable for the user"); err != nil {
		t.Error(err)
	}
}
