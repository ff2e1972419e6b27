package enroll

import (
	"bytes"
	"fmt"
	"path/filepath"

	"gopkg.in/yaml.v3"

	"bridged/internal/config"
)

// Directories below the one that is written to, as config.example.yaml names them.
const (
	Devices = "devices.d"
	Secrets = "secrets"
)

// File is one to be written.
type File struct {
	// Path is relative to the directory that is written to.
	Path   string
	Secret bool
	data   config.Secret
}

// Plan is what a list becomes.
type Plan struct {
	Devices []Device
	// files are those of the secrets first.
	secrets, yaml []File
}

// Device is a device with its files.
type Device struct {
	config.Entry
	File string
	// Secrets are the keys that refer to files of their own.
	Secrets []string
}

// Files lists what is to be written, in that order.
func (p *Plan) Files() []File { return append(p.secrets[:len(p.secrets):len(p.secrets)], p.yaml...) }

// New makes a plan. source is the list's name, for a comment; cloud is the devices' cloud unless the list names one.
func New(entries []config.Entry, source, cloud string) (*Plan, error) {
	p := new(Plan)
	for _, e := range entries {
		if e.Cloud == "" {
			e.Cloud = cloud
		}
		d := Device{Entry: e, File: filepath.Join(Devices, e.Name+".yaml")}
		k := p.keys(&d)
		var b bytes.Buffer
		fmt.Fprintf(&b, "# Made by \"bridged import\" from %s, line %d.\n", filepath.Base(source), e.Line)
		enc := yaml.NewEncoder(&b)
		enc.SetIndent(2)
		if err := enc.Encode([]deviceYAML{k}); err != nil {
			return nil, fmt.Errorf("write device %s as YAML: %w", e.Name, err)
		}
		p.yaml = append(p.yaml, File{Path: d.File, data: config.Secret(b.String())})
		p.Devices = append(p.Devices, d)
	}
	return p, nil
}

// deviceYAML has the keys of a device that a list may tell.
type deviceYAML struct {
	Name         string     `yaml:"name"`
	Cloud        string     `yaml:"cloud,omitempty"`
	DeviceName   string     `yaml:"device_name,omitempty"`
	ProductKey   string     `yaml:"product_key,omitempty"`
	ProductID    string     `yaml:"product_id,omitempty"`
	DeviceSecret *ref       `yaml:"device_secret,omitempty,flow"`
	ClientID     string     `yaml:"client_id,omitempty"`
	Username     string     `yaml:"username,omitempty"`
	Password     *ref       `yaml:"password,omitempty,flow"`
	Login        *loginYAML `yaml:"login,omitempty"`
}

type loginYAML struct {
	ClientID     string   `yaml:"client_id,omitempty"`
	Username     string   `yaml:"username,omitempty"`
	Password     *ref     `yaml:"password,omitempty,flow"`
	PasswordHash *ref     `yaml:"password_hash,omitempty,flow"`
	AllowFrom    []string `yaml:"allow_from,omitempty,flow"`
}

// ref is a secret in a file.
type ref struct {
	File string `yaml:"file"`
}

// keys are a device's, with the secrets put into files.
func (p *Plan) keys(d *Device) deviceYAML {
	e := &d.Entry
	secret := func(key, suffix string, value config.Secret) *ref {
		if value == "" {
			return nil
		}
		d.Secrets = append(d.Secrets, key)
		path := filepath.Join(Secrets, e.Name+suffix)
		p.secrets = append(p.secrets, File{Path: path, Secret: true, data: value + "\n"})
		return &ref{filepath.Join("..", path)} // as seen from the device's file
	}
	k := deviceYAML{
		Name: e.Name, Cloud: e.Cloud, ProductKey: e.ProductKey, ProductID: e.ProductID,
		DeviceSecret: secret("device_secret", ".secret", e.DeviceSecret),
		ClientID:     e.ClientID, Username: e.Username,
		Password: secret("password", ".password", e.Password),
	}
	if e.DeviceName != e.Name {
		k.DeviceName = e.DeviceName
	}
	l := loginYAML{
		ClientID: e.LoginClientID, Username: e.LoginUsername, AllowFrom: e.AllowFrom,
		Password:     secret("login.password", ".login", e.LoginPassword),
		PasswordHash: secret("login.password_hash", ".login-hash", e.LoginPasswordHash),
	}
	if l.ClientID != "" || l.Username != "" || l.Password != nil || l.PasswordHash != nil || len(l.AllowFrom) > 0 {
		k.Login = &l
	}
	return k
}
