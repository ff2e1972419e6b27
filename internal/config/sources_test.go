package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bridged/internal/credentials"
)

func TestSecretSources(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"file": "from file\n", "crlf": "from file\r\n", "two": " two \n\n", "creds/name": "from systemd\n",
		"sub/devices.yaml": "[{name: beside, login: {anonymous: true, client_id: b}, device_secret: {file: near}}]",
		"sub/near":         "near the file",
	})
	// systemd's files may look as if the group could read them.
	if err := os.Chmod(filepath.Join(dir, "creds/name"), 0o440); err != nil {
		t.Fatal(err)
	}
	env := envOf(map[string]string{"NAME": "from env", "CREDENTIALS_DIRECTORY": filepath.Join(dir, "creds")})
	for _, test := range []struct{ ref, want string }{
		{"plain", "plain"},
		{"0123", "0123"},
		{"1e3", "1e3"},
		{"true", "true"},
		{`"  spaces  "`, "  spaces  "},
		{"{file: file}", "from file"},
		{"{file: " + dir + "/file}", "from file"},
		{"{file: crlf}", "from file"},
		{"{file: two}", " two \n"},
		{"{env: NAME}", "from env"},
		{"{credential: name}", "from systemd"},
	} {
		path := filepath.Join(dir, "config.yaml")
		writeFile(t, path, `
clouds: {c: {provider: aliyun, url: "wss://c", product_key: k}}
device_files: [sub/devices.yaml]
devices: [{name: d, login: {anonymous: true}, device_secret: `+test.ref+`}]
`)
		c, err := Load(path, env)
		if err != nil {
			t.Errorf("%s: %v", test.ref, err)
			continue
		}
		if got := c.Device("d").Identity.(credentials.Aliyun).Secret.Reveal(); got != test.want {
			t.Errorf("%s: %q, want %q", test.ref, got, test.want)
		}
		if got := c.Device("beside").Identity.(credentials.Aliyun).Secret.Reveal(); got != "near the file" {
			t.Errorf("a path in a device file starts elsewhere: %q", got)
		}
	}
}

func TestProcessEnvironment(t *testing.T) {
	t.Setenv("BRIDGED_TEST_SECRET", "x")
	dir := writeFiles(t, map[string]string{"config.yaml": `
clouds: {c: {provider: generic, url: "ws://c"}}
devices: [{name: d, login: {username: u, password: {env: BRIDGED_TEST_SECRET}}}]
`})
	c, err := Load(filepath.Join(dir, "config.yaml"), Env{})
	if err != nil || c.Device("d").Login.Password.Reveal() != "x" {
		t.Errorf("%v", err)
	}
}

func TestUnreadableConfiguration(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.yaml")
	_, err := Load(missing, Env{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing: %v", err)
	}
	if _, err := Load(t.TempDir(), Env{}); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("directory: %v", err)
	}
}

func TestFileTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	writeFile(t, path, "12345")
	if data, _, err := (osDisk{}).read(path, 5); err != nil || string(data) != "12345" {
		t.Errorf("%q, %v", data, err)
	}
	if _, _, err := (osDisk{}).read(path, 4); err == nil {
		t.Error("4 bytes take 5")
	}
}

