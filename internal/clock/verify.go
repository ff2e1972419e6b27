package clock

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// VerifyTime is the way out when the clock does not allow a TLS connection, which is what could tell the time. It
// takes the error of a handshake whose certificates were verified at VerifyNow, and returns the time at which to verify
// them in a second handshake with the same host, and whether there is one. The whole verification is repeated at that
// time: names, signatures, authorities. The caller must not use the time for anything else, nor for another host.
//
// It is the earliest time that the certificates themselves allow: the latest of their NotBefore, the build and, if it
// is plausible, the system clock. There is one only
//
//   - if the system clock is plainly wrong; or
//   - if it is plausible and not synchronised, and a certificate is not valid yet: authorities do not issue
//     certificates ahead of time, so then it is the clock that is behind. An expired certificate is never accepted at
//     a plausible time; there the clock is not turned back.
//
// The host's Date then is authentic, if it lies within the certificates' time (Sample), and corrects the clock; from
// then on VerifyNow is right.
//
// The price: as long as the clock is plainly wrong, whoever has the key of a certificate that has expired since the
// build, and is on the way to the cloud, is taken for the cloud; with a right clock he is not. He cannot use one that
// expired before the build, nor one that was never valid for the name. The alternatives are worse: not to verify at
// all gives the same to anybody, and not to connect needs a visit to each gateway whose clock battery is empty. Where
// the login would be readable to him (a password; signatures are worth little), pins of the cloud's public key close
// the gap.
func (c *Clock) VerifyTime(err error) (time.Time, bool) {
	chain := outOfTime(err)
	if len(chain) == 0 {
		return time.Time{}, false
	}
	said := c.cfg.Sync()
	c.mu.Lock()
	wall, _ := c.readLocked()
	known := c.correction.on && c.correction.from.trust == Authentic
	c.mu.Unlock()

	wrong := !c.plausible(wall)
	if known || !wrong && said == Synchronised {
		return time.Time{}, false
	}
	t := wall
	if wrong {
		t = c.cfg.Built
	}
	for _, cert := range chain {
		if cert.NotBefore.After(t) {
			t = cert.NotBefore
		}
	}
	if !wrong && !t.After(wall) || !c.plausible(t) || t.After(chain[0].NotAfter) {
		return time.Time{}, false
	}
	return t, true
}

// outOfTime returns the certificates, the host's own first, that were refused for the time at which they are valid.
func outOfTime(err error) []*x509.Certificate {
	var refused *tls.CertificateVerificationError
	var invalid x509.CertificateInvalidError
	if errors.As(err, &refused) && errors.As(refused.Err, &invalid) && invalid.Reason == x509.Expired {
		return refused.UnverifiedCertificates
	}
	return nil
}
