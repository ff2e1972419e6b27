package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"
)

// hashing is "bridged hash-password" on a terminal of its own.
type hashing struct {
	keyboard       *os.File // what is written here is typed
	tty            *os.File
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	exited         chan error
}

func startHashing(t *testing.T) *hashing {
	t.Helper()
	h := &hashing{exited: make(chan error, 1)}
	h.keyboard, h.tty = openTerminal(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	h.cmd = exec.CommandContext(ctx, self)
	h.cmd.Args = []string{"bridged", "hash-password", "--cost", "4"}
	h.cmd.Env = append(os.Environ(), "GORACE="+quickExit)
	h.cmd.Stdin, h.cmd.Stdout, h.cmd.Stderr = h.tty, &h.stdout, &h.stderr
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { h.exited <- h.cmd.Wait() }()
	return h
}

// openTerminal returns both ends of a new pseudo-terminal.
func openTerminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keyboard.Close() })
	fd := int(keyboard.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return keyboard, tty
}

func (h *hashing) echoes(t *testing.T) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(h.tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// awaitHidden waits until the terminal's echo is off: the prompt is there.
func (h *hashing) awaitHidden(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for h.echoes(t) {
		select {
		case err := <-h.exited:
			t.Fatalf("ended early: %v\n%s", err, h.stderr.String())
		case <-tick.C:
		}
	}
}

// enter types a line once its prompt is there. The line before must have been read: the echo goes on in between.
func (h *hashing) enter(t *testing.T, line string) {
	t.Helper()
	h.awaitHidden(t)
	if _, err := h.keyboard.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
}

func TestHashPasswordOnTerminal(t *testing.T) {
	tests := []struct {
		name, first, again string
		wantErr            string
	}{
		{"the same twice", "boiler-secret", "boiler-secret", ""},
		{"different", "boiler-secret", "boiler-sceret", "error: the two passwords differ\nhint: try again\n"},
		{"empty", "", "", "error: the password is empty\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := startHashing(t)
			// Both lines at once: the terminal keeps the second one until it is asked for.
			h.enter(t, tt.first+"\n"+tt.again)
			err := <-h.exited
			if !h.echoes(t) {
				t.Error("the terminal's echo is still off")
			}
			for _, shown := range []string{h.stdout.String(), h.stderr.String()} {
				if tt.first != "" && strings.Contains(shown, tt.first) {
					t.Errorf("the password was shown: %s", shown)
				}
			}
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(h.stderr.String(), tt.wantErr) {
					t.Errorf("ended with %v and %q, want %q", err, h.stderr.String(), tt.wantErr)
				}
				return
			}
			if err != nil || h.stderr.String() != "Password: \nAgain: \n" {
				t.Errorf("ended with %v and %q", err, h.stderr.String())
			}
			hash := bytes.TrimSpace(h.stdout.Bytes())
			if err := bcrypt.CompareHashAndPassword(hash, []byte(tt.first)); err != nil {
				t.Errorf("the hash %q is not that of the password: %v", hash, err)
			}
		})
	}
}

func TestInterruptedPromptRestoresTerminal(t *testing.T) {
	h := startHashing(t)
	h.awaitHidden(t)
	if err := h.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err := <-h.exited
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
		t.Errorf("ended with %v, want SIGINT", err)
	}
	if !h.echoes(t) {
		t.Error("the terminal's echo is still off")
	}
	if h.stdout.Len() > 0 {
		t.Errorf("printed %q", h.stdout.String())
	}
}
