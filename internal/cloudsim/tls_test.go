package cloudsim

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMutualTLS(t *testing.T) {
	c := start(t, Options{Kind: Generic, ClientCerts: CertsRequired})
	stranger := value(NewCA("stranger"))(t)
	dial := func(certs ...tls.Certificate) error {
		d := dialer(c)
		d.TLSClientConfig.Certificates = certs
		ws, resp, err := d.Dial(c.WSSURL(), nil)
		if err != nil {
			return err
		}
		must(t, resp.Body.Close())
		return ws.Close()
	}
	issue := func(ca *CA) tls.Certificate { return value(value(ca.IssueClient("d"))(t).TLS())(t) }
	must(t, dial(issue(c.CA())))
	if err := dial(); err == nil {
		t.Error("connected without a certificate")
	}
	if err := dial(issue(stranger)); err == nil {
		t.Error("connected with a stranger's certificate")
	}
	online(t, c, "d", true) // ws has no certificates
}

func TestServerCertificates(t *testing.T) {
	ca := value(NewCA("shared"))(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	must(t, ca.WriteFile(file))
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(value(os.ReadFile(file))(t)) {
		t.Fatal("the file holds no certificate")
	}
	expired := value(ca.IssueServer(time.Now().Add(-time.Minute), "127.0.0.1"))(t)
	named := value(ca.IssueServer(time.Now().Add(time.Hour), "cloud.test"))(t)
	for name, tt := range map[string]struct {
		o    Options
		host string // server name to expect
		want any    // error that is to be found, nil if none
	}{
		"address":    {Options{CA: ca}, "", nil},
		"localhost":  {Options{CA: ca}, "localhost", nil},
		"own host":   {Options{CA: ca, Hosts: []string{"iot.test"}}, "iot.test", nil},
		"other host": {Options{CA: ca}, "iot.test", new(x509.HostnameError)},
		"expired":    {Options{CA: ca, ServerCert: &expired}, "", new(x509.CertificateInvalidError)},
		"replaced":   {Options{CA: ca, ServerCert: &named}, "", new(x509.HostnameError)},
		"named":      {Options{CA: ca, ServerCert: &named}, "cloud.test", nil},
		"unknown CA": {Options{}, "", new(x509.UnknownAuthorityError)},
	} {
		t.Run(name, func(t *testing.T) {
			tt.o.Kind = Generic
			c := start(t, tt.o)
			d := dialer(c)
			d.TLSClientConfig = &tls.Config{RootCAs: pool, ServerName: tt.host}
			ws, resp, err := d.Dial(c.WSSURL(), nil)
			if err == nil {
				must(t, resp.Body.Close())
				must(t, ws.Close())
			}
			if ok := tt.want == nil && err == nil || tt.want != nil && errors.As(err, tt.want); !ok {
				t.Errorf("dial: %v, want %T", err, tt.want)
			}
		})
	}
}

func TestClientCertFiles(t *testing.T) {
	ca := value(NewCA("test"))(t)
	cert := value(ca.IssueClient("dev"))(t)
	certFile, keyFile, err := cert.WriteFiles(t.TempDir())
	must(t, err)
	pair := value(tls.LoadX509KeyPair(certFile, keyFile))(t)
	if pair.Leaf.Subject.CommonName != "dev" {
		t.Errorf("common name %q", pair.Leaf.Subject.CommonName)
	}
	if mode := value(os.Stat(keyFile))(t).Mode().Perm(); mode != 0o600 {
		t.Errorf("the key file has mode %o", mode)
	}
	opts := x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := pair.Leaf.Verify(opts); err != nil {
		t.Error(err)
	}
	if _, _, err := cert.WriteFiles("/no/such/directory"); err == nil {
		t.Error("wrote to nowhere")
	}
	if err := ca.WriteFile("/no/such/directory/ca.pem"); err == nil {
		t.Error("wrote to nowhere")
	}
}
