package config

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// readDeviceFiles reads the devices of all device files, each file once, in the order of the patterns and, within one,
// of the names.
func (r *resolver) readDeviceFiles() (devices []*deviceKeys) {
	done := make(map[string]bool)
	for i := range r.keys.DeviceFiles.items {
		t := &r.keys.DeviceFiles.items[i]
		if t.bad {
			continue
		}
		for _, path := range r.match(t) {
			if !done[path] {
				done[path] = true
				devices = append(devices, r.readDeviceFile(t, path)...)
			}
		}
	}
	return devices
}

// match lists the files that an item of device_files means.
func (r *resolver) match(t *text) []string {
	if t.value == "" {
		r.fault(t.place, "is empty", "write for example devices.d/*.yaml")
		return nil
	}
	if !strings.ContainsAny(t.value, `*?[`) {
		return []string{t.path()}
	}
	paths, err := r.disk.glob(t.path())
	if err != nil {
		r.fault(t.place, quote(t.value)+" is no valid pattern", "write for example devices.d/*.yaml")
	} else if len(paths) == 0 {
		r.warn(t.place, "no file matches "+t.path(), "correct the pattern, unless files are still to come")
	}
	slices.Sort(paths)
	return paths
}

func (r *resolver) readDeviceFile(t *text, path string) []*deviceKeys {
	ext := strings.ToLower(filepath.Ext(path))
	if ext != ".yaml" && ext != ".yml" && ext != ".csv" {
		r.fault(t.place, path+" is neither a YAML nor a CSV file", "name it .yaml, .yml or .csv")
		return nil
	}
	data, mode, err := r.disk.read(path, maxConfigFile)
	if err != nil {
		f := unreadable(path, err)
		r.fault(t.place, f.what, f.remedy)
		return nil
	}
	r.files = append(r.files, path)
	d := &decoder{report: r.report, file: path}
	var devices []*deviceKeys
	if ext == ".csv" {
		devices = d.csv(data)
	} else {
		devices = d.deviceYAML(data)
	}
	if f := private(path, mode); f != nil && d.inlineSecrets {
		r.fault(place{path, 1, 1, ""}, f.what, f.remedy)
	}
	return devices
}

// deviceFileKeys is a YAML device file that is a mapping.
type deviceFileKeys struct {
	mark
	Devices list[deviceKeys] `yaml:"devices"`
}

// deviceYAML decodes a YAML device file: a list of devices, or a mapping with the key devices.
func (d *decoder) deviceYAML(data []byte) []*deviceKeys {
	n := d.document(data)
	if n == nil || isNull(n) {
		return nil
	}
	var keys deviceFileKeys
	at := place{d.file, n.Line, n.Column, ""}
	switch n.Kind {
	case yaml.SequenceNode:
		d.value(reflect.ValueOf(&keys.Devices).Elem(), n, at, "")
	case yaml.MappingNode:
		d.value(reflect.ValueOf(&keys).Elem(), n, at, "")
	default:
		d.fault(at, "is no list of devices", "write one device after each dash: - name: boiler-1")
	}
	devices := make([]*deviceKeys, len(keys.Devices.items))
	for i := range keys.Devices.items {
		devices[i] = &keys.Devices.items[i]
	}
	return devices
}
