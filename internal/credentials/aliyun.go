package credentials

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Aliyun is a device of Alibaba Cloud IoT Platform that signs with its device secret.
//
// Source: the vendor's document "Establish MQTT connections over TCP" (its parameters hold for WebSocket too) and its C
// SDK, iotkit-embedded v3.2.0.
//
//	client id  ${clientId}|securemode=2,signmethod=hmacsha256,timestamp=1700000000000|
//	user name  ${deviceName}&${productKey}
//	password   hex(HMAC(device secret, clientId${clientId}deviceName${deviceName}productKey${productKey}timestamp${ms}))
//
// A parameter that is not sent is not signed. The hexadecimal digits' case does not matter to the cloud.
type Aliyun struct {
	ProductKey string
	DeviceName string
	// ClientID is the part before the first "|", which must not have more characters than
	// Limits.MaxClientID. Default: ProductKey.DeviceName.
	ClientID string
	// Secret is the device secret; its own bytes are the key.
	Secret Secret
	// Method is HMACMD5, HMACSHA1 or HMACSHA256. Default: HMACSHA256.
	Method Method
	// Secure says that the connection is wss (securemode 2) rather than ws (3).
	Secure bool
	// Timestamp says to send the time of the attempt, in milliseconds since 1970, and to sign it.
	Timestamp bool
}

// PlainClientID is the client id without the parameters that the cloud wants after it.
func (a Aliyun) PlainClientID() string {
	if a.ClientID == "" {
		return a.ProductKey + "." + a.DeviceName
	}
	return a.ClientID
}

func (a Aliyun) method() Method {
	if a.Method == "" {
		return HMACSHA256
	}
	return a.Method
}

// Validate implements Identity.
func (a Aliyun) Validate() error {
	return first(
		required("product_key", a.ProductKey, "&|"),
		required("device_name", a.DeviceName, "&|"),
		required("client_id", a.PlainClientID(), "|"),
		required("device_secret", a.Secret.Reveal(), ""),
		a.method().check(HMACMD5, HMACSHA1, HMACSHA256),
	)
}

// Sign implements Identity. The nonce is not used.
func (a Aliyun) Sign(now time.Time, _ string) (Login, error) {
	if err := a.Validate(); err != nil {
		return Login{}, err
	}
	mode := "3"
	if a.Secure {
		mode = "2"
	}
	var id, content strings.Builder
	fmt.Fprintf(&id, "%s|securemode=%s,signmethod=%s", a.PlainClientID(), mode, a.method())
	// The parameters stand in the order of their names.
	fmt.Fprintf(&content, "clientId%sdeviceName%sproductKey%s", a.PlainClientID(), a.DeviceName, a.ProductKey)
	if a.Timestamp {
		ms := strconv.FormatInt(now.UnixMilli(), 10)
		id.WriteString(",timestamp=" + ms)
		content.WriteString("timestamp" + ms)
	}
	id.WriteByte('|')
	password, err := a.method().sum([]byte(a.Secret), content.String())
	if err != nil {
		return Login{}, err
	}
	return Login{ClientID: id.String(), Username: a.DeviceName + "&" + a.ProductKey, Password: password}, nil
}
