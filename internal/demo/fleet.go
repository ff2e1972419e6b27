package demo

import (
	"encoding/base64"
	"fmt"

	"bridged/internal/cloudsim"
)

// cloudSpec is one of the simulated clouds.
type cloudSpec struct {
	name   string
	title  string
	secure bool   // the bridge uses wss
	login  string // what the simulated cloud has done to let a device in
	opts   cloudsim.Options
}

// label names a cloud and how it is reached.
func (c *cloudSpec) label() string { return c.name + " " + c.scheme() }

func (c *cloudSpec) scheme() string {
	if c.secure {
		return "wss"
	}
	return "ws"
}

// deviceSpec is one of the virtual devices.
type deviceSpec struct {
	name, cloud string
	password    string // on the LAN
	// The device's own topics.
	telemetry, answer, command string
	// commandInCloud is the topic that the cloud's application publishes commands to.
	commandInCloud string
	// reading is what the device measures and setting what it is told, as JSON members.
	reading, setting func(n int) string
}

// All names and secrets are made up.
const (
	productKey = "a1B2c3D4e5F"
	productID  = "ABCDE12345"

	boilerSecret = "made-up-secret-of-boiler-1"
	pressSecret  = "made-up-password-of-press-2"
	guestSecret  = "made-up-password-of-guests"

	boiler, pump, press = "boiler-1", "pump-7", "press-2"
	// guest and listener are for the person at the keyboard, guestLogin is their user name and password on the LAN.
	guest, listener = "you", "watcher"
	guestLogin      = "demo"
)

var pumpSecret = base64.StdEncoding.EncodeToString([]byte("made-up-secret-of-pump-7"))

// clouds are the simulated clouds.
func clouds() []*cloudSpec {
	return []*cloudSpec{
		{
			name: "aliyun", title: "Alibaba Cloud IoT Platform", secure: true, login: "signature verified (hmacsha256)",
			opts: cloudsim.Options{
				Kind: cloudsim.Aliyun, Product: productKey,
				Devices: []cloudsim.Device{{Name: boiler, Secret: boilerSecret}},
			},
		},
		{
			name: "tencent", title: "Tencent Cloud IoT Hub", login: "signature verified (hmacsha1)",
			opts: cloudsim.Options{
				Kind: cloudsim.Tencent, Product: productID,
				Devices: []cloudsim.Device{{Name: pump, Secret: pumpSecret}},
			},
		},
		{
			name: "lab", title: "any MQTT broker", secure: true, login: "user name and password verified",
			opts: cloudsim.Options{
				Kind: cloudsim.Generic, Paths: []string{"/mqtt"},
				Users: map[string]string{press: pressSecret, "guest": guestSecret},
			},
		},
	}
}

// fleet are the virtual devices: one with the topics of its cloud in its firmware, one with short topics that the
// bridge translates, one in front of a broker that takes any topic.
func fleet() []*deviceSpec {
	return []*deviceSpec{
		{
			name: boiler, cloud: "aliyun", password: "boiler-login",
			telemetry:      "/" + productKey + "/" + boiler + "/user/update",
			answer:         "/" + productKey + "/" + boiler + "/user/answer",
			command:        "/" + productKey + "/" + boiler + "/user/get",
			commandInCloud: "/" + productKey + "/" + boiler + "/user/get",
			reading:        func(n int) string { return fmt.Sprintf(`"t":%.1f`, 71+wave(n, 2)) },
			setting:        func(n int) string { return fmt.Sprintf(`"set":%d`, 68+n%7) },
		},
		{
			name: pump, cloud: "tencent", password: "pump-login",
			telemetry: "telemetry", answer: "answer", command: "command",
			commandInCloud: productID + "/" + pump + "/control",
			reading:        func(n int) string { return fmt.Sprintf(`"bar":%.2f`, 2.4+wave(n, 0.3)) },
			setting:        func(n int) string { return fmt.Sprintf(`"rpm":%d`, 1400+n%5*50) },
		},
		{
			name: press, cloud: "lab", password: "press-login",
			telemetry: press + "/telemetry", answer: press + "/answer", command: press + "/command",
			commandInCloud: press + "/command",
			reading:        func(n int) string { return fmt.Sprintf(`"kN":%.0f`, 118+wave(n, 6)) },
			setting:        func(n int) string { return fmt.Sprintf(`"mm":%d`, 12+n%4) },
		},
	}
}

// wave is something that goes up and down with n, by amplitude.
func wave(n int, amplitude float64) float64 {
	const period = 10
	phase := float64(n%period) / period // a triangle: 0, 1, 0, -1, 0
	switch {
	case phase < 0.25:
		return amplitude * 4 * phase
	case phase < 0.75:
		return amplitude * (2 - 4*phase)
	}
	return amplitude * (4*phase - 4)
}
