package credentials

import (
	"errors"
	"strings"
	"testing"
)

func TestPassThrough(t *testing.T) {
	const signed = "securemode=3,signmethod=hmacsha1,timestamp=1700000000000"
	for _, test := range []struct {
		name, vendor string
		secure       bool
		in           Login
		who, id      string // the client id that is sent; empty for the same
	}{
		{"aliyun over wss", ProviderAliyun, true, Login{"12345|" + signed + "|", "d&pk", "ab"}, "d&pk",
			"12345|securemode=2,signmethod=hmacsha1,timestamp=1700000000000|"},
		{"aliyun over ws", ProviderAliyun, false, Login{"12345|" + signed + "|", "d&pk", "ab"}, "d&pk", ""},
		{"aliyun, signed for TLS, over ws", ProviderAliyun, false, Login{"1|signmethod=hmacsha1,securemode=2|", "d&pk", "ab"},
			"d&pk", "1|signmethod=hmacsha1,securemode=3|"},
		{"the vendor's Node SDK", ProviderAliyun, true,
			Login{"pk&d|" + signed + ",lan=JS|Node,_v=1.2.8|", "d&pk", "ab"}, "d&pk",
			"pk&d|securemode=2,signmethod=hmacsha1,timestamp=1700000000000,lan=JS|Node,_v=1.2.8|"},
		{"aliyun, another mode", ProviderAliyun, true, Login{"1|securemode=-2,authType=x|", "d&pk", "ab"}, "d&pk", ""},
		{"aliyun, no mode", ProviderAliyun, true, Login{"1|signmethod=hmacsha1|", "d&pk", "ab"}, "d&pk", ""},
		{"tencent", ProviderTencent, true, Login{"Pd", "Pd;12010126;aZ09x;1700003600", "x;hmacsha256"}, "Pd", ""},
		{"generic", ProviderGeneric, true, Login{"c|securemode=3|", "u", "p"}, "c|securemode=3|", ""},
		{"generic without login", ProviderGeneric, false, Login{ClientID: "c"}, "c", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := PassThrough{Vendor: test.vendor, Secure: test.secure, Presented: test.in}
			who, err := p.Who()
			if err != nil || who != test.who {
				t.Errorf("who: %q, %v, want %q", who, err, test.who)
			}
			want := test.in
			if test.id != "" {
				want.ClientID = test.id
			}
			got, err := p.Sign(someTime, someNonce)
			if err != nil || got != want {
				t.Errorf("%q, %q, %v, want %q, %q", got.ClientID, got.Username, err, want.ClientID, want.Username)
			}
		})
	}
}

func TestPassThroughRefuses(t *testing.T) {
	for _, test := range []struct {
		name, vendor string
		in           Login
		field        string
	}{
		{"nothing", ProviderGeneric, Login{}, "client id"},
		{"a password alone", ProviderGeneric, Login{ClientID: "c", Password: "s3cret"}, "password"},
		{"aliyun, plain client id", ProviderAliyun, Login{"c", "d&pk", "s3cret"}, "client id"},
		{"aliyun, cut off", ProviderAliyun, Login{"c|securemode=3", "d&pk", "s3cret"}, "client id"},
		{"aliyun, no id", ProviderAliyun, Login{"|securemode=3|", "d&pk", "s3cret"}, "client id"},
		{"aliyun, one name", ProviderAliyun, Login{"c|securemode=3|", "d", "s3cret"}, "user name"},
		{"aliyun, no product", ProviderAliyun, Login{"c|securemode=3|", "d&", "s3cret"}, "user name"},
		{"aliyun, three names", ProviderAliyun, Login{"c|securemode=3|", "d&p&k", "s3cret"}, "user name"},
		{"tencent, somebody else's", ProviderTencent, Login{"Pd", "Pe;12010126;aZ09x;1700003600", "s3cret"}, "user name"},
		{"tencent, plain", ProviderTencent, Login{"Pd", "Pd", "s3cret"}, "user name"},
		{"tencent, no expiry", ProviderTencent, Login{"Pd", "Pd;1;2", "s3cret"}, "user name"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := PassThrough{Vendor: test.vendor, Presented: test.in}
			var wrong *FieldError
			if err := p.Validate(); !errors.As(err, &wrong) || wrong.Field != test.field {
				t.Fatalf("%v, want something about the %s", err, test.field)
			}
			if strings.Contains(wrong.Error(), "s3cret") {
				t.Error("the error shows the password")
			}
			if _, err := p.Sign(someTime, someNonce); err == nil {
				t.Error("signed all the same")
			}
		})
	}
}

// Whatever a device presents, what is passed on differs in the security mode only.
func FuzzPassThrough(f *testing.F) {
	f.Add("12345|securemode=3,signmethod=hmacsha1|", "d&pk", true)
	f.Add("pk&d|securemode=2,lan=JS|Node,_v=1|", "d&pk", false)
	f.Add("|||", "&", true)
	f.Fuzz(func(t *testing.T, id, user string, secure bool) {
		p := PassThrough{Vendor: ProviderAliyun, Secure: secure, Presented: Login{id, user, "p"}}
		got, err := p.Sign(someTime, "")
		if err != nil {
			return
		}
		neutral := strings.NewReplacer("securemode=2", "securemode=", "securemode=3", "securemode=")
		if got.Username != user || got.Password != "p" || neutral.Replace(got.ClientID) != neutral.Replace(id) {
			t.Fatalf("%q became %q", id, got.ClientID)
		}
		back := PassThrough{Vendor: ProviderAliyun, Secure: secure, Presented: got}
		if again, err := back.Sign(someTime, ""); err != nil || again != got {
			t.Fatalf("%q, again %q, %v", got.ClientID, again.ClientID, err)
		}
	})
}
