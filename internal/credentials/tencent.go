package credentials

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// What a Tencent identity says unless told otherwise.
const (
	// DefaultSDKAppID is the one in the vendor's documents and Java SDK.
	DefaultSDKAppID = "12010126"
	// DefaultExpiry is how long a signature is valid. The session itself is not cut when it expires.
	DefaultExpiry = time.Hour
)

// Tencent is a device of Tencent Cloud IoT Hub that signs with its pre-shared key.
//
// Source: the vendor's document "MQTT over WebSocket" and its SDKs.
//
//	client id  ${productId}${deviceName}
//	user name  ${productId}${deviceName};${sdkappid};${connid};${expiry}
//	password   hex(HMAC(base64 decoded secret, user name));hmacsha256
//
// connid is five characters of the nonce, expiry the second since 1970 after which the signature is void.
type Tencent struct {
	ProductID  string
	DeviceName string
	// Secret is the device secret as the console shows it, base64.
	Secret Secret
	// Method is HMACSHA256 or HMACSHA1. Default: HMACSHA256.
	Method Method
	// SDKAppID is digits. Default: DefaultSDKAppID.
	SDKAppID string
	// Expiry is how long a signature is valid, in whole seconds. Default: DefaultExpiry.
	Expiry time.Duration
}

func (t Tencent) method() Method {
	if t.Method == "" {
		return HMACSHA256
	}
	return t.Method
}

func (t Tencent) subject() tencentSubject {
	return tencentSubject{t.ProductID, t.DeviceName, t.SDKAppID, t.Expiry}
}

// Validate implements Identity.
func (t Tencent) Validate() error {
	if err := first(
		t.subject().validate(),
		required("device_secret", t.Secret.Reveal(), ""),
		t.method().check(HMACSHA1, HMACSHA256),
	); err != nil {
		return err
	}
	_, err := t.key()
	return err
}

func (t Tencent) key() ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(t.Secret.Reveal())
	if err != nil || len(key) == 0 {
		return nil, &FieldError{
			Field:  "device_secret",
			Reason: "is not base64",
			Remedy: "copy the device's key from the cloud's console with its final \"=\" signs",
		}
	}
	return key, nil
}

// Sign implements Identity.
func (t Tencent) Sign(now time.Time, nonce string) (Login, error) {
	if err := t.Validate(); err != nil {
		return Login{}, err
	}
	login, err := t.subject().login(now, nonce)
	if err != nil {
		return Login{}, err
	}
	key, err := t.key()
	if err != nil {
		return Login{}, err
	}
	token, err := t.method().sum(key, login.Username)
	if err != nil {
		return Login{}, err
	}
	login.Password = token + ";" + string(t.method())
	return login, nil
}

// CertPassword says what a certificate device sends as its password.
type CertPassword string

// The vendor's document allows any password beside the certificate; its Java SDK sends a signature of the user name.
const (
	CertPasswordAny       CertPassword = "any"
	CertPasswordRSASHA256 CertPassword = "rsa-sha256"
)

// anyPassword is what CertPasswordAny sends: something, since some brokers take a user name without a password for a
// malformed login.
const anyPassword = "x509"

// TencentCertificate is a device of Tencent Cloud IoT Hub that presents an X.509 client certificate in the TLS
// handshake. Client id and user name are those of Tencent; the password is any, or
//
//	hex(RSASSA-PKCS1-v1_5 with SHA-256 of the user name, by the certificate's key);rsa-sha256
//
// Source: the vendor's document "MQTT over WebSocket" for the first, its Java SDK for the second.
type TencentCertificate struct {
	ProductID  string
	DeviceName string
	// SDKAppID and Expiry are as in Tencent.
	SDKAppID string
	Expiry   time.Duration
	// CertPassword is CertPasswordAny or CertPasswordRSASHA256. Default: CertPasswordAny.
	CertPassword CertPassword
	// Key is the certificate's private key, RSA. It is only used for CertPasswordRSASHA256.
	Key crypto.Signer `json:"-"`
}

