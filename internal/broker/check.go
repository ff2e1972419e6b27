package broker

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/crypto/bcrypt"
)

// check finds what would make the broker useless or unsafe. The configuration's own checks come before and say more.
func (c *Config) check() error {
	switch {
	case c.MaxConnections <= 0:
		return errors.New("max_connections must be greater than 0")
	case c.ConnectTimeout <= 0:
		return errors.New("connect_timeout must be greater than 0")
	case c.MaxPacketSize <= 0 || c.MaxPacketSize > math.MaxInt32:
		return fmt.Errorf("max_packet_size must be from 1 to %d bytes", math.MaxInt32)
	case len(c.Listeners) == 0:
		return errors.New("at least one listener is needed")
	case c.Log == nil:
		return errors.New("a logger is needed")
	}
	return nil
}

// checkDevices finds the same in devices.
func checkDevices(devices []*Device) error {
	names := make(map[string]bool, len(devices))
	for _, d := range devices {
		if err := d.check(); err != nil {
			return fmt.Errorf("device %q: %w", d.Name, err)
		}
		if names[d.Name] {
			return fmt.Errorf("device %q: the name is used twice", d.Name)
		}
		names[d.Name] = true
	}
	return nil
}

func (d *Device) check() error {
	switch {
	case d.Name == "":
		return errors.New("a name is needed")
	case d.MaxQoS > 2:
		return fmt.Errorf("the maximum QoS is %d; it must be 0, 1 or 2", d.MaxQoS)
	case d.Up == nil || d.Marks == nil || d.Down == nil || d.Upstream == nil:
		return errors.New("lanes and a cloud side are needed")
	case d.Login.Password != "" && len(d.Login.PasswordHash) > 0:
		return errors.New("login: password and password_hash exclude each other")
	}
	if hash := d.Login.PasswordHash; len(hash) > 0 {
		if _, err := bcrypt.Cost(hash); err != nil {
			return fmt.Errorf("login: password_hash is not a bcrypt hash: %w", err)
		}
	}
	return nil
}
