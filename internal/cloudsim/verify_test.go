package cloudsim

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// Values that the vendors' own code and documents give, see the comments.
var aliyunVectors = []struct{ clientID, password string }{
	// Alibaba's npm SDK and document.
	{"12345|securemode=2,signmethod=hmacsha1,timestamp=789|", "fafd82a3d602b37fb0fa8b7892f24a477f851a14"},
	{
		"12345|securemode=2,signmethod=hmacsha1,timestamp=789,lan=NodeJS,_v=1.2.8|",
		"FAFD82A3D602B37FB0FA8B7892F24A477F851A14",
	},
	// Alibaba's C SDK.
	{
		"12345|securemode=2,signmethod=hmacsha256,timestamp=789|",
		"6074a46a91b1ebb2cc4ea42790ad0e80202c9843859fc292e57c4eb19fad9e57",
	},
	{
		"pk.device|timestamp=2524608000000,_v=sdk-c-3.2.0,securemode=2,signmethod=hmacsha256,lan=C,gw=0,ext=0|",
		"2EAB47D05EC94FAB1A34E7E9F54AEBD34A1E15770F932E05300193007E0091E9",
	},
	// openssl.
	{"12345|securemode=2,signmethod=hmacmd5,timestamp=789|", "14b198324fe55e1d3c88f2e705e201ee"},
	{"12345|securemode=2,timestamp=789|", "14b198324fe55e1d3c88f2e705e201ee"},
	{"12345|securemode=2|", "2ce7304ec0ddd548eb1492d65ac0b334"},
	{"12345|securemode=2,signmethod=hmacsha1|", "3504e4df7ce4766d30f796ee973c9ce7fc5425cb"},
	{
		"12345|securemode=2,signmethod=hmacsha256|",
		"c8cb3dcb7159682438e5fd9a9c34f398e41bb8edb6f222795e307bafee151090",
	},
}

func finder(k Kind, list ...Device) func(string) (Device, bool) {
	return func(key string) (Device, bool) {
		for _, d := range list {
			if loginKey(k, d) == key {
				return d, true
			}
		}
		return Device{}, false
	}
}

var aliyunDevice = Device{Name: "device", Product: "pk", Secret: "secret"}

func TestAliyunVectors(t *testing.T) {
	find := finder(Aliyun, aliyunDevice)
	for _, tt := range aliyunVectors {
		good := attempt{clientID: tt.clientID, username: "device&pk", password: tt.password, secure: true}
		if v := verifyAliyun(good, find); v.code != 0 || v.device != "device" {
			t.Errorf("%s: %+v", tt.clientID, v)
			continue
		}
		ws := good
		ws.clientID, ws.secure = strings.Replace(good.clientID, "securemode=2", "securemode=3", 1), false
		if v := verifyAliyun(ws, find); v.code != 0 {
			t.Errorf("%s over ws: %+v", ws.clientID, v)
		}
		for _, changed := range changes(good.password, "0f") {
			bad := good
			bad.password = changed
			if v := verifyAliyun(bad, find); v.code != codeNotAllowed {
				t.Errorf("password %s: %+v", changed, v)
			}
		}
		for _, changed := range changes(good.username, "x&") {
			bad := good
			bad.username = changed
			if v := verifyAliyun(bad, find); v.code == 0 {
				t.Errorf("user name %s: accepted", changed)
			}
		}
		for i, changed := range changes(signedPart(good.clientID), "0x") {
			bad := good
			bad.clientID = strings.Replace(good.clientID, signedPart(good.clientID), changed, 1)
			if v := verifyAliyun(bad, find); v.code == 0 {
				t.Errorf("change %d, client id %s: accepted", i, bad.clientID)
			}
		}
	}
}

// signedPart is the client id proper.
func signedPart(clientID string) string {
	id, _, _ := strings.Cut(clientID, "|")
	return id
}

