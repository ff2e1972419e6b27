package cloudsim

import (
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"time"
)

// tencentUser is a parsed user name: clientId;sdkappid;connid;expiry
type tencentUser struct {
	clientID, sdkAppID, connID string
	expiry                     int64 // seconds since 1970
}

// parseTencentUser takes a user name apart.
func parseTencentUser(s string) (tencentUser, error) {
	f := strings.Split(s, ";")
	if len(f) != 4 {
		return tencentUser{}, fmt.Errorf("user name %q has %d fields, not clientId;sdkappid;connid;expiry", s, len(f))
	}
	u := tencentUser{clientID: f[0], sdkAppID: f[1], connID: f[2]}
	expiry, err := strconv.ParseUint(f[3], 10, 63)
	switch {
	case err != nil || f[3] != strconv.FormatUint(expiry, 10):
		return tencentUser{}, fmt.Errorf("user name %q: expiry %q is not a number of seconds", s, f[3])
	case u.clientID == "" || u.connID == "":
		return tencentUser{}, fmt.Errorf("user name %q has an empty field", s)
	case u.sdkAppID == "" || strings.Trim(u.sdkAppID, "0123456789") != "":
		return tencentUser{}, fmt.Errorf("user name %q: sdkappid %q is not a number", s, u.sdkAppID)
	}
	u.expiry = int64(expiry)
	return u, nil
}

// tencentKey is the key behind a device secret.
func tencentKey(secret string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(secret)
	if err == nil && len(key) == 0 {
		err = errors.New("empty")
	}
	return key, err
}

// verifyTencent checks a login as Tencent Cloud IoT Hub documents it: the client id is product id and device name,
// the user name repeats it and carries the signature's expiry, and the password is a token over the user name and its
// method. A certificate device shows its certificate in the TLS handshake, here with its name as common name; its
// password is then not looked at, unless it claims to be an RSA signature. Code 2 is for the client id, 4 for user
// name and password, and for a wrong clock too, 5 for who must not in.
func verifyTencent(a attempt, find func(string) (Device, bool), now time.Time) verdict {
	var v verdict
	v.clientID = a.clientID
	d, known := find(a.clientID)
	if known {
		v.device = d.Name
	}
	u, err := parseTencentUser(a.username)
	switch {
	case err != nil:
		return refuse(v, codeBadLogin, "%v", err)
	case u.clientID != a.clientID:
		return refuse(v, codeClientID, "client id %q, but user name %q", a.clientID, a.username)
	case u.expiry <= now.Unix():
		return refuse(v, codeBadLogin, "the signature expired at %d, it is %d now", u.expiry, now.Unix())
	case !known || d.Disabled:
		return refuse(v, codeNotAllowed, "device %q is unknown or disabled", a.clientID)
	case d.Certificate && (a.cert == nil || a.cert.Subject.CommonName != d.Name):
		return refuse(v, codeNotAllowed, "no client certificate for %q", d.Name)
	case d.Certificate:
		err = checkTencentCertPassword(a)
	default:
		err = checkTencentToken(a, d.Secret)
	}
	if err != nil {
		return refuse(v, codeBadLogin, "%v", err)
	}
	return v
}

// checkTencentToken checks a password token;method.
func checkTencentToken(a attempt, secret string) error {
	token, method, _ := strings.Cut(a.password, ";")
	newHash := map[string]func() hash.Hash{"hmacsha1": sha1.New, "hmacsha256": sha256.New}[method]
	if newHash == nil {
		return fmt.Errorf("the password's method %q is neither hmacsha1 nor hmacsha256", method)
	}
	key, err := tencentKey(secret)
	if err != nil {
		return fmt.Errorf("the device secret is not base64: %w", err)
	}
	mac := hmac.New(newHash, key)
	mac.Write([]byte(a.username))
	if !hmac.Equal([]byte(hex.EncodeToString(mac.Sum(nil))), []byte(token)) { // the vendor's is in lower case
		return errors.New("the signature does not match")
	}
	return nil
}

// checkTencentCertPassword accepts any password but a wrong signature;rsa-sha256, as the Java SDK sends.
func checkTencentCertPassword(a attempt) error {
	token, method, _ := strings.Cut(a.password, ";")
	if method != "rsa-sha256" {
		return nil
	}
	public, ok := a.cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return errors.New("password of method rsa-sha256, but the certificate's key is not RSA")
	}
	sig, err := hex.DecodeString(token)
	if err != nil {
		return fmt.Errorf("the signature is not hexadecimal: %w", err)
	}
	sum := sha256.Sum256([]byte(a.username))
	if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], sig); err != nil {
		return fmt.Errorf("the signature does not match: %w", err)
	}
	return nil
}
