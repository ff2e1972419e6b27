package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Bounds for the files that a configuration refers to, so that a wrong path does not fill the memory.
const (
	maxConfigFile = 64 << 20
	maxPEMFile    = 4 << 20
	maxSecretFile = 64 << 10
)

// disk is the file system; fuzz tests have one without files.
type disk interface {
	// read returns a regular file's content and permissions. A file with more than limit bytes is an error.
	read(path string, limit int64) ([]byte, fs.FileMode, error)
	glob(pattern string) ([]string, error)
}

type osDisk struct{}

var (
	errNotRegular = errors.New("it is no regular file")
	errTooLarge   = errors.New("it is too large")
)

func (osDisk) glob(pattern string) ([]string, error) { return filepath.Glob(pattern) }

func (osDisk) read(path string, limit int64) (data []byte, mode fs.FileMode, err error) {
	// Opening a pipe would wait for its writer: look first.
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errNotRegular
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errTooLarge
	}
	return data, info.Mode().Perm(), err
}

// path makes the path in t absolute or relative to the working directory: in the file it is relative to the file.
func (t *text) path() string {
	if t.value == "" || filepath.IsAbs(t.value) {
		return t.value
	}
	return filepath.Join(filepath.Dir(t.file), t.value)
}

// unreadable is the flaw of a file that cannot be read.
func unreadable(path string, err error) *flaw {
	remedy := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		remedy = "create it, or correct the path"
	case errors.Is(err, fs.ErrPermission):
		remedy = "let the user that bridged runs as read it, and nobody else if it holds a secret"
	}
	return &flaw{fmt.Sprintf("cannot read %s: %v", path, cause(err)), remedy}
}

// cause is an error without the path, which the fault names itself.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// private returns the fault of a file with a secret that others can read, nil if they cannot.
func private(path string, mode fs.FileMode) *flaw {
	if mode&0o077 == 0 {
		return nil
	}
	return &flaw{fmt.Sprintf("%s holds a secret and is open to others than its owner (mode %04o)", path, mode),
		"run chmod 600 " + shellWord(path)}
}

// readFile reads the file that t names. ok is false if it cannot; that is reported.
func (r *resolver) readFile(t *text, limit int64) (data []byte, mode fs.FileMode, ok bool) {
	data, mode, err := r.disk.read(t.path(), limit)
	if err != nil {
		f := unreadable(t.path(), err)
		r.fault(t.place, f.what, f.remedy)
		return nil, 0, false
	}
	return data, mode, true
}

// readPrivate is readFile for a file that only its owner may read.
func (r *resolver) readPrivate(t *text, limit int64) ([]byte, bool) {
	data, mode, ok := r.readFile(t, limit)
	if !ok {
		return nil, false
	}
	if f := private(t.path(), mode); f != nil {
		r.fault(t.place, f.what, f.remedy)
		return nil, false
	}
	return data, true
}

// certificates checks that the file that t names holds PEM certificates, and returns its path.
func (r *resolver) certificates(t *text) string {
	if data, _, ok := r.readFile(t, maxPEMFile); ok && !x509.NewCertPool().AppendCertsFromPEM(data) {
		r.fault(t.place, t.path()+" holds no PEM certificate", `its first line must be "-----BEGIN CERTIFICATE-----"`)
	}
	return t.path()
}

// keyPair reads a certificate and its private key. section is where a fault goes if one of them is not written. The
// result is nil if neither is written, or if something is wrong, which is reported then.
func (r *resolver) keyPair(section place, cert, key *text) *tls.Certificate {
	switch {
	case cert.bad || key.bad || cert.value == "" && key.value == "":
		return nil
	case cert.value == "":
		r.fault(section.sub("cert_file"), "is missing beside key_file", "write the path of the certificate")
		return nil
	case key.value == "":
		r.fault(section.sub("key_file"), "is missing beside cert_file", "write the path of the private key")
		return nil
	}
	certPEM, _, ok1 := r.readFile(cert, maxPEMFile)
	keyPEM, ok2 := r.readPrivate(key, maxPEMFile)
	if !ok1 || !ok2 {
		return nil
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		r.fault(cert.place, fmt.Sprintf("%s and %s are not a certificate and its key: %v", cert.path(), key.path(), err),
			"both must be PEM, the key without a passphrase")
		return nil
	}
	return &pair
}