// changes returns s with each byte replaced by each of others, ignoring case.
func changes(s, others string) []string {
	var out []string
	for i := range s {
		for _, o := range others {
			if changed := s[:i] + string(o) + s[i+1:]; !strings.EqualFold(changed, s) {
				out = append(out, changed)
			}
		}
	}
	return out
}

func TestAliyunRefusals(t *testing.T) {
	good := attempt{
		clientID: aliyunVectors[0].clientID, username: "device&pk", hasUsername: true,
		password: aliyunVectors[0].password, secure: true,
	}
	id := func(s string) func(*attempt) { return func(a *attempt) { a.clientID = s } }
	user := func(s string) func(*attempt) { return func(a *attempt) { a.username = s } }
	password := func(s string) func(*attempt) { return func(a *attempt) { a.password = s } }
	for name, tt := range map[string]struct {
		change func(*attempt)
		code   byte
	}{
		"no parameters":        {id("12345"), 2},
		"no closing bar":       {id("12345|securemode=2,signmethod=hmacsha1,timestamp=789"), 2},
		"something after":      {id("12345|securemode=2,signmethod=hmacsha1,timestamp=789|x"), 2},
		"empty id":             {id("|securemode=2,signmethod=hmacsha1,timestamp=789|"), 2},
		"no securemode":        {id("12345|signmethod=hmacsha1,timestamp=789|"), 2},
		"securemode of ws":     {id("12345|securemode=3,signmethod=hmacsha1,timestamp=789|"), 2},
		"securemode of wss":    {func(a *attempt) { a.secure = false }, 2},
		"unknown method":       {id("12345|securemode=2,signmethod=sha1,timestamp=789|"), 2},
		"parameter twice":      {id("12345|securemode=2,securemode=2,signmethod=hmacsha1,timestamp=789|"), 2},
		"parameter no value":   {id("12345|securemode=2,signmethod=hmacsha1,timestamp|"), 2},
		"another timestamp":    {id("12345|securemode=2,signmethod=hmacsha1,timestamp=790|"), 5},
		"timestamp left out":   {id("12345|securemode=2,signmethod=hmacsha1|"), 5},
		"method of other size": {id("12345|securemode=2,signmethod=hmacsha256,timestamp=789|"), 4},
		"no user name":         {user(""), 4},
		"user name, no &":      {user("device"), 4},
		"user name, two &":     {user("device&pk&"), 4},
		"user name, no device": {user("&pk"), 4},
		"unknown device":       {user("other&pk"), 5},
		"unknown product":      {user("device&kp"), 5},
		"disabled":             {user("off&pk"), 5},
		"no password":          {password(""), 4},
		"password no hex":      {password("zafd82a3d602b37fb0fa8b7892f24a477f851a14"), 4},
		"password too long":    {password(good.password + "00"), 4},
	} {
		t.Run(name, func(t *testing.T) {
			find := finder(Aliyun, aliyunDevice, Device{Name: "off", Product: "pk", Secret: "secret", Disabled: true})
			a := good
			tt.change(&a)
			if v := verifyAliyun(a, find); v.code != tt.code || v.reason == "" {
				t.Errorf("%+v, want code %d", v, tt.code)
			}
		})
	}
}

const (
	tencentSecret = "MTIzNDU2Nzg5MGFiY2RlZg=="
	tencentExpiry = 1700000000
)

var tencentDevice = Device{Name: "dev01", Product: "ABCDE12345", Secret: tencentSecret}