func TestVendorsCSV(t *testing.T) {
	const clouds = `
clouds:
  a: {provider: aliyun, url: "wss://a", product_key: ka}
  t: {provider: tencent, url: "wss://t", product_id: it}
device_files: ["fleet*.csv", "fleet.csv"]
defaults: {login: {username: u, password: p}}
`
	for _, test := range []struct{ name, csv, want string }{
		{"alibaba", "DeviceName,DeviceSecret,ProductKey\nd1,s1,ka\nd2,s2,ka\n", "d1 a ka d1 s1; d2 a ka d2 s2"},
		{"tencent", "ProductId,DeviceName,Psk\nit,d1,AAAA\n", "d1 t it d1 AAAA"},
		{"byte order mark", "\ufeffDeviceName,DeviceSecret,ProductKey\nd1,s1,ka\n", "d1 a ka d1 s1"},
		{"CRLF", "DeviceName,DeviceSecret,ProductKey\r\nd1,s1,ka\r\n\r\n", "d1 a ka d1 s1"},
		{"quoted", "\"DeviceName\",\"DeviceSecret\",\"ProductKey\"\n\"d1\",\"s,\"\"1\",\"ka\"\n", `d1 a ka d1 s,"1`},
		{"semicolons", "DeviceName;DeviceSecret;ProductKey\nd1;s1;ka\n", "d1 a ka d1 s1"},
		{"our names", "name,cloud,device_name,device_secret,product_key\nn,a,d1,s1,other\n", "n a other d1 s1"},
		{"spaces", "Device Name , device secret, PRODUCT KEY\n d1 , s1 , ka \n", "d1 a ka d1 s1"},
		{"empty fields and lines", "DeviceName,DeviceSecret,ProductKey,Cloud\nd1,s1,,a\n,,,\n\nd2,s2,ka,\n",
			"d1 a ka d1 s1; d2 a ka d2 s2"},
		{"no final line end", "DeviceName,DeviceSecret,ProductKey\nd1,s1,ka", "d1 a ka d1 s1"},
		{"both clouds", "name,product_key,product_id,device_secret\nx,ka,,s\ny,,it,AAAA\n", "x a ka x s; y t it y AAAA"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := writeFiles(t, map[string]string{"config.yaml": clouds, "fleet.csv": test.csv})
			c, err := Load(filepath.Join(dir, "config.yaml"), envOf(nil))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range c.Devices {
				switch id := d.Identity.(type) {
				case credentials.Aliyun:
					got = append(got, fmt.Sprintf("%s %s %s %s %s", d.Name, d.Cloud.Name, id.ProductKey, id.DeviceName,
						id.Secret.Reveal()))
				case credentials.Tencent:
					got = append(got, fmt.Sprintf("%s %s %s %s %s", d.Name, d.Cloud.Name, id.ProductID, id.DeviceName,
						id.Secret.Reveal()))
				}
			}
			if s := strings.Join(got, "; "); s != test.want {
				t.Errorf("%s\nwant\n%s", s, test.want)
			}
			if len(c.Warnings) > 0 {
				t.Errorf("warnings: %v", c.Warnings)
			}
		})
	}
}

func TestCSVLogins(t *testing.T) {
	const hash = "$2a$04$0PQU4ltaoBHYgMVbNq4bD.1VlYBk/kwqcRwVY7CzUmB2GNeNfE5Bm"
	dir := writeFiles(t, map[string]string{
		"config.yaml": "clouds: {c: {provider: generic, url: 'ws://c'}}\ndevice_files: [fleet.csv]\n",
		"fleet.csv": "name,client_id,username,password,login_client_id,login_username,login_password," +
			"login_password_hash,allow_from\n" +
			"a,ca,ua,pa,lca,lua,lpa,,\"10.0.0.1, 10.1.0.0/16;fe80::1\"\n" +
			"b,,,,,lub,," + hash + ",\n",
	})
	c, err := Load(filepath.Join(dir, "config.yaml"), envOf(nil))
	if err != nil {
		t.Fatal(err)
	}
	a, b := c.Device("a"), c.Device("b")
	if want := (credentials.Generic{ClientID: "ca", Username: "ua", Password: "pa"}); a.Identity != want {
		t.Errorf("%+v", a.Identity)
	}
	got := fmt.Sprint(a.Login.ClientID, " ", a.Login.Username, " ", a.Login.Password.Reveal(), " ", a.Login.AllowFrom)
	if want := "lca lua lpa [10.0.0.1/32 10.1.0.0/16 fe80::1/128]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if l := b.Login; l.ClientID != "b" || l.Username != "lub" || l.PasswordHash.Reveal() != hash {
		t.Errorf("%+v", l)
	}
}

// Device files hold no secrets of their own here: they may be open.
func TestOpenDeviceFilesWithoutSecrets(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"config.yaml": "clouds: {c: {provider: generic, url: 'ws://c'}}\ndevice_files: ['*.csv', d/a.yml]\n",
		"fleet.csv":   "name\na\n",
		"d/a.yml":     "devices:\n  - {name: b, login: {password: {env: X}}}\n",
	})
	for _, name := range []string{"fleet.csv", "d/a.yml"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Load(filepath.Join(dir, "config.yaml"), envOf(map[string]string{"X": "x"}))
	if err != nil || len(c.Devices) != 2 {
		t.Errorf("%v", err)
	}
}

// Nothing of a configuration shows a secret, however it is printed.
func TestConfigDoesNotShowSecrets(t *testing.T) {
	c, err := Load("../../config.example.yaml", envOf(exampleEnv))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range c.Devices {
		for _, format := range []string{"%v", "%+v", "%#v"} {
			text := fmt.Sprintf(format, *d)
			for _, secret := range exampleEnv {
				if strings.Contains(text, secret) {
					t.Errorf("%s shows %s: %s", format, secret, text)
				}
			}
		}
	}
}
