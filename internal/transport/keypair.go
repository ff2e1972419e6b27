package transport

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// KeyPair is a client certificate with its key, in files that may change. They are looked at for each handshake, and
// read only when they changed. While they cannot be used, as when one of them is written and the other is not yet, the
// last pair that could be stays in use.
type KeyPair struct {
	certFile, keyFile string
	report            func(error)

	mu     sync.Mutex // protects the following fields
	stamps [2]stamp
	failed bool // the files are as stamps say, and cannot be used
	pair   *tls.Certificate
}

// stamp tells versions of a file apart.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
}

// LoadKeyPair reads PEM files. The function, which may be nil, is told later when the files have changed: nil if the
// new ones are in use, otherwise why not, once for each change.
func LoadKeyPair(certFile, keyFile string, report func(error)) (*KeyPair, error) {
	k := &KeyPair{certFile: certFile, keyFile: keyFile, report: report}
	stamps, err := k.stat()
	if err != nil {
		return nil, err
	}
	if k.pair, err = k.load(); err != nil {
		return nil, err
	}
	k.stamps = stamps
	return k, nil
}

// Expires is when the certificate expires that is in use.
func (k *KeyPair) Expires() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pair.Leaf.NotAfter
}

// Refresh looks for changed files, as each handshake does.
func (k *KeyPair) Refresh() { k.current() }

// current is the pair to use.
func (k *KeyPair) current() *tls.Certificate {
	k.mu.Lock()
	changed, err := k.refreshLocked()
	pair := k.pair
	k.mu.Unlock()
	if changed && k.report != nil {
		k.report(err)
	}
	return pair
}

// refreshLocked says whether there is something to report.
func (k *KeyPair) refreshLocked() (changed bool, err error) {
	stamps, err := k.stat()
	if err == nil && stamps == k.stamps && !k.failed {
		return false, nil
	}
	changed = stamps != k.stamps || !k.failed
	k.stamps = stamps
	var pair *tls.Certificate
	if err == nil {
		pair, err = k.load()
	}
	if err != nil {
		k.failed = true
		return changed, err
	}
	k.pair, k.failed = pair, false
	return true, nil
}

func (k *KeyPair) stat() (s [2]stamp, err error) {
	for i, name := range []string{k.certFile, k.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return s, fmt.Errorf("client certificate: %w", err)
		}
		s[i] = stamp{modified: info.ModTime(), size: info.Size()}
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			s[i].inode = sys.Ino
		}
	}
	return s, nil
}

func (k *KeyPair) load() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(k.certFile, k.keyFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate %s with key %s: %w", k.certFile, k.keyFile, err)
	}
	if pair.Leaf == nil { // depends on GODEBUG
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, fmt.Errorf("client certificate %s: %w", k.certFile, err)
		}
	}
	return &pair, nil
}
