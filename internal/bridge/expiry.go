package bridge

import (
	"time"

	"go.uber.org/zap"

	"bridged/internal/clock"
)

// expiryEvery is how often certificates are looked at.
const expiryEvery = 10 * time.Minute

// warnDays are how many days ahead the log tells that a certificate expires, and the last that it has.
var warnDays = []int{30, 7, 1, 0}

// toldExpiry is what the log was told last of a certificate.
type toldExpiry struct {
	expires time.Time
	days    int // of warnDays
}

// warnExpiry logs which certificates expire soon, or have. Files that have changed are noticed here, too, so that a
// certificate which was renewed in time is not complained of.
func (c *clouds) warnExpiry() {
	st := c.clock.State()
	if st.Kind == clock.Wrong { // who knows
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, made := range c.made {
		name := made.cfg.Name
		c.warnLocked(st.Now, "cloud "+name, made.dialer.CertificateExpires(), zap.String("cloud", name),
			"renew the server's certificate, or ask the cloud's operator")
	}
	for files, pair := range c.pairs {
		pair.Refresh()
		c.warnLocked(st.Now, "file "+files.CertFile, pair.Expires(), zap.String("cert_file", files.CertFile),
			"renew the client certificate: bridged takes new files up by itself")
	}
}

func (c *clouds) warnLocked(now time.Time, name string, expires time.Time, what zap.Field, remedy string) {
	if expires.IsZero() {
		return
	}
	left := expires.Sub(now)
	told := c.told[name]
	for i := len(warnDays) - 1; i >= 0; i-- { // the most urgent first
		days := warnDays[i]
		if left > time.Duration(days)*24*time.Hour {
			continue
		}
		if told.expires.Equal(expires) && told.days <= days {
			return
		}
		c.told[name] = toldExpiry{expires, days}
		message := "a certificate expires soon"
		if days == 0 {
			message = "a certificate has expired"
		}
		c.log.Warn(message, what, zap.Time("expires", expires), zap.String("remedy", remedy))
		return
	}
}
