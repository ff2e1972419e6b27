package config

import (
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// secret is a secret in the file itself, or a reference to where it is kept.
type secret struct {
	mark
	value Secret
	keys  secretKeys
}

// set takes a secret from the file itself.
func (s *secret) set(text string, _ reflect.StructTag) *flaw {
	if text == "" {
		return &flaw{"is empty", "write the secret, or remove the key"}
	}
	s.value = Secret(text)
	return nil
}

func (s *secret) load(d *decoder, n *yaml.Node, tag reflect.StructTag) {
	if n.Kind != yaml.MappingNode {
		d.leaf(s, n, tag)
		d.inlineSecrets = d.inlineSecrets || s.value != ""
		return
	}
	s.keys.mark = s.mark
	before := len(d.faults)
	d.section(reflect.ValueOf(&s.keys).Elem(), n)
	s.bad = len(d.faults) > before
}

// secret reads a secret. It is empty if there is none, or if it cannot be had, which is reported then.
func (r *resolver) secret(s *secret) Secret {
	if s.bad || !s.given || s.value != "" {
		return s.value
	}
	value, f := r.lookUp(s)
	if f == nil && value == "" {
		f = &flaw{"refers to something empty", "write the secret there"}
	}
	if f != nil {
		s.bad = true
		r.fault(s.place, f.what, f.remedy)
	}
	return Secret(value)
}

// lookUp reads a secret from where it is kept.
func (r *resolver) lookUp(s *secret) (string, *flaw) {
	file, env, credential := &s.keys.File, &s.keys.Env, &s.keys.Credential
	given := 0
	for _, t := range []*text{file, env, credential} {
		if t.value != "" {
			given++
		}
	}
	if given != 1 {
		return "", &flaw{"must be a string or exactly one of file, env and credential", "write for example {file: PATH}"}
	}
	switch {
	case env.value != "":
		value, ok := r.env.LookupEnv(env.value)
		if !ok {
			return "", &flaw{"the environment variable " + quote(env.value) + " is not set", "set it in bridged's environment"}
		}
		return value, nil
	case credential.value != "":
		return r.credential(credential)
	}
	data, mode, err := r.disk.read(file.path(), maxSecretFile)
	if err != nil {
		return "", unreadable(file.path(), err)
	}
	if f := private(file.path(), mode); f != nil {
		return "", f
	}
	return trimLineEnd(data), nil
}

// credential reads a systemd credential. Its permissions are systemd's business: with ACLs a file that only the service
// can read looks as if its group could.
func (r *resolver) credential(t *text) (string, *flaw) {
	dir, ok := r.env.LookupEnv("CREDENTIALS_DIRECTORY")
	load := fmt.Sprintf("write LoadCredential=%s:PATH into the service unit", t.value)
	switch {
	case t.value != filepath.Base(t.value) || t.value == "..":
		return "", &flaw{"the credential " + quote(t.value) + " is a path", "write its name only"}
	case !ok || dir == "":
		return "", &flaw{"bridged was started without systemd credentials",
			load + "; in a shell, while that runs, set CREDENTIALS_DIRECTORY=/run/credentials/bridged.service"}
	}
	data, _, err := r.disk.read(filepath.Join(dir, t.value), maxSecretFile)
	if err != nil {
		return "", &flaw{fmt.Sprintf("cannot read the systemd credential %s: %v", quote(t.value), cause(err)), load}
	}
	return trimLineEnd(data), nil
}

// trimLineEnd removes one line end: editors add it, and echo does.
func trimLineEnd(data []byte) string {
	s := strings.TrimSuffix(string(data), "\n")
	return strings.TrimSuffix(s, "\r")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// shellWord quotes a path for a shell, if it needs to be.
func shellWord(path string) string {
	if plainWord.MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
