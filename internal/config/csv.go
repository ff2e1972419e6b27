package config

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// column is a column of a CSV device file.
type column struct {
	key string // as in YAML
	// headers are the names in the first line, in lower case, without spaces, underscores and hyphens.
	headers []string
	leaf    func(*deviceKeys) leaf
}

// columns are the known columns. The vendors' consoles export DeviceName, DeviceSecret and ProductKey (Alibaba), or
// DeviceName, Psk and ProductId (Tencent), among others.
var columns = []column{
	{"name", []string{"name"}, func(k *deviceKeys) leaf { return &k.Name }},
	{"cloud", []string{"cloud"}, func(k *deviceKeys) leaf { return &k.Cloud }},
	{"device_name", []string{"devicename"}, func(k *deviceKeys) leaf { return &k.DeviceName }},
	{"device_secret", []string{"devicesecret", "psk", "devicepsk"}, func(k *deviceKeys) leaf { return &k.DeviceSecret }},
	{"product_key", []string{"productkey"}, func(k *deviceKeys) leaf { return &k.ProductKey }},
	{"product_id", []string{"productid"}, func(k *deviceKeys) leaf { return &k.ProductID }},
	{"client_id", []string{"clientid"}, func(k *deviceKeys) leaf { return &k.ClientID }},
	{"username", []string{"username"}, func(k *deviceKeys) leaf { return &k.Username }},
	{"password", []string{"password"}, func(k *deviceKeys) leaf { return &k.Password }},
	{"login.client_id", []string{"loginclientid"}, func(k *deviceKeys) leaf { return &k.Login.ClientID }},
	{"login.username", []string{"loginusername"}, func(k *deviceKeys) leaf { return &k.Login.Username }},
	{"login.password", []string{"loginpassword"}, func(k *deviceKeys) leaf { return &k.Login.Password }},
	{"login.password_hash", []string{"loginpasswordhash"}, func(k *deviceKeys) leaf { return &k.Login.PasswordHash }},
	{"login.allow_from", []string{"allowfrom", "loginallowfrom"}, nil}, // a list
}

// columnOf finds the column of a header.
func columnOf(header string) *column {
	plain := strings.ToLower(strings.NewReplacer(" ", "", "_", "", "-", "").Replace(header))
	for i := range columns {
		for _, h := range columns[i].headers {
			if h == plain {
				return &columns[i]
			}
		}
	}
	return nil
}

// csvReader reads a CSV file with the positions of its fields.
type csvReader struct {
	*decoder
	csv    *csv.Reader
	header []*column // nil for a column that is not known
	titles []string
}

// csv decodes a CSV device file.
func (d *decoder) csv(data []byte) (devices []*deviceKeys) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !utf8.Valid(data) {
		d.fault(place{d.file, 1, 1, ""}, "is not UTF-8", "save the file as CSV UTF-8")
		return nil
	}
	c := &csvReader{decoder: d, csv: csv.NewReader(bytes.NewReader(data))}
	c.csv.FieldsPerRecord = -1 // checked here, with a better text
	c.csv.TrimLeadingSpace = true
	if line, _, _ := bytes.Cut(data, []byte("\n")); !bytes.ContainsRune(line, ',') && bytes.ContainsRune(line, ';') {
		c.csv.Comma = ';' // what spreadsheets write where the comma is the decimal sign
	}
	if !c.readHeader() {
		return nil
	}
	for {
		record, err := c.csv.Read()
		if errors.Is(err, io.EOF) {
			return devices
		}
		if err != nil {
			c.csvFault(err)
			return devices // what follows would only be faults of this one
		}
		if k := c.device(record); k != nil {
			devices = append(devices, k)
		}
	}
}

// at is the place of a field of the last record.
func (c *csvReader) at(field int) place {
	line, col := c.csv.FieldPos(field)
	p := place{c.file, line, col, ""}
	if field < len(c.titles) {
		p.path = c.titles[field]
	}
	return p
}

// readHeader reads the line with the columns' names. ok is false if the rest cannot be understood.
func (c *csvReader) readHeader() (ok bool) {
	record, err := c.csv.Read()
	if errors.Is(err, io.EOF) {
		c.warn(place{c.file, 1, 1, ""}, "is empty", "")
		return false
	}
	if err != nil {
		c.csvFault(err)
		return false
	}
	first := make(map[*column]int)
	var unknown []int
	for i, title := range record {
		col := columnOf(title)
		c.header = append(c.header, col)
		c.titles = append(c.titles, strings.TrimSpace(title))
		if col == nil {
			unknown = append(unknown, i)
			continue
		}
		if j, twice := first[col]; twice {
			c.fault(c.at(i), fmt.Sprintf("column %s means the same as column %s", quote(title), quote(record[j])),
				"remove one of them")
			continue
		}
		first[col] = i
	}
	_, hasName := first[columnOf("name")]
	_, hasDeviceName := first[columnOf("devicename")]
	if !hasName && !hasDeviceName {
		// The line may be a device with its secret: it is not shown.
		c.fault(place{c.file, 1, 1, ""}, "the first line names no column name or DeviceName",
			"write the columns' names there, for example: DeviceName,DeviceSecret,ProductKey")
		return false
	}
	for _, i := range unknown {
		if c.titles[i] != "" {
			c.warn(c.at(i), "the column is not known, it is ignored", "")
		}
	}
	return true
}

// device turns a line into a device, nil if it has none.
func (c *csvReader) device(record []string) *deviceKeys {
	k := new(deviceKeys)
	line, _ := c.csv.FieldPos(0)
	k.mark = mark{place: place{c.file, line, 1, ""}, given: true}
	if n := len(c.header); len(record) != n {
		c.fault(k.place, fmt.Sprintf("has %d fields, and the first line %d", len(record), n),
			"put fields that contain commas in quotes")
		return nil
	}
	k.Login.mark.place, k.Login.AllowFrom.place = k.place.sub("login"), k.place.sub("login.allow_from")
	empty := true
	for i, field := range record {
		field = strings.TrimSpace(field)
		if field == "" || c.header[i] == nil {
			continue
		}
		empty = false
		c.field(k, c.header[i], c.at(i), field)
	}
	if empty {
		return nil
	}
	if !k.Name.given {
		k.Name = k.DeviceName
	}
	return k
}

// field sets one key of a device.
func (c *csvReader) field(k *deviceKeys, col *column, at place, value string) {
	if col.leaf == nil {
		words := strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" ,;", r) })
		for _, w := range words {
			k.Login.AllowFrom.items = append(k.Login.AllowFrom.items, text{mark{place: at, given: true}, w})
		}
		k.Login.AllowFrom.mark = mark{place: at, given: true}
		return
	}
	l := col.leaf(k)
	*l.state() = mark{place: at, given: true}
	c.text(l, value, "")
	if s, ok := l.(*secret); ok && s.value != "" {
		c.inlineSecrets = true
	}
}

// csvFault reports what is wrong with the file's form.
func (c *csvReader) csvFault(err error) {
	at, what := place{c.file, 1, 1, ""}, err.Error()
	var p *csv.ParseError
	if errors.As(err, &p) {
		at.line, at.col, what = max(p.Line, 1), max(p.Column, 1), p.Err.Error()
	}
	c.fault(at, "this is not CSV: "+what, `put fields with commas or quotes in quotes, and double the quotes in them`)
}
