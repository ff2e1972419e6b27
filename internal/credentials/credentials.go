// Package credentials turns a device's cloud identity into the login material for one connection attempt, and states
// what each cloud allows.
//
// Everything here is a pure function of identity, time and nonce: no I/O, no clock and no randomness of its own. The
// values are plain data and safe for concurrent use. Every attempt signs anew, so that time stamps, nonces and expiries
// are never used twice; that is the caller's part, who passes the current time and a fresh nonce.
package credentials

import (
	"crypto/hmac"
	"crypto/md5" // HMAC-MD5 and HMAC-SHA1 are the clouds' choice, and sound as MACs
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
	"time"
)

// NonceLength is how many characters of the nonce a signature uses at most. They must be letters or digits.
const NonceLength = 5

// Login is what one CONNECT carries. An empty Username or Password is not sent. It prints with its password masked.
type Login struct {
	ClientID string
	Username string
	Password string
}

// Identity is a device as its cloud knows it.
type Identity interface {
	// Sign returns the login material for one connection attempt at the time now. The nonce is NonceLength random
	// letters or digits; identities that need none ignore it. It fails only for an identity that does not validate, or
	// whose private key refuses to sign.
	Sign(now time.Time, nonce string) (Login, error)
	// Validate says what is wrong with the identity itself, as a *FieldError, or nil.
	Validate() error
}

// FieldError says which part of an identity is wrong. It never holds a secret's value.
type FieldError struct {
	// Field is the part's name as in the configuration: device_secret, product_key, ...
	Field string
	// Reason completes the sentence "FIELD ...", as in "is missing".
	Reason string
	// Remedy says what to write instead, empty if the reason says it all.
	Remedy string
}

func (e *FieldError) Error() string {
	text := e.Field + " " + e.Reason
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

// Method names how a key identity signs.
type Method string

// The methods in the words the clouds use.
const (
	HMACMD5    Method = "hmacmd5"
	HMACSHA1   Method = "hmacsha1"
	HMACSHA256 Method = "hmacsha256"
)

// sum is the lower-case hexadecimal HMAC of content.
func (m Method) sum(key []byte, content string) (string, error) {
	var h func() hash.Hash
	switch m {
	case HMACMD5:
		h = md5.New
	case HMACSHA1:
		h = sha1.New
	case HMACSHA256:
		h = sha256.New
	default:
		return "", m.unknown(HMACMD5, HMACSHA1, HMACSHA256)
	}
	mac := hmac.New(h, key)
	mac.Write([]byte(content))
	return hex.EncodeToString(mac.Sum(nil)), nil
}

// check says whether m is one of the allowed methods.
func (m Method) check(allowed ...Method) error {
	for _, a := range allowed {
		if m == a {
			return nil
		}
	}
	return m.unknown(allowed...)
}

func (m Method) unknown(allowed ...Method) error {
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	return &FieldError{
		Field:  "sign_method",
		Reason: fmt.Sprintf("%q is not known to this provider", string(m)),
		Remedy: "write one of " + strings.Join(names, ", "),
	}
}

// required checks that a part of an identity is there and free of the characters that its format uses as separators.
func required(field, value, separators string) error {
	if value == "" {
		return &FieldError{Field: field, Reason: "is missing"}
	}
	if i := strings.IndexAny(value, separators+"\x00"); i >= 0 {
		return &FieldError{
			Field:  field,
			Reason: fmt.Sprintf("contains %q, which the cloud's login format uses as a separator", value[i]),
			Remedy: "copy it from the cloud's console as it is",
		}
	}
	return nil
}

// first returns the first error that is not nil.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
