package cloudsim

import "crypto/subtle"

// verifyGeneric checks user name and password against a table, as most brokers do; a nil table lets everybody in. The
// device is the client id.
func verifyGeneric(a attempt, users map[string]string, anonymous bool) verdict {
	v := verdict{device: a.clientID, clientID: a.clientID}
	if users == nil || anonymous && !a.hasUsername {
		return v
	}
	password, known := users[a.username]
	same := subtle.ConstantTimeCompare([]byte(password), []byte(a.password)) == 1
	if !a.hasUsername || !known || !same {
		return refuse(v, codeNotAllowed, "wrong user name or password")
	}
	return v
}
