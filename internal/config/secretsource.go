package config

import "path/filepath"

// SecretSource says where a secret was found that does not stand in the configuration itself. Exactly one of File, Env
// and Credential is set.
type SecretSource struct {
	// Key is the secret's path below the device, or below the configuration for a secret of the cloud.
	Key string
	// File is a path: of the secret, or of a private key.
	File string
	Env  string
	// Credential is the name of a systemd credential.
	Credential string
}

// secretSources lists where the secrets of a device were found, except for those in the configuration itself.
func (d *device) secretSources() (all []SecretSource) {
	add := func(key string, s *secret) {
		if !s.given || s.bad || s.value != "" {
			return
		}
		from := SecretSource{Key: key, Env: s.keys.Env.value, Credential: s.keys.Credential.value}
		if s.keys.File.value != "" {
			from.File = s.keys.File.path()
		}
		all = append(all, from)
	}
	k, c := d.keys, d.cloud
	add("device_secret", &k.DeviceSecret)
	add("password", &k.Password)
	add("login.password", &k.Login.Password)
	add("login.password_hash", &k.Login.PasswordHash)
	cloud := "clouds." + c.Name + "."
	add(cloud+"proxy_password", &c.keys.ProxyPassword)
	for _, name := range c.keys.Headers.names {
		add(cloud+"headers."+name, c.keys.Headers.items[name])
	}
	if key := d.ClientCertificate.KeyFile; key != "" {
		from := SecretSource{Key: cloud + "tls.key_file", File: filepath.Clean(key)}
		if k.KeyFile.given {
			from.Key = "key_file"
		}
		all = append(all, from)
	}
	return all
}