var tencentVectors = []struct{ username, password string }{
	// Tencent's C functions, and crypto-js by the vendor's recipe.
	{"ABCDE12345dev01;12010126;abcde;1700000000", "c4cf415b346281b99ffd498d9dcf903dd17af57b;hmacsha1"},
	{
		"ABCDE12345dev01;12010126;abcde;1700000000",
		"0f23ccb23e849217420fbfb9fbabfcaa6673b1c469831e9c4d36bbbb10372b29;hmacsha256",
	},
	{"ABCDE12345dev01;21010406;abcde;1700000000", "c3e42afefa284313f8b9e8f099c589efafa9038b;hmacsha1"},
	{
		"ABCDE12345dev01;21010406;abcde;1700000000",
		"3f7affabcc7e44ba4c4ddce1fe3b6f1e623c2a9b32c2da56d6fe8377212716c0;hmacsha256",
	},
	// Tencent's Python SDK, with an expiry in milliseconds.
	{"ABCDE12345dev01;21010406;abcde;1700000000000", "11d8e9c141f32647df6ae133129ed93a53348f29;hmacsha1"},
	// openssl, for the expiries of the Java and the C SDK.
	{
		"ABCDE12345dev01;12010126;abcde;2147483647",
		"541c265ca7a685e09c87901d2a3240eb773a5330f39ba7f09392530da2c49b89;hmacsha256",
	},
	{
		"ABCDE12345dev01;12010126;abcde;9223372036854775807",
		"1787233ff2a16c0a5420d78be3c8fa68ea8e7e304376dfcc5ca848a731e4a8bd;hmacsha256",
	},
}

func TestTencentVectors(t *testing.T) {
	find, now := finder(Tencent, tencentDevice), time.Unix(tencentExpiry-1, 0)
	for _, tt := range tencentVectors {
		good := attempt{clientID: "ABCDE12345dev01", username: tt.username, hasUsername: true, password: tt.password}
		if v := verifyTencent(good, find, now); v.code != 0 || v.device != "dev01" {
			t.Errorf("%s: %+v", tt.username, v)
			continue
		}
		for _, changed := range changes(good.password, "0a;") {
			bad := good
			bad.password = changed
			if v := verifyTencent(bad, find, now); v.code != codeBadLogin {
				t.Errorf("password %s: %+v", changed, v)
			}
		}
		for _, changed := range changes(good.username, "0x;") {
			bad := good
			bad.username = changed
			if v := verifyTencent(bad, find, now); v.code == 0 {
				t.Errorf("user name %s: accepted", changed)
			}
		}
		for _, changed := range changes(good.clientID, "0x") {
			bad := good
			bad.clientID = changed
			if v := verifyTencent(bad, find, now); v.code != codeClientID {
				t.Errorf("client id %s: %+v", changed, v)
			}
		}
	}
}

func TestTencentRefusals(t *testing.T) {
	good := attempt{
		clientID: "ABCDE12345dev01", username: tencentVectors[0].username, hasUsername: true,
		password: tencentVectors[0].password,
	}
	user := func(s string) func(*attempt, *time.Time) { return func(a *attempt, _ *time.Time) { a.username = s } }
	password := func(s string) func(*attempt, *time.Time) {
		return func(a *attempt, _ *time.Time) { a.password = s }
	}
	token := good.password[:40]
	for name, tt := range map[string]struct {
		change func(*attempt, *time.Time)
		code   byte
	}{
		"just expired":     {func(_ *attempt, now *time.Time) { *now = time.Unix(tencentExpiry, 0) }, 4},
		"three fields":     {user("ABCDE12345dev01;12010126;abcde"), 4},
		"five fields":      {user("ABCDE12345dev01;12010126;abcde;1700000000;"), 4},
		"no connid":        {user("ABCDE12345dev01;12010126;;1700000000"), 4},
		"sdkappid":         {user("ABCDE12345dev01;1201o126;abcde;1700000000"), 4},
		"expiry no number": {user("ABCDE12345dev01;12010126;abcde;soon"), 4},
		"negative expiry":  {user("ABCDE12345dev01;12010126;abcde;-1"), 4},
		"expiry with sign": {user("ABCDE12345dev01;12010126;abcde;+1700000000"), 4},
		"unlike client id": {user("ABCDE12345dev02;12010126;abcde;1700000000"), 2},
		"upper case token": {password(strings.ToUpper(token) + ";hmacsha1"), 4},
		"no method":        {password(token), 4},
		"other method":     {password(token + ";hmacsha256"), 4},
		"no password":      {password(""), 4},
		"unknown":          {other("ABCDE12345dev09"), 5},
		"disabled":         {other("ABCDE12345off"), 5},
	} {
		t.Run(name, func(t *testing.T) {
			off := Device{Name: "off", Product: "ABCDE12345", Secret: tencentSecret, Disabled: true}
			a, now := good, time.Unix(tencentExpiry-1, 0)
			tt.change(&a, &now)
			if v := verifyTencent(a, finder(Tencent, tencentDevice, off), now); v.code != tt.code || v.reason == "" {
				t.Errorf("%+v, want code %d", v, tt.code)
			}
		})
	}
}

