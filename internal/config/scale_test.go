package config

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// fleet is a configuration with a CSV file of n devices, each with an address of its own.
func fleet(n int) map[string]string {
	var csv strings.Builder
	csv.WriteString("DeviceName,DeviceSecret,LoginPassword,AllowFrom\n")
	for i := range n {
		fmt.Fprintf(&csv, "d%d,s%d,p%d,10.%d.%d.%d\n", i, i, i, i>>16, i>>8&255, i&255)
	}
	return map[string]string{"fleet.csv": csv.String(), "config.yaml": `
clouds: {c: {provider: aliyun, url: "wss://c", product_key: k}}
defaults: {topics: [{local: data, cloud: "/${product_key}/${device_name}/user/update", direction: up}]}
device_files: [fleet.csv]
`}
}

func TestFleet(t *testing.T) {
	dir := writeFiles(t, fleet(2000))
	c, err := Load(filepath.Join(dir, "config.yaml"), envOf(nil))
	if err != nil || len(c.Warnings) > 0 {
		t.Fatal(err, c.Warnings)
	}
	if n := len(c.Devices); n != 2000 {
		t.Errorf("%d devices", n)
	}
	d := c.Devices[1999]
	if d.Topics[0].Cloud != "/k/d1999/user/update" || d.Login.AllowFrom[0].String() != "10.0.7.207/32" {
		t.Errorf("%+v", d)
	}
}

// Whatever order the file system has, the files of a pattern come by their names.
func TestOrderOfFiles(t *testing.T) {
	files := memory{"/config.yaml": "clouds: {c: {provider: generic, url: 'ws://c'}}\n" +
		"device_files: [/d/*.csv, /d/05.csv]\n"}
	for i := range 20 {
		files[fmt.Sprintf("/d/%02d.csv", i)] = fmt.Sprintf("name,login_password\nd%02d,p\n", i)
	}
	env := fuzzEnv
	env.disk = files
	c, err := Load("/config.yaml", env)
	if err != nil || len(c.Devices) != 20 {
		t.Fatal(err)
	}
	for i, d := range c.Devices {
		if want := fmt.Sprintf("d%02d", i); d.Name != want {
			t.Errorf("device %d is %s", i, d.Name)
		}
	}
}

func BenchmarkLoadFleet(b *testing.B) {
	files := memory{}
	for name, data := range fleet(10000) {
		files["/"+name] = data
	}
	env := fuzzEnv
	env.disk = files
	for b.Loop() {
		if _, err := Load("/config.yaml", env); err != nil {
			b.Fatal(err)
		}
	}
}

// Bounds that just fit give no warning.
func TestBoundsThatFit(t *testing.T) {
	c := load(t, "limits: {max_connections: 3, memory: 272KiB}\nqueue: {max_bytes: 272KiB}\n"+base, nil)
	if len(c.Warnings) > 0 {
		t.Errorf("warnings: %v", c.Warnings)
	}
}
