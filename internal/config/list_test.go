package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func readList(t *testing.T, mode os.FileMode, data string) (string, []Entry, []Problem, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fleet.csv")
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	entries, warnings, err := ReadList(path)
	return path, entries, warnings, err
}

func TestReadList(t *testing.T) {
	_, got, warnings, err := readList(t, 0o600,
		"\ufeffDeviceName,DeviceSecret,ProductKey,name\nd1,s1,pk,\nd2,s2,pk,hall-2\n")
	want := []Entry{
		{Line: 2, Name: "d1", DeviceName: "d1", DeviceSecret: "s1", ProductKey: "pk"},
		{Line: 3, Name: "hall-2", DeviceName: "d2", DeviceSecret: "s2", ProductKey: "pk"},
	}
	if err != nil || len(warnings) > 0 || !cmp.Equal(got, want) {
		t.Errorf("%+v, %v, %v", got, warnings, err)
	}
	_, got, _, err = readList(t, 0o600,
		"name;cloud;client_id;username;password;login_client_id;login_username;login_password;"+
			"login_password_hash;allow_from\na;lab;ca;ua;pa;lc;lu;lp;lh;10.0.0.1 10.0.0.2\n")
	want = []Entry{{
		Line: 2, Name: "a", Cloud: "lab", ClientID: "ca", Username: "ua", Password: "pa", LoginClientID: "lc",
		LoginUsername: "lu", LoginPassword: "lp", LoginPasswordHash: "lh", AllowFrom: []string{"10.0.0.1", "10.0.0.2"},
	}}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	_, got, warnings, err = readList(t, 0o644, "DeviceName,Psk,ProductId,State\nd1,c2VjcmV0,PID,on\n")
	if err != nil || len(got) != 1 || got[0].ProductID != "PID" || len(warnings) != 2 {
		t.Errorf("%+v, %v, %v", got, warnings, err)
	}
}

func TestReadListFaults(t *testing.T) {
	for _, tc := range []struct{ data, want string }{
		{"", "1:1: lists no devices"},
		{"DeviceName\n", "1:1: lists no devices"},
		{"d1,s1\n", "1:1: the first line names no column name or DeviceName"},
		{"DeviceName,DeviceSecret,ProductKey\nd1,,pk\n", "2:1: DeviceSecret: is empty"},
		{"DeviceName,DeviceSecret,ProductKey\n,s,pk\n", "2:1: DeviceName: is empty"},
		{"DeviceName,DeviceSecret,ProductKey\nd1,s,pk,x\n", "2:1: has 4 fields, and the first line 3"},
		{"Psk,DeviceName\ns,d1\nt,d1\n", `3:3: DeviceName: "d1" is in line 2 already`},
		{"DeviceName\na/b\n", `2:1: DeviceName: "a/b" has spaces, slashes or unprintable characters`},
		{"DeviceName\n..\n", `2:1: DeviceName: ".." cannot be the name of a file`},
		{"DeviceName,Psk\nd1,\"hunter\n", "this is not CSV"},
	} {
		path, _, _, err := readList(t, 0o600, tc.data)
		var faults Faults
		if !errors.As(err, &faults) || len(faults) != 1 {
			t.Errorf("%q: %v", tc.data, err)
			continue
		}
		got := strings.TrimPrefix(faults[0].String(), path+":")
		if !strings.Contains(got, tc.want) || strings.Contains(got, "hunter") {
			t.Errorf("%q: %q, want %q", tc.data, got, tc.want)
		}
	}
	if _, _, err := ReadList(filepath.Join(t.TempDir(), "none.csv")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestWhereSecretsAre(t *testing.T) {
	dir := writeFiles(t, map[string]string{"secret": "s", "login": "p", "proxy": "q", "config.yaml": `
clouds:
  c:
    provider: aliyun
    url: wss://c
    product_key: k
    proxy: http://u@p:1
    proxy_password: {file: proxy}
    headers: {X-Key: {env: KEY}, X-Other: inline}
devices:
  - name: a
    device_secret: {file: secret}
    login: {password: {credential: login}}
    doctor_topic: /${product_key}/${device_name}/user/doctor
`})
	c, err := Load(filepath.Join(dir, "config.yaml"), envOf(map[string]string{"KEY": "v", "CREDENTIALS_DIRECTORY": dir}))
	if err != nil {
		t.Fatal(err)
	}
	want := []SecretSource{
		{Key: "device_secret", File: filepath.Join(dir, "secret")},
		{Key: "login.password", Credential: "login"},
		{Key: "clouds.c.proxy_password", File: filepath.Join(dir, "proxy")},
		{Key: "clouds.c.headers.X-Key", Env: "KEY"},
	}
	if got := c.Devices[0].Secrets; !cmp.Equal(got, want) {
		t.Error(cmp.Diff(got, want))
	}
	if got := c.Devices[0].DoctorTopic; got != "/k/a/user/doctor" {
		t.Error(got)
	}
}
