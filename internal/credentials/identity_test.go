package credentials

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"
)

var (
	goodAliyun  = Aliyun{ProductKey: "pk", DeviceName: "d", Secret: "s3cret"}
	goodTencent = Tencent{ProductID: "P", DeviceName: "d", Secret: "czNjcmV0"}
	goodCert    = TencentCertificate{ProductID: "P", DeviceName: "d"}
	goodGeneric = Generic{ClientID: "c", Username: "u", Password: "s3cret"}
	someTime    = time.UnixMilli(1700000000123)
	someNonce   = "aZ09x"
)

// change returns a copy of a valid identity with one thing changed.
func change[T any](id T, f func(*T)) T {
	f(&id)
	return id
}

func TestDefaults(t *testing.T) {
	for _, test := range []struct {
		name string
		id   Identity
		want Login
	}{
		{"aliyun", goodAliyun, Login{ClientID: "pk.d|securemode=3,signmethod=hmacsha256|", Username: "d&pk"}},
		{
			"aliyun with everything", change(goodAliyun, func(a *Aliyun) {
				a.ClientID, a.Method, a.Secure, a.Timestamp = "me", HMACMD5, true, true
			}),
			Login{ClientID: "me|securemode=2,signmethod=hmacmd5,timestamp=1700000000123|", Username: "d&pk"},
		},
		{"tencent", goodTencent, Login{ClientID: "Pd", Username: "Pd;12010126;aZ09x;1700003600"}},
		{"certificate", goodCert, Login{ClientID: "Pd", Username: "Pd;12010126;aZ09x;1700003600"}},
		{"generic", goodGeneric, Login{ClientID: "c", Username: "u"}},
		{"generic without login", Generic{ClientID: "c"}, Login{ClientID: "c"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.id.Sign(someTime, someNonce)
			if err != nil {
				t.Fatal(err)
			}
			if got.ClientID != test.want.ClientID || got.Username != test.want.Username {
				t.Errorf("%q, %q, want %q, %q", got.ClientID, got.Username, test.want.ClientID, test.want.Username)
			}
			if again, err := test.id.Sign(someTime, someNonce); err != nil || again != got {
				t.Errorf("signing again gives %+v, %v", again, err)
			}
		})
	}
}

func TestGenericPassword(t *testing.T) {
	got, err := goodGeneric.Sign(someTime, "")
	if want := (Login{"c", "u", "s3cret"}); err != nil || got != want {
		t.Errorf("client id %q, user name %q, password %q, %v", got.ClientID, got.Username, got.Password, err)
	}
}

// Each attempt has a login of its own.
func TestFreshness(t *testing.T) {
	base, err := goodTencent.Sign(someTime, someNonce)
	if err != nil {
		t.Fatal(err)
	}
	later, err1 := goodTencent.Sign(someTime.Add(time.Second), someNonce)
	other, err2 := goodTencent.Sign(someTime, "bbbbb")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if base.Username == later.Username || base.Username == other.Username || base.Password == later.Password ||
		base.Password == other.Password {
		t.Error("another time or nonce gave the same login")
	}
	id := change(goodAliyun, func(a *Aliyun) { a.Timestamp = true })
	one, err1 := id.Sign(someTime, "")
	two, err2 := id.Sign(someTime.Add(time.Millisecond), "")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if one.ClientID == two.ClientID || one.Password == two.Password {
		t.Error("another millisecond gave the same login")
	}
}

