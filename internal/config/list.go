package config

import (
	"fmt"
	"slices"
	"strings"
)

// Entry is a device as far as a list of a vendor's console tells it. What the list does not tell is empty.
type Entry struct {
	Line                             int
	Name, Cloud                      string
	DeviceName                       string
	ProductKey, ProductID            string
	ClientID, Username               string
	DeviceSecret, Password           Secret
	LoginClientID, LoginUsername     string
	LoginPassword, LoginPasswordHash Secret
	AllowFrom                        []string
}

// ReadList reads a CSV file with a header line, as the vendors' consoles export it. Whether a cloud takes the devices
// is not looked at. If something is wrong with the content the error is a Faults that lists all of it.
func ReadList(path string) (entries []Entry, warnings []Problem, err error) {
	data, mode, err := osDisk{}.read(path, maxConfigFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, cause(err))
	}
	d := &decoder{report: &report{files: []string{path}}, file: path}
	entries = d.list(data)
	if f := private(path, mode); f != nil && d.inlineSecrets {
		d.warn(place{path, 1, 1, ""}, f.what, f.remedy)
	}
	d.sort(d.faults)
	d.sort(d.warnings)
	if len(d.faults) > 0 {
		return nil, nil, Faults(d.faults)
	}
	return entries, d.warnings, nil
}

// list decodes a list and checks what can be checked without a cloud.
func (d *decoder) list(data []byte) (entries []Entry) {
	lines := make(map[string]int)
	for _, k := range d.csv(data) {
		if f := badEntry(k); f != nil {
			d.fault(f.at, f.what, f.remedy)
			continue
		}
		if line, taken := lines[k.Name.value]; taken {
			d.fault(k.Name.place, fmt.Sprintf("%s is in line %d already", quote(k.Name.value), line), "remove one of the lines")
			continue
		}
		lines[k.Name.value] = k.line
		entries = append(entries, entryOf(k))
	}
	if len(entries) == 0 && len(d.faults) == 0 {
		d.fault(place{d.file, 1, 1, ""}, "lists no devices", "write one a line below the columns' names")
	}
	return entries
}

type entryFlaw struct {
	at place
	flaw
}

func badEntry(k *deviceKeys) *entryFlaw {
	if !k.Name.given {
		return &entryFlaw{k.sub("DeviceName"), flaw{"is empty", "write the device's name, or remove the line"}}
	}
	if f := badName(k.Name.value); f != nil {
		return &entryFlaw{k.Name.place, *f}
	}
	if strings.HasPrefix(k.Name.value, ".") {
		return &entryFlaw{k.Name.place, flaw{quote(k.Name.value) + " cannot be the name of a file",
			"write a name without a dot at its beginning, and the cloud's name for the device in the column device_name"}}
	}
	if (k.ProductKey.given || k.ProductID.given) && !k.DeviceSecret.given {
		return &entryFlaw{k.sub("DeviceSecret"), flaw{"is empty", "copy it from the cloud's console"}}
	}
	return nil
}

func entryOf(k *deviceKeys) Entry {
	e := Entry{
		Line: k.line, Name: k.Name.value, Cloud: k.Cloud.value, DeviceName: k.DeviceName.value,
		ProductKey: k.ProductKey.value, ProductID: k.ProductID.value, ClientID: k.ClientID.value, Username: k.Username.value,
		DeviceSecret: k.DeviceSecret.value, Password: k.Password.value,
		LoginClientID: k.Login.ClientID.value, LoginUsername: k.Login.Username.value,
		LoginPassword: k.Login.Password.value, LoginPasswordHash: k.Login.PasswordHash.value,
	}
	for _, t := range k.Login.AllowFrom.items {
		e.AllowFrom = append(e.AllowFrom, t.value)
	}
	e.AllowFrom = slices.Compact(e.AllowFrom)
	return e
}
