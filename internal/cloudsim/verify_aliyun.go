package cloudsim

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// aliyunID is a parsed client id: id|key=value,key=value|
type aliyunID struct {
	id     string
	params []aliyunParam
}

type aliyunParam struct{ key, value string }

// parseAliyunID takes a client id apart. A value may have bars in it: the vendor's Node SDK sends lan=JS|Node.
func parseAliyunID(s string) (aliyunID, error) {
	id, rest, ok := strings.Cut(s, "|")
	list, closed := strings.CutSuffix(rest, "|")
	switch {
	case !ok || !closed:
		return aliyunID{}, fmt.Errorf("client id %q is not of the form id|key=value,...|", s)
	case id == "":
		return aliyunID{}, fmt.Errorf("client id %q has nothing before the first bar", s)
	}
	out := aliyunID{id: id}
	for pair := range strings.SplitSeq(list, ",") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return aliyunID{}, fmt.Errorf("client id %q: parameter %q is not key=value", s, pair)
		}
		if _, twice := out.param(key); twice {
			return aliyunID{}, fmt.Errorf("client id %q has parameter %s twice", s, key)
		}
		out.params = append(out.params, aliyunParam{key, value})
	}
	return out, nil
}

func (a aliyunID) param(key string) (value string, ok bool) {
	for _, p := range a.params {
		if p.key == key {
			return p.value, true
		}
	}
	return "", false
}

// verifyAliyun checks a login as Alibaba Cloud IoT Platform documents it for MQTT over WebSocket: the password is the
// hex HMAC, with the device secret as the key, of clientId, deviceName, productKey and timestamp, each name followed
// by its value; a timestamp that is not sent is not signed. The parameter securemode tells the transport. Code 2 is
// for the client id, 4 for the form of user name and password, 5 for who must not in.
func verifyAliyun(a attempt, find func(string) (Device, bool)) verdict {
	var v verdict
	d, known := find(a.username)
	if known {
		v.device = d.Name
	}
	id, err := parseAliyunID(a.clientID)
	if err != nil {
		return refuse(v, codeClientID, "%v", err)
	}
	v.clientID = id.id
	want := "3"
	if a.secure {
		want = "2"
	}
	if mode, ok := id.param("securemode"); mode != want {
		return refuse(v, codeClientID, "securemode %q (sent: %t), this transport needs %s", mode, ok, want)
	}
	method, ok := id.param("signmethod")
	if !ok {
		method = "hmacmd5"
	}
	newHash := map[string]func() hash.Hash{"hmacmd5": md5.New, "hmacsha1": sha1.New, "hmacsha256": sha256.New}[method]
	if newHash == nil {
		return refuse(v, codeClientID, "signmethod %q is none of hmacmd5, hmacsha1, hmacsha256", method)
	}
	name, product, ok := strings.Cut(a.username, "&")
	if !ok || name == "" || product == "" || strings.Contains(product, "&") {
		return refuse(v, codeBadLogin, "user name %q is not of the form deviceName&productKey", a.username)
	}
	sum, err := hex.DecodeString(a.password)
	if err != nil || len(sum) != newHash().Size() {
		return refuse(v, codeBadLogin, "the password is not %d hexadecimal digits, for %s", 2*newHash().Size(), method)
	}
	if !known || d.Disabled {
		return refuse(v, codeNotAllowed, "device %q is unknown or disabled", a.username)
	}
	mac := hmac.New(newHash, []byte(d.Secret))
	fmt.Fprintf(mac, "clientId%sdeviceName%sproductKey%s", id.id, name, product)
	if timestamp, ok := id.param("timestamp"); ok {
		fmt.Fprintf(mac, "timestamp%s", timestamp)
	}
	if !hmac.Equal(mac.Sum(nil), sum) {
		return refuse(v, codeNotAllowed, "the signature does not match")
	}
	return v
}