func other(clientID string) func(*attempt, *time.Time) {
	return func(a *attempt, _ *time.Time) {
		a.clientID, a.username = clientID, strings.Replace(a.username, "ABCDE12345dev01", clientID, 1)
	}
}

func TestTencentCertificates(t *testing.T) {
	ca, err := NewCA("test")
	must(t, err)
	certs := map[string]*x509.Certificate{}
	keys := map[string]crypto.Signer{}
	issuers := map[string]func(string) (*ClientCert, error){"ec": ca.IssueClient, "rsa": ca.IssueClientRSA}
	for name, issue := range issuers {
		pair := value(value(issue("dev01"))(t).TLS())(t)
		certs[name], keys[name] = pair.Leaf, pair.PrivateKey.(crypto.Signer)
	}
	certs["other"] = value(value(ca.IssueClient("dev02"))(t).TLS())(t).Leaf
	username := tencentVectors[0].username
	sum := sha256.Sum256([]byte(username))
	sig := value(keys["rsa"].Sign(rand.Reader, sum[:], crypto.SHA256))(t)
	signed := hex.EncodeToString(sig) + ";rsa-sha256"

	find := finder(Tencent, Device{Name: "dev01", Product: "ABCDE12345", Certificate: true})
	for name, tt := range map[string]struct {
		cert, password string
		code           byte
	}{
		"any password":        {"ec", "whatever", 0},
		"no password":         {"rsa", "", 0},
		"signature":           {"rsa", signed, 0},
		"wrong signature":     {"rsa", changes(signed[:2], "0")[0] + signed[2:], 4},
		"not hexadecimal":     {"rsa", "xyz;rsa-sha256", 4},
		"signature, other":    {"ec", signed, 4},
		"certificate, other":  {"other", "whatever", 5},
		"no certificate":      {"", "whatever", 5},
		"key device's secret": {"", tencentVectors[0].password, 5},
	} {
		t.Run(name, func(t *testing.T) {
			a := attempt{
				clientID: "ABCDE12345dev01", username: username, hasUsername: true,
				password: tt.password, secure: true, cert: certs[tt.cert],
			}
			if v := verifyTencent(a, find, time.Unix(0, 0)); v.code != tt.code {
				t.Errorf("%+v, want code %d", v, tt.code)
			}
		})
	}
	if _, ok := keys["rsa"].Public().(*rsa.PublicKey); !ok {
		t.Error("not an RSA key")
	}
}

func TestGenericLogin(t *testing.T) {
	users := map[string]string{"u": "p", "empty": ""}
	for name, tt := range map[string]struct {
		users     map[string]string
		anonymous bool
		user      string
		password  string
		code      byte
	}{
		"open":                  {code: 0},
		"open, with user":       {user: "x", password: "y"},
		"right":                 {users: users, user: "u", password: "p"},
		"empty password":        {users: users, user: "empty"},
		"wrong":                 {users: users, user: "u", password: "q", code: 5},
		"unknown":               {users: users, user: "v", password: "p", code: 5},
		"none":                  {users: users, code: 5},
		"anonymous":             {users: users, anonymous: true},
		"anonymous, wrong user": {users: users, anonymous: true, user: "v", code: 5},
		"nobody may":            {users: map[string]string{}, user: "v", code: 5},
	} {
		t.Run(name, func(t *testing.T) {
			a := attempt{clientID: "d", username: tt.user, hasUsername: tt.user != "", password: tt.password}
			if v := verifyGeneric(a, tt.users, tt.anonymous); v.code != tt.code || v.device != "d" {
				t.Errorf("%+v, want code %d", v, tt.code)
			}
		})
	}
}

