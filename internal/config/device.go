package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// device is a Device together with its keys, merged with the defaults. The Device is on its own: it lives as long as
// the configuration, while its keys, which are much larger, go after loading.
type device struct {
	*Device
	keys  *deviceKeys
	cloud *cloud // nil if it is not known
}

// resolveDevices builds the devices of the main file and of the device files, and compares them with each other.
func (r *resolver) resolveDevices() {
	def := &r.keys.Defaults
	if def.Login.ClientID.given {
		r.fault(def.Login.ClientID.place, "is one device's own, it cannot be a default", "write it under the device")
	}
	if def.Cloud.given && !def.Cloud.bad && r.clouds[def.Cloud.value] == nil {
		r.unknownCloud(&def.Cloud)
		def.Cloud.bad = true
	}
	// What the defaults leave open comes from the main queue section. Its values have their defaults already.
	merge(reflect.ValueOf(&def.Queue).Elem(), reflect.ValueOf(&r.keys.Queue).Elem())
	r.queue(&r.keys.Queue)
	all := make([]*deviceKeys, 0, len(r.keys.Devices.items))
	for i := range r.keys.Devices.items {
		all = append(all, &r.keys.Devices.items[i])
	}
	all = append(all, r.readDeviceFiles()...)
	devices := make([]*device, 0, len(all))
	for _, k := range all {
		if k.bad {
			continue
		}
		d := r.device(k)
		devices = append(devices, d)
		if d.passesThrough() {
			r.cfg.PassThrough = append(r.cfg.PassThrough, &PassThrough{template: *d.Device, MaxDevices: k.MaxDevices.value})
		} else {
			r.cfg.Devices = append(r.cfg.Devices, d.Device)
		}
	}
	r.compare(devices)
	r.openLogins(devices)
	if len(all) == 0 {
		r.warn(r.keys.place, "there are no devices", "add some under devices, or name their files under device_files")
	}
	if n := len(all); n > r.cfg.Limits.MaxConnections && !r.keys.Limits.MaxConnections.bad {
		r.warn(r.keys.Limits.MaxConnections.place, fmt.Sprintf("allows %d connections, but there are %d devices",
			r.cfg.Limits.MaxConnections, n), "make it larger")
	}
}

// device builds one device.
func (r *resolver) device(k *deviceKeys) *device {
	d := &device{Device: new(Device), keys: k}
	r.chooseCloud(d)
	if d.passesThrough() {
		r.passThroughKeys(d)
	}
	mergeShared(&k.sharedKeys, &r.keys.Defaults)
	applyDefaults(reflect.ValueOf(k).Elem())
	r.deviceName(d)
	d.Always = k.Upstream.value == "always"
	d.Linger = k.Linger.value
	d.Persistent = k.Session.value == "persistent"
	d.Queue = r.queue(&k.Queue)
	if d.cloud != nil {
		d.Cloud = d.cloud.Cloud
	}
	r.login(d)
	if d.cloud == nil {
		return d
	}
	r.foreignKeys(reflect.ValueOf(k).Elem(), d.cloud)
	if d.passesThrough() {
		r.passThrough(d)
		return d
	}
	r.identity(d)
	d.Secrets = d.secretSources()
	r.subscriptions(d)
	r.doctorTopic(d)
	r.topics(d)
	return d
}

// deviceName checks the name, which device_name has as its default.
func (r *resolver) deviceName(d *device) {
	k := &d.keys.Name
	switch {
	case k.bad:
	case !k.given:
		r.fault(d.keys.sub("name"), "is missing", "write a unique name, for example boiler-1")
		k.bad = true
	default:
		if f := badName(k.value); f != nil {
			r.fault(k.place, f.what, f.remedy)
			k.bad = true
		}
	}
	if k.bad {
		k.value = someName
	}
	d.Name = k.value
	if d.keys.DeviceName.bad {
		d.keys.DeviceName.value = someName
	}
	if !d.keys.DeviceName.given {
		d.keys.DeviceName.value = k.value
		d.keys.DeviceName.place, d.keys.DeviceName.bad = k.place, k.bad
	}
}

// chooseCloud finds a device's cloud: the one it names; the one whose product it names; the default; the only one.
func (r *resolver) chooseCloud(d *device) {
	k, def := d.keys, &r.keys.Defaults.Cloud
	switch byProduct := r.cloudsOfProduct(k); {
	case k.Cloud.given:
		if k.Cloud.bad {
			return
		}
		if d.cloud = r.clouds[k.Cloud.value]; d.cloud == nil {
			r.unknownCloud(&k.Cloud)
		}
	case len(byProduct) == 1:
		d.cloud = byProduct[0]
	case def.given:
		if !def.bad {
			d.cloud = r.clouds[def.value]
		}
	case len(r.clouds) == 1:
		for _, d.cloud = range r.clouds {
		}
	case len(r.keys.Clouds.names) == 0:
		if !r.keys.Clouds.bad {
			r.fault(r.keys.sub("clouds"), "is missing, and there are devices", "write at least one cloud")
		}
	default:
		r.fault(k.sub("cloud"), "is missing", "write one of "+strings.Join(r.keys.Clouds.names, ", "))
	}
}

// cloudsOfProduct lists the clouds whose product is the device's.
func (r *resolver) cloudsOfProduct(k *deviceKeys) (found []*cloud) {
	for _, name := range r.keys.Clouds.names {
		c := r.clouds[name]
		if k.ProductKey.value != "" && k.ProductKey.value == c.keys.ProductKey.value ||
			k.ProductID.value != "" && k.ProductID.value == c.keys.ProductID.value {
			found = append(found, c)
		}
	}
	return found
}

func (r *resolver) unknownCloud(t *text) {
	names := slices.Clone(r.keys.Clouds.names)
	if len(names) == 0 {
		r.fault(t.place, "there is no cloud "+quote(t.value), "write it under clouds")
		return
	}
	r.fault(t.place, "there is no cloud "+quote(t.value), suggest(t.value, names, "write one of "))
}
