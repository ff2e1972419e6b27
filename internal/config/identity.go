package config

import (
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"bridged/internal/credentials"
)

// Stand-ins for values that are reported as faulty already, so that the rest of a device can still be checked.
const (
	someSecret = Secret("AAAA") // is base64
	someName   = "x"
)

// identity builds what signs a device's connection attempts.
func (r *resolver) identity(d *device) {
	k, c := d.keys, d.cloud
	pair := r.clientCertificate(d)
	switch c.Provider {
	case credentials.ProviderAliyun:
		d.Identity = credentials.Aliyun{
			ProductKey: firstOf(k.ProductKey.value, c.keys.ProductKey.value),
			DeviceName: k.DeviceName.value,
			ClientID:   firstGood(&k.ClientID),
			Secret:     r.deviceSecret(d),
			Method:     credentials.Method(firstGood(&c.keys.SignMethod)),
			Secure:     c.URL != nil && c.URL.Scheme == "wss",
			Timestamp:  c.keys.Timestamp.value,
		}
	case credentials.ProviderTencent:
		d.Identity = r.tencent(d, pair)
	case credentials.ProviderGeneric:
		id := credentials.Generic{ClientID: firstOf(firstGood(&k.ClientID), d.Name), Username: firstGood(&k.Username)}
		id.Password = r.secret(&k.Password)
		d.Identity = id
	default:
		return // the provider is reported already
	}
	var wrong *credentials.FieldError
	if err := d.Identity.Validate(); errors.As(err, &wrong) {
		r.identityFault(d, wrong)
	} else {
		r.clientIDLength(d)
	}
}

// tencent builds a key or a certificate identity, whichever the device has.
func (r *resolver) tencent(d *device, pair *tls.Certificate) credentials.Identity {
	k, c := d.keys, d.cloud.keys
	product := firstOf(k.ProductID.value, c.ProductID.value)
	if k.CertFile.given || k.KeyFile.given {
		if k.DeviceSecret.given {
			r.fault(k.DeviceSecret.place, "is given together with a certificate",
				"remove it, or cert_file and key_file: a product's devices have either")
		}
		id := credentials.TencentCertificate{
			ProductID: product, DeviceName: k.DeviceName.value,
			SDKAppID: firstGood(&c.SDKAppID), Expiry: expiryOf(c),
			CertPassword: credentials.CertPassword(firstGood(&c.CertPassword)),
		}
		if pair == nil {
			id.CertPassword = credentials.CertPasswordAny // the key's fault is reported
			return id
		}
		id.Key, _ = pair.PrivateKey.(crypto.Signer)
		return id
	}
	return credentials.Tencent{
		ProductID: product, DeviceName: k.DeviceName.value,
		Secret:   r.deviceSecret(d),
		Method:   credentials.Method(firstGood(&c.SignMethod)),
		SDKAppID: firstGood(&c.SDKAppID), Expiry: expiryOf(c),
	}
}

// firstGood is a key's value, or nothing if it is reported as faulty: then the identity takes its default.
func firstGood(t *text) string {
	if t.bad {
		return ""
	}
	return t.value
}

// expiryOf is firstGood for the expiry.
func expiryOf(c *cloudKeys) time.Duration {
	if c.Expiry.bad {
		return 0
	}
	return c.Expiry.value
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// deviceSecret reads the device secret. A missing one is the identity's fault.
func (r *resolver) deviceSecret(d *device) Secret {
	k := &d.keys.DeviceSecret
	if !k.given {
		return ""
	}
	if s := r.secret(k); s != "" {
		return s
	}
	return someSecret
}

// clientCertificate sets the device's client certificate, or its cloud's, and returns the device's own.
func (r *resolver) clientCertificate(d *device) *tls.Certificate {
	k := d.keys
	if !k.CertFile.given && !k.KeyFile.given {
		d.ClientCertificate = Certificate{d.cloud.TLS.CertFile, d.cloud.TLS.KeyFile}
		return nil
	}
	d.ClientCertificate = Certificate{k.CertFile.path(), k.KeyFile.path()}
	if u := d.cloud.URL; u != nil && u.Scheme == "ws" && !k.CertFile.bad && !k.KeyFile.bad {
		at := k.CertFile.place
		if !k.CertFile.given {
			at = k.KeyFile.place
		}
		r.fault(at, fmt.Sprintf("needs wss://, and the url of cloud %q is ws://", d.cloud.Name),
			"write wss:// in the url, or remove the certificate")
	}
	return r.keyPair(k.place, &k.CertFile, &k.KeyFile)
}

// identityFault reports what is wrong with an identity at the key it comes from.
func (r *resolver) identityFault(d *device, wrong *credentials.FieldError) {
	k, c := d.keys, d.cloud.keys
	at := k.sub(wrong.Field)
	own := map[string]*mark{
		"device_name": &k.DeviceName.mark, "device_secret": &k.DeviceSecret.mark, "client_id": &k.ClientID.mark,
		"password": &k.Password.mark, "key_file": &k.KeyFile.mark,
	}
	switch m := own[wrong.Field]; {
	case wrong.Field == "product_key":
		at = productPlace(&k.ProductKey, &c.ProductKey, c.sub(wrong.Field))
	case wrong.Field == "product_id":
		at = productPlace(&k.ProductID, &c.ProductID, c.sub(wrong.Field))
	case m != nil && m.bad:
		return
	case m != nil && m.given:
		at = m.place
	}
	remedy := wrong.Remedy
	switch {
	case remedy != "":
	case wrong.Field == "product_key" || wrong.Field == "product_id":
		remedy = "write it at the cloud, or at each device"
	case wrong.Field == "device_secret" && d.cloud.Provider == credentials.ProviderTencent:
		remedy = "copy the device's key from the cloud's console, or write cert_file and key_file"
	case wrong.Field == "device_secret":
		remedy = "copy it from the cloud's console"
	}
	r.fault(at, wrong.Reason, remedy)
}

// productPlace is where a product's key or id stands: at the device, at the cloud, or nowhere, which is the cloud's
// fault.
func productPlace(own, common *text, missing place) place {
	switch {
	case own.given:
		return own.place
	case common.given:
		return common.place
	}
	return missing
}

// clientIDLength checks the client id against what the cloud accepts.
func (r *resolver) clientIDLength(d *device) {
	k, most := d.keys, d.cloud.Limits.MaxClientID
	id := plainClientID(d.Identity)
	n := len([]rune(id))
	if most == 0 || n <= most || k.DeviceName.bad {
		return
	}
	at, whose := k.ClientID.place, ""
	if !k.ClientID.given {
		at, whose = k.sub("client_id"), "is not written, and the default, product_key.device_name, "
	}
	r.fault(at, fmt.Sprintf("%shas %d characters, the cloud takes at most %d", whose, n, most),
		"write a shorter one, for example the device's serial number")
}

// plainClientID is the client id in the cloud, without what a signature adds to it.
func plainClientID(id credentials.Identity) string {
	switch id := id.(type) {
	case credentials.Aliyun:
		return id.PlainClientID()
	case credentials.Tencent:
		return id.ProductID + id.DeviceName
	case credentials.TencentCertificate:
		return id.ProductID + id.DeviceName
	case credentials.Generic:
		return id.ClientID
	}
	return ""
}
