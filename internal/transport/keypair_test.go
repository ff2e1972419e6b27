package transport

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"sync"
	"testing"
	"time"
)

// Each handshake shows the certificate that is in the files then; a pair that does not fit together is not taken.
func TestKeyPairChanges(t *testing.T) {
	ca := newAuthority(t, "plant")
	var mu sync.Mutex
	var shown []string
	conf := ca.conf(nil)
	conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool()
	conf.VerifyPeerCertificate = func(_ [][]byte, chains [][]*x509.Certificate) error {
		mu.Lock()
		defer mu.Unlock()
		shown = append(shown, chains[0][0].Subject.CommonName)
		return nil
	}
	u := serve(t, echo("mqtt"), conf)
	d := newDialer(t, Options{TLS: TLS{CAFile: ca.file}})
	certFile, keyFile := ca.client("first")
	newCert, newKey := ca.client("second")
	var reports []error
	pair := loadPair(t, certFile, keyFile, func(err error) { reports = append(reports, err) })
	dial := func(want string, reported int) {
		t.Helper()
		connects(t, d, Target{URL: u, Certificate: pair})
		mu.Lock()
		defer mu.Unlock()
		if got := shown[len(shown)-1]; got != want {
			t.Errorf("shown: %s, want %s", got, want)
		}
		if len(reports) != reported {
			t.Errorf("reports: %v, want %d", reports, reported)
		}
	}
	dial("first", 0)
	dial("first", 0)
	before := pair.Expires()
	if err := os.Rename(newCert, certFile); err != nil { // half of the new pair
		t.Fatal(err)
	}
	dial("first", 1)
	dial("first", 1) // said once
	if reports[0] == nil {
		t.Error("reported as fine")
	}
	if err := os.Rename(newKey, keyFile); err != nil {
		t.Fatal(err)
	}
	dial("second", 2)
	if reports[1] != nil || pair.Expires().Before(before) {
		t.Errorf("reported %v, expires %s", reports[1], pair.Expires())
	}
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	dial("second", 3)
	dial("second", 3)
}

// A file that is written in place, with the same size and at the same inode, is read, too.
func TestKeyPairWrittenInPlace(t *testing.T) {
	ca := newAuthority(t, "plant")
	certFile, keyFile := ca.client("one")
	pair := loadPair(t, certFile, keyFile, nil)
	first := pair.current().Leaf
	ca.writeClient("two", certFile, keyFile)
	now := time.Now().Add(time.Minute) // the clock of the file system is coarse
	if err := os.Chtimes(certFile, now, now); err != nil {
		t.Fatal(err)
	}
	if got := pair.current().Leaf.Subject.CommonName; got != "two" || first.Subject.CommonName != "one" {
		t.Errorf("in use: %s", got)
	}
	if again := pair.current(); again != pair.current() {
		t.Error("read again without a change")
	}
}

// While a pair cannot be used the files are read each time: how they look from outside may stay the same.
func TestKeyPairMendedUnseen(t *testing.T) {
	ca := newAuthority(t, "plant")
	certFile, keyFile := ca.client("dev")
	pair := loadPair(t, certFile, keyFile, nil)
	good, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	write := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(certFile, content, 0o600); err != nil {
			t.Fatal(err)
		}
		then := time.Unix(1e9, 0)
		if err := os.Chtimes(certFile, then, then); err != nil {
			t.Fatal(err)
		}
	}
	first := pair.current()
	write(make([]byte, len(good)))
	if pair.current() != first {
		t.Fatal("not kept")
	}
	write(good)
	if pair.current() == first {
		t.Error("the mended file is not in use")
	}
}

func TestLoadKeyPairFaults(t *testing.T) {
	ca := newAuthority(t, "plant")
	certFile, keyFile := ca.client("dev")
	_, otherKey := ca.client("other")
	for _, files := range [][2]string{{certFile, otherKey}, {certFile, keyFile + ".none"}, {keyFile, certFile}} {
		if _, err := LoadKeyPair(files[0], files[1], nil); err == nil {
			t.Errorf("%v are accepted", files)
		}
	}
}

func TestKeyPairConcurrently(t *testing.T) {
	ca := newAuthority(t, "plant")
	certFile, keyFile := ca.client("dev")
	pair := loadPair(t, certFile, keyFile, func(error) {})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				pair.Refresh()
				_ = pair.Expires()
			}
		})
	}
	for range 10 {
		ca.writeClient("dev", certFile, keyFile)
	}
	wg.Wait()
}
