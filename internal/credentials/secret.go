package credentials

import (
	"encoding/json"
	"fmt"
	"io"
)

// masked is what a secret shows of itself, whatever its length.
const masked = "***"

// Secret is a string that does not show itself: every way of printing, logging or encoding it gives "***". Only Reveal
// tells it, so a search for that name finds every place where a secret is used.
//
// fmt cannot call methods on values in unexported fields: keep secrets in exported ones.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns the mask, or nothing for an empty secret, so that "not set" can be told apart.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// GoString is String for %#v.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// Format is String for every verb, since some of them (%x, %q) would otherwise print the bytes.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	if verb == 'q' || f.Flag('#') {
		text = s.GoString()
	}
	_, _ = io.WriteString(f, text)
}

// MarshalText masks the secret in encoders that go by text: JSON, YAML, zap.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON masks the secret in JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// maskedLogin is a Login that is safe to print.
type maskedLogin struct {
	ClientID string `json:"client_id"`
	Username string `json:"username"`
	Password Secret `json:"password"`
}

// Format prints the login with its password masked.
func (l Login) Format(f fmt.State, verb rune) {
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), maskedLogin{l.ClientID, l.Username, Secret(l.Password)})
}

// MarshalJSON encodes the login with its password masked.
func (l Login) MarshalJSON() ([]byte, error) {
	return json.Marshal(maskedLogin{l.ClientID, l.Username, Secret(l.Password)})
}
