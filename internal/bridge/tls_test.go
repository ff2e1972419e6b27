package bridge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bridged/internal/cloudsim"
)

// writeCertificate writes a certificate with this serial number, and its key.
func writeCertificate(t *testing.T, certFile, keyFile string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A reload has renewed certificates of the listeners used, for new connections.
func TestListenerCertificateRenewed(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	writeCertificate(t, cert, key, 1)
	c := simulate(t, cloudsim.Options{Kind: cloudsim.Generic, NoWSS: true})
	yaml := "listen: [{url: 'tls://127.0.0.1:0', cert_file: " + cert + ", key_file: " + key + "}]\n" +
		fleetYAML(c, "", "a")
	r := run(t, yaml)
	dial := func() (*tls.Conn, int64) {
		conn, err := tls.Dial("tcp", r.addr(), &tls.Config{InsecureSkipVerify: true}) // which one it is is looked at here
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn, conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	old, serial := dial()
	if serial != 1 {
		t.Fatalf("certificate %d", serial)
	}
	writeCertificate(t, cert, key, 2)
	if got := r.reload(yaml); len(got.NeedRestart) != 0 || got.Devices.Unchanged != 1 {
		t.Errorf("%+v", got)
	}
	if _, serial := dial(); serial != 2 {
		t.Errorf("certificate %d", serial)
	}
	if err := old.SetReadDeadline(time.Now().Add(short)); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("the old connection: %v", err)
	}
}