func TestFaults(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		id    Identity
		field string
	}{
		{"aliyun product", change(goodAliyun, func(a *Aliyun) { a.ProductKey = "" }), "product_key"},
		{"aliyun product separator", change(goodAliyun, func(a *Aliyun) { a.ProductKey = "p&k" }), "product_key"},
		{"aliyun device", change(goodAliyun, func(a *Aliyun) { a.DeviceName = "" }), "device_name"},
		{"aliyun device separator", change(goodAliyun, func(a *Aliyun) { a.DeviceName = "a&b" }), "device_name"},
		{"aliyun device NUL", change(goodAliyun, func(a *Aliyun) { a.DeviceName = "a\x00" }), "device_name"},
		{"aliyun client id", change(goodAliyun, func(a *Aliyun) { a.ClientID = "a|b" }), "client_id"},
		{"aliyun secret", change(goodAliyun, func(a *Aliyun) { a.Secret = "" }), "device_secret"},
		{"aliyun method", change(goodAliyun, func(a *Aliyun) { a.Method = "md5" }), "sign_method"},
		{"tencent product", change(goodTencent, func(a *Tencent) { a.ProductID = "" }), "product_id"},
		{"tencent product separator", change(goodTencent, func(a *Tencent) { a.ProductID = "P;" }), "product_id"},
		{"tencent device", change(goodTencent, func(a *Tencent) { a.DeviceName = "" }), "device_name"},
		{"tencent device separator", change(goodTencent, func(a *Tencent) { a.DeviceName = ";" }), "device_name"},
		{"tencent secret", change(goodTencent, func(a *Tencent) { a.Secret = "" }), "device_secret"},
		{"tencent secret not base64", change(goodTencent, func(a *Tencent) { a.Secret = "s3cret!" }), "device_secret"},
		{"tencent secret not padded", change(goodTencent, func(a *Tencent) { a.Secret = "czNjcmV" }), "device_secret"},
		{"tencent secret line end", change(goodTencent, func(a *Tencent) { a.Secret = "\n" }), "device_secret"},
		{"tencent method", change(goodTencent, func(a *Tencent) { a.Method = HMACMD5 }), "sign_method"},
		{"tencent app", change(goodTencent, func(a *Tencent) { a.SDKAppID = "1;2" }), "sdkappid"},
		{"tencent expiry", change(goodTencent, func(a *Tencent) { a.Expiry = -time.Second }), "expiry"},
		{"tencent expiry fraction", change(goodTencent, func(a *Tencent) { a.Expiry = 1500 * time.Millisecond }), "expiry"},
		{"certificate product", change(goodCert, func(c *TencentCertificate) { c.ProductID = "" }), "product_id"},
		{"certificate password", change(goodCert, func(c *TencentCertificate) { c.CertPassword = "x" }), "cert_password"},
		{"certificate no key", change(goodCert, func(c *TencentCertificate) {
			c.CertPassword = CertPasswordRSASHA256
		}), "key_file"},
		{"certificate EC key", change(goodCert, func(c *TencentCertificate) {
			c.CertPassword, c.Key = CertPasswordRSASHA256, ec
		}), "key_file"},
		{"generic client id", change(goodGeneric, func(g *Generic) { g.ClientID = "" }), "client_id"},
		{"generic user name", change(goodGeneric, func(g *Generic) { g.Username = "" }), "password"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var wrong *FieldError
			if err := test.id.Validate(); !errors.As(err, &wrong) || wrong.Field != test.field {
				t.Fatalf("%v, want a fault of %s", err, test.field)
			}
			if strings.Contains(wrong.Error(), "s3cret") || !strings.HasPrefix(wrong.Error(), test.field+" ") {
				t.Errorf("text: %s", wrong)
			}
			if login, err := test.id.Sign(someTime, someNonce); !errors.As(err, &wrong) || login != (Login{}) {
				t.Errorf("Sign gives %+v, %v", login, err)
			}
		})
	}
	for _, id := range []Identity{goodAliyun, goodTencent, goodCert, goodGeneric} {
		if err := id.Validate(); err != nil {
			t.Errorf("%+v: %v", id, err)
		}
	}
}

func TestNonce(t *testing.T) {
	for _, nonce := range []string{"", "abcd", "ab;de"} {
		for _, id := range []Identity{goodTencent, goodCert} {
			if _, err := id.Sign(someTime, nonce); err == nil {
				t.Errorf("%T takes the nonce %q", id, nonce)
			}
		}
	}
}