// aliyunConnect signs a login of a device with secret "secret" and product "pk".
func aliyunConnect(name string, secure bool) *packets.ConnectPacket {
	mode := map[bool]int{true: 2, false: 3}[secure]
	mac := hmac.New(sha1.New, []byte("secret"))
	fmt.Fprintf(mac, "clientIdciddeviceName%sproductKeypktimestamp1", name)
	id := fmt.Sprintf("cid|securemode=%d,signmethod=hmacsha1,timestamp=1|", mode)
	return withUser(login(id, true), name+"&pk", hex.EncodeToString(mac.Sum(nil)))
}

// tencentConnect signs a login of a device with tencentSecret and product "P".
func tencentConnect(t *testing.T, name string) *packets.ConnectPacket {
	t.Helper()
	key := value(base64.StdEncoding.DecodeString(tencentSecret))(t)
	user := fmt.Sprintf("P%s;12010126;abcde;%d", name, time.Now().Add(time.Hour).Unix())
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(user))
	return withUser(login("P"+name, true), user, hex.EncodeToString(mac.Sum(nil))+";hmacsha256")
}

// The clouds of the vendors, from the socket on.
func TestVendorLogins(t *testing.T) {
	aliyun := start(t, Options{Kind: Aliyun, Product: "pk", Devices: []Device{{Name: "d", Secret: "secret"}}})
	tencent := start(t, Options{Kind: Tencent, Product: "P", Devices: []Device{
		{Name: "key", Secret: tencentSecret}, {Name: "key2", Secret: tencentSecret}, {Name: "cert", Certificate: true},
	}})
	dialRaw(t, aliyun, aliyun.WSURL()).connect(aliyunConnect("d", false), 0)
	dialRaw(t, aliyun, aliyun.WSSURL()).connect(aliyunConnect("d", true), 0)
	dialRaw(t, aliyun, aliyun.WSURL()).connect(aliyunConnect("d", true), 2)
	dialRaw(t, aliyun, aliyun.WSURL()).connect(aliyunConnect("e", false), 5)
	dialRaw(t, tencent, tencent.WSURL()).connect(tencentConnect(t, "key"), 0)
	dialRaw(t, tencent, tencent.WSSURL()).connect(tencentConnect(t, "key2"), 0)
	cert := func() *packets.ConnectPacket {
		return withUser(login("Pcert", true), tencentConnect(t, "cert").Username, "x")
	}
	dialRaw(t, tencent, tencent.WSSURL()).connect(cert(), 5)

	pair := value(value(tencent.CA().IssueClient("cert"))(t).TLS())(t)
	d := dialer(tencent)
	d.TLSClientConfig.Certificates = []tls.Certificate{pair}
	ws, resp, err := d.Dial(tencent.WSSURL(), nil)
	must(t, err)
	must(t, resp.Body.Close())
	t.Cleanup(func() { _ = ws.Close() })
	r := &raw{t: t, ws: ws, in: &frameReader{ws: ws}}
	tencent.ClearRecords()
	tencent.SetRules(func(r Rules) Rules { r.Connects = Rate{}; return r }(tencent.Rules()))
	r.connect(cert(), 0)
	if s := tencent.Sessions(); len(s) != 3 || s[0].Device != "cert" || s[1].Device != "key" {
		t.Errorf("sessions %+v", s)
	}
	noViolations(t, aliyun)
	noViolations(t, tencent)
	if f := aliyun.LoginFailures(); len(f) != 2 || f[0].Device != "d" || f[1].Code != 5 || f[1].Device != "" {
		t.Errorf("login failures %+v", f)
	}
}
