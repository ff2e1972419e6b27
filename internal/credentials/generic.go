package credentials

import "time"

// Generic is a device of any MQTT broker, with a fixed login or none. A client certificate, if the broker wants one, is
// the TLS configuration's business.
type Generic struct {
	// ClientID must not be empty: a bridge cannot resume a session whose name the broker made up.
	ClientID string
	// Username may be empty; then neither user name nor password are sent.
	Username string
	Password Secret
}

// Validate implements Identity.
func (g Generic) Validate() error {
	if err := required("client_id", g.ClientID, ""); err != nil {
		return err
	}
	if g.Username == "" && g.Password != "" {
		return &FieldError{
			Field:  "password",
			Reason: "is given without a username, which MQTT 3.1.1 does not allow (3.1.2.9)",
			Remedy: "write the username, too",
		}
	}
	return nil
}

// Sign implements Identity. Time and nonce are not used.
func (g Generic) Sign(time.Time, string) (Login, error) {
	if err := g.Validate(); err != nil {
		return Login{}, err
	}
	return Login{ClientID: g.ClientID, Username: g.Username, Password: g.Password.Reveal()}, nil
}
