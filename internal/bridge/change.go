package bridge

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
	"reflect"
	"slices"

	"bridged/internal/config"
	"bridged/internal/credentials"
)

// A configuration is compared as it is resolved, secrets included.

// sameSession says whether a device needs no other cloud session than the one it has. Parts of the same cloud mean that
// nothing of it has changed, nor the files that it names.
func sameSession(a, b *config.Device, x, y parts) bool {
	return x.cloud == y.cloud && x.target.Certificate == y.target.Certificate && sameIdentity(a.Identity, b.Identity) &&
		a.Persistent == b.Persistent && slices.Equal(a.Subscribe, b.Subscribe) && slices.Equal(a.Topics, b.Topics)
}

func sameCloud(a, b *config.Cloud) bool { return reflect.DeepEqual(a, b) }

func sameIdentity(a, b credentials.Identity) bool {
	x, ok := a.(credentials.TencentCertificate)
	y, same := b.(credentials.TencentCertificate)
	if !ok || !same {
		return a == b
	}
	sameKey := samePublic(x, y)
	x.Key, y.Key = nil, nil
	return sameKey && x == y
}

func samePublic(a, b credentials.TencentCertificate) bool {
	if a.Key == nil || b.Key == nil {
		return a.Key == b.Key
	}
	switch p := a.Key.Public().(type) {
	case *rsa.PublicKey:
		return p.Equal(b.Key.Public())
	case *ecdsa.PublicKey:
		return p.Equal(b.Key.Public())
	case ed25519.PublicKey:
		return p.Equal(b.Key.Public())
	}
	return false
}

// holder is whose MQTT session a device's is, as the cloud sees it: a new secret or another way there does not change
// that.
func holder(d *config.Device) string {
	switch id := d.Identity.(type) {
	case credentials.Aliyun:
		return fmt.Sprintf("aliyun %s %s", id.ProductKey, id.DeviceName)
	case credentials.Tencent:
		return fmt.Sprintf("tencent %s %s", id.ProductID, id.DeviceName)
	case credentials.TencentCertificate:
		return fmt.Sprintf("tencent %s %s", id.ProductID, id.DeviceName)
	case credentials.Generic:
		return fmt.Sprintf("generic %s %s", d.Cloud.URL.Host, id.ClientID)
	case *guest:
		if d.Cloud.Vendor == credentials.ProviderGeneric {
			return fmt.Sprintf("generic %s %s", d.Cloud.URL.Host, id.who)
		}
		return fmt.Sprintf("%s %s %s", d.Cloud.Vendor, d.Cloud.Name, id.who)
	}
	return ""
}

// sameDevice says whether nothing of a device's configuration has changed.
func sameDevice(a, b *config.Device, x, y parts) bool {
	return sameSession(a, b, x, y) && reflect.DeepEqual(a.Login, b.Login) && a.Queue == b.Queue &&
		a.Always == b.Always && a.Linger == b.Linger
}

// needRestart lists the keys whose changes a running bridge does not follow.
func needRestart(old, next *config.Config) (keys []string) {
	for _, k := range []struct {
		name string
		same bool
	}{
		{"listen", slices.Equal(old.Listen, next.Listen)},
		{"state_dir", old.StateDir == next.StateDir},
		{"admin.listen", old.Admin.Listen == next.Admin.Listen},
		{"admin.token", old.Admin.Token == next.Admin.Token},
		{"admin.device_metrics", old.Admin.DeviceMetrics == next.Admin.DeviceMetrics},
		{"admin.pprof", old.Admin.PProf == next.Admin.PProf},
		{"log.format", old.Log.JSON == next.Log.JSON},
		{"limits.max_packet_size", old.Limits.MaxPacketSize == next.Limits.MaxPacketSize},
		{"limits.dials_at_once", old.Limits.DialsAtOnce == next.Limits.DialsAtOnce},
		{"limits.dials_per_second", old.Limits.DialsPerSecond == next.Limits.DialsPerSecond},
	} {
		if !k.same {
			keys = append(keys, k.name)
		}
	}
	return keys
}
