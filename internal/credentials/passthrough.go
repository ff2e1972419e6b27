package credentials

import (
	"strings"
	"time"
)

// PassThrough is a device that makes its login itself, for a connection over plain TCP, as firmware with a vendor's SDK
// does. What it presents is passed on, adapted to the transport where that is possible without its secret.
//
// Unlike the other identities it cannot sign anew: each attempt presents the same. A cloud that lets a signature expire
// refuses it then, and the device has to come again.
type PassThrough struct {
	// Vendor is whose form the login has: ProviderAliyun, ProviderTencent, or ProviderGeneric for any.
	Vendor string
	// Secure says that the connection is wss rather than ws.
	Secure bool
	// Presented is what the device's own CONNECT carries.
	Presented Login
}

// Who is what the cloud calls the device. It is the same whenever the device comes, although what it presents may
// change: Alibaba's user name; Tencent's client id; in general the client id. The error is a *FieldError: a login that
// is not of the vendor's form.
//
// Source: the vendors' formulas, see Aliyun and Tencent.
func (p PassThrough) Who() (string, error) {
	l := p.Presented
	if l.ClientID == "" {
		return "", &FieldError{Field: "client id", Reason: "is empty"}
	}
	switch p.Vendor {
	case ProviderAliyun:
		name, product, ok := strings.Cut(l.Username, "&")
		if !ok || name == "" || product == "" || strings.Contains(product, "&") {
			return "", &FieldError{Field: "user name", Reason: "is not of the form DEVICENAME&PRODUCTKEY"}
		}
		if _, _, ok := aliyunParameters(l.ClientID); !ok {
			return "", &FieldError{Field: "client id", Reason: "is not of the form ID|securemode=3,signmethod=...|"}
		}
		return l.Username, nil
	case ProviderTencent:
		id, rest, _ := strings.Cut(l.Username, ";")
		if id != l.ClientID || strings.Count(rest, ";") != 2 {
			return "", &FieldError{Field: "user name", Reason: "is not of the form CLIENTID;SDKAPPID;CONNID;EXPIRY"}
		}
	}
	return l.ClientID, nil
}

// Validate implements Identity.
func (p PassThrough) Validate() error {
	if l := p.Presented; l.Username == "" && l.Password != "" {
		return &FieldError{
			Field: "password", Reason: "is given without a user name, which MQTT 3.1.1 does not allow (3.1.2.9)",
		}
	}
	_, err := p.Who()
	return err
}

// Sign implements Identity. It returns what the device presented; of Alibaba's login, the client id's securemode
// becomes what the transport asks for (2 for wss, 3 for ws), which is not part of what is signed. Time and nonce are
// not used.
func (p PassThrough) Sign(time.Time, string) (Login, error) {
	if err := p.Validate(); err != nil {
		return Login{}, err
	}
	l := p.Presented
	if p.Vendor == ProviderAliyun {
		l.ClientID = withSecureMode(l.ClientID, p.Secure)
	}
	return l, nil
}

// aliyunParameters takes a client id of Alibaba's apart: ID|name=value,...|. Values may have a "|" in them, as the
// vendor's Node SDK's do.
func aliyunParameters(clientID string) (id string, parameters []string, ok bool) {
	id, rest, ok := strings.Cut(clientID, "|")
	if !ok || id == "" || !strings.HasSuffix(rest, "|") {
		return "", nil, false
	}
	return id, strings.Split(strings.TrimSuffix(rest, "|"), ","), true
}

func withSecureMode(clientID string, secure bool) string {
	id, parameters, _ := aliyunParameters(clientID)
	mode := "3"
	if secure {
		mode = "2"
	}
	for i, p := range parameters {
		if name, value, _ := strings.Cut(p, "="); name == "securemode" && (value == "2" || value == "3") {
			parameters[i] = "securemode=" + mode // others, such as those for registering, mean something else
		}
	}
	return id + "|" + strings.Join(parameters, ",") + "|"
}
