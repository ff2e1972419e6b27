package credentials

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"strings"
	"testing"
	"time"
)

// The files in testdata hold values that somebody else's code computed; each line says whose.

// vector is a line of such a file.
type vector struct {
	Source string `json:"source"`
	// Upper says that the source writes upper-case digits; ours are lower case.
	Upper bool `json:"upper"`

	Method       Method       `json:"method"`
	ClientID     string       `json:"client_id"`
	Timestamp    int64        `json:"timestamp"`
	Secure       bool         `json:"secure"`
	SDKAppID     string       `json:"sdkappid"`
	Expiry       int64        `json:"expiry"`
	CertPassword CertPassword `json:"cert_password"`

	WantClientID   string `json:"want_client_id"`
	VendorClientID string `json:"vendor_client_id"`
	WantUsername   string `json:"want_username"`
	WantPassword   string `json:"want_password"`
}

// readVectors reads a file that must have that many lines.
func readVectors(t *testing.T, name string, count int) (vectors []vector) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		var v vector
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%s: %v in %s", name, err, line)
		}
		if v.Source == "" || v.WantUsername == "" || v.WantPassword == "" {
			t.Fatalf("%s: incomplete: %s", name, line)
		}
		vectors = append(vectors, v)
	}
	if len(vectors) != count {
		t.Fatalf("%s has %d vectors, want %d", name, len(vectors), count)
	}
	return vectors
}

// check compares user name and password with a vector.
func (v vector) check(t *testing.T, got Login) {
	t.Helper()
	want := v.WantPassword
	if v.Upper {
		want = strings.ToLower(want)
	}
	if got.Username != v.WantUsername || got.Password != want {
		t.Errorf("user name %q, password %q\nwant      %q,          %q", got.Username, got.Password, v.WantUsername, want)
	}
}

func TestAliyunVectors(t *testing.T) {
	for _, v := range readVectors(t, "aliyun.jsonl", 9) {
		t.Run(string(v.Method), func(t *testing.T) {
			t.Log(v.Source)
			id := Aliyun{
				ProductKey: "pk", DeviceName: "device", Secret: "secret", ClientID: v.ClientID,
				Method: v.Method, Secure: v.Secure, Timestamp: v.Timestamp != 0,
			}
			got, err := id.Sign(time.UnixMilli(v.Timestamp), "")
			if err != nil {
				t.Fatal(err)
			}
			v.check(t, got)
			switch {
			case v.VendorClientID != "":
				checkParameters(t, got.ClientID, v.VendorClientID)
			case got.ClientID != v.WantClientID:
				t.Errorf("client id %q, want %q", got.ClientID, v.WantClientID)
			}
		})
	}
}

// checkParameters checks that a client id is a vendor SDK's but for parameters that only that sends.
func checkParameters(t *testing.T, got, vendor string) {
	t.Helper()
	id, params, _ := strings.Cut(strings.TrimSuffix(got, "|"), "|")
	vendorID, vendorParams, _ := strings.Cut(strings.TrimSuffix(vendor, "|"), "|")
	if id != vendorID {
		t.Errorf("client id begins with %q, want %q", id, vendorID)
	}
	for p := range strings.SplitSeq(params, ",") {
		if !strings.Contains(","+vendorParams+",", ","+p+",") {
			t.Errorf("parameter %q is not in %q", p, vendor)
		}
	}
}

func TestTencentVectors(t *testing.T) {
	for _, v := range readVectors(t, "tencent.jsonl", 7) {
		t.Run(v.WantUsername+" "+string(v.Method), func(t *testing.T) {
			t.Log(v.Source)
			id := Tencent{
				ProductID: "ABCDE12345", DeviceName: "dev01", Secret: "MTIzNDU2Nzg5MGFiY2RlZg==",
				Method: v.Method, SDKAppID: v.SDKAppID, Expiry: 10 * time.Minute,
			}
			got, err := id.Sign(time.Unix(v.Expiry-600, 0), "abcde")
			if err != nil {
				t.Fatal(err)
			}
			v.check(t, got)
			if got.ClientID != "ABCDE12345dev01" {
				t.Errorf("client id %q", got.ClientID)
			}
		})
	}
}

func TestTencentCertificateVectors(t *testing.T) {
	key := readKey(t)
	for _, v := range readVectors(t, "tencent-certificate.jsonl", 3) {
		t.Run(string(v.CertPassword), func(t *testing.T) {
			t.Log(v.Source)
			id := TencentCertificate{
				ProductID: "ABCDE12345", DeviceName: "dev01",
				SDKAppID: v.SDKAppID, CertPassword: v.CertPassword, Key: key,
			}
			got, err := id.Sign(time.Unix(v.Expiry, 0).Add(-DefaultExpiry), "abcdefgh")
			if err != nil {
				t.Fatal(err)
			}
			v.check(t, got)
		})
	}
}

func TestRSAPasswordVerifies(t *testing.T) {
	key := readKey(t)
	id := TencentCertificate{ProductID: "P", DeviceName: "d", CertPassword: CertPasswordRSASHA256, Key: key}
	login, err := id.Sign(time.Unix(1700000000, 0), "zzzzz")
	if err != nil {
		t.Fatal(err)
	}
	digits, ok := strings.CutSuffix(login.Password, ";rsa-sha256")
	signature, err := hex.DecodeString(digits)
	if !ok || err != nil {
		t.Fatalf("password %q: %v", login.Password, err)
	}
	digest := sha256.Sum256([]byte(login.Username))
	if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature); err != nil {
		t.Error(err)
	}
}

func readKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	data, err := os.ReadFile("testdata/tencent-device.key")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatal("no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PrivateKey)
}
