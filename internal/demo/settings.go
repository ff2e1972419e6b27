package demo

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"bridged/internal/cloudsim"
	"bridged/internal/config"
)

// settings are what a configuration for the simulated clouds has to say beyond the identities.
type settings struct {
	Command string // that wrote it
	Listen  string // host:port for devices
	Clouds  map[string]place
}

// place is where a simulated cloud is, and the file with the certificate to trust.
type place struct{ URL, CAFile string }

// yaml is the configuration as a person would write it.
var yaml = template.Must(template.New("config.yaml").Parse(
	`# Written by "bridged {{.Command}}": how three devices would be configured, with simulated clouds in place of real
# ones. All names and secrets are made up. In front of a real cloud only url would differ, and tls would not be needed.

listen:
  - url: tcp://{{.Listen}}

state_dir: state
shutdown_timeout: 5s
{{with .Clouds}}
clouds:
{{- with .aliyun}}
  aliyun:
    provider: aliyun                   # Alibaba Cloud IoT Platform
    url: {{.URL}}
    product_key: ` + productKey + `
    sign_method: hmacsha256{{with .CAFile}}
    tls: {ca_file: {{.}}}{{end}}
{{- end}}
{{- with .tencent}}
  tencent:
    provider: tencent                  # Tencent Cloud IoT Hub
    url: {{.URL}}
    product_id: ` + productID + `
    sign_method: hmacsha1{{with .CAFile}}
    tls: {ca_file: {{.}}}{{end}}
{{- end}}
{{- with .lab}}
  lab:
    provider: generic                  # any MQTT broker
    url: {{.URL}}{{with .CAFile}}
    tls: {ca_file: {{.}}}{{end}}
{{- end}}

devices:
{{- with .aliyun}}
  - name: ` + boiler + `                     # its firmware knows the cloud's topics
    cloud: aliyun
    login: {username: ` + boiler + `, password: boiler-login}
    device_secret: ` + boilerSecret + `
{{- end}}
{{- with .tencent}}
  - name: ` + pump + `                       # its firmware has short topics of its own
    cloud: tencent
    login: {username: ` + pump + `, password: pump-login}
    device_secret: ` + pumpSecret + `
    topics:
      - {local: telemetry, cloud: "${product_id}/${device_name}/event", direction: up}
      - {local: answer, cloud: "${product_id}/${device_name}/data", direction: up}
      - {local: command, cloud: "${product_id}/${device_name}/control", direction: down}
{{- end}}
{{- with .lab}}
  - name: ` + press + `
    cloud: lab
    login: {username: ` + press + `, password: press-login}
    username: ` + press + `
    password: ` + pressSecret + `
  - name: ` + guest + `                          # for mosquitto_pub
    cloud: lab
    login: {username: ` + guestLogin + `, password: ` + guestLogin + `}
    username: guest
    password: ` + guestSecret + `
  - name: ` + listener + `                      # for mosquitto_sub
    cloud: lab
    login: {username: ` + guestLogin + `, password: ` + guestLogin + `}
    username: guest
    password: ` + guestSecret + `
{{- end}}
{{- end}}
`))

// write writes the configuration into dir, readable by its owner only, and returns its path.
func (s settings) write(dir string) (string, error) {
	var b bytes.Buffer
	if err := yaml.Execute(&b, s); err != nil {
		return "", fmt.Errorf("write the configuration: %w", err)
	}
	file := filepath.Join(dir, "config.yaml")
	return file, writePrivate(file, b.Bytes())
}

// writePrivate writes a file for its owner only, also if it is there already and was open to others.
func writePrivate(file string, data []byte) error {
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	return os.Chmod(file, 0o600)
}

// load reads the configuration as any other.
func load(file string) (*config.Config, error) { return config.Load(file, config.Env{}) }

// locate writes what a configuration needs to know of a cloud: its CA certificate, if it is reached over wss, goes into
// dir.
func locate(c *cloudsim.Cloud, spec *cloudSpec, dir string) (place, error) {
	if !spec.secure {
		return place{URL: c.WSURL()}, nil
	}
	file := spec.name + "-ca.pem"
	if err := c.CA().WriteFile(filepath.Join(dir, file)); err != nil {
		return place{}, err
	}
	return place{URL: c.WSSURL(), CAFile: file}, nil
}