func (t TencentCertificate) subject() tencentSubject {
	return tencentSubject{t.ProductID, t.DeviceName, t.SDKAppID, t.Expiry}
}

// Validate implements Identity.
func (t TencentCertificate) Validate() error {
	if err := t.subject().validate(); err != nil {
		return err
	}
	switch t.CertPassword {
	case "", CertPasswordAny:
		return nil
	case CertPasswordRSASHA256:
	default:
		return &FieldError{
			Field:  "cert_password",
			Reason: fmt.Sprintf("%q is not known", string(t.CertPassword)),
			Remedy: "write any or rsa-sha256",
		}
	}
	if t.Key == nil {
		return &FieldError{Field: "key_file", Reason: "is missing, and cert_password: rsa-sha256 signs with it"}
	}
	if _, ok := t.Key.Public().(*rsa.PublicKey); !ok {
		return &FieldError{
			Field:  "key_file",
			Reason: "holds no RSA key, and cert_password: rsa-sha256 needs one",
			Remedy: "write cert_password: any at the cloud",
		}
	}
	return nil
}

// Sign implements Identity.
func (t TencentCertificate) Sign(now time.Time, nonce string) (Login, error) {
	if err := t.Validate(); err != nil {
		return Login{}, err
	}
	login, err := t.subject().login(now, nonce)
	if err != nil {
		return Login{}, err
	}
	if t.CertPassword != CertPasswordRSASHA256 {
		login.Password = anyPassword
		return login, nil
	}
	digest := sha256.Sum256([]byte(login.Username))
	// PKCS #1 v1.5 signatures are deterministic: no randomness is needed, nor taken.
	signature, err := t.Key.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		return Login{}, fmt.Errorf("sign user name with the device's key: %w", err)
	}
	login.Password = hex.EncodeToString(signature) + ";" + string(CertPasswordRSASHA256)
	return login, nil
}

// Format prints the identity without its private key.
func (t TencentCertificate) Format(f fmt.State, verb rune) {
	type plain TencentCertificate // without this method
	shown := plain(t)
	shown.Key = nil
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), shown)
}

// tencentSubject is what both kinds of Tencent devices have in common.
type tencentSubject struct {
	productID  string
	deviceName string
	sdkAppID   string
	expiry     time.Duration
}

func (s tencentSubject) validate() error {
	if err := first(
		required("product_id", s.productID, ";"),
		required("device_name", s.deviceName, ";"),
	); err != nil {
		return err
	}
	if strings.Trim(s.sdkAppID, "0123456789") != "" {
		return &FieldError{
			Field:  "sdkappid",
			Reason: fmt.Sprintf("%q is not a number", s.sdkAppID),
			Remedy: "leave it out to use " + DefaultSDKAppID,
		}
	}
	if s.expiry < 0 || s.expiry%time.Second != 0 {
		return &FieldError{
			Field:  "expiry",
			Reason: fmt.Sprintf("%s is not a positive number of whole seconds", s.expiry),
			Remedy: "write for example 1h",
		}
	}
	return nil
}

// login returns client id and user name.
func (s tencentSubject) login(now time.Time, nonce string) (Login, error) {
	if len(nonce) < NonceLength || strings.ContainsAny(nonce[:NonceLength], ";\x00") {
		return Login{}, fmt.Errorf("nonce %q: need %d letters or digits", nonce, NonceLength)
	}
	app, expiry := s.sdkAppID, s.expiry
	if app == "" {
		app = DefaultSDKAppID
	}
	if expiry == 0 {
		expiry = DefaultExpiry
	}
	id := s.productID + s.deviceName
	until := strconv.FormatInt(now.Unix()+int64(expiry/time.Second), 10)
	return Login{ClientID: id, Username: strings.Join([]string{id, app, nonce[:NonceLength], until}, ";")}, nil
}
