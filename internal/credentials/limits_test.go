package credentials

import (
	"slices"
	"testing"
	"time"
)

// The table in the product's documentation, written down once more.
func TestLimits(t *testing.T) {
	for _, test := range []struct {
		provider           string
		low, high, usual   time.Duration
		qos                byte
		kept               bool
		payload            int64
		uplink             int
		connects           string
		filters, subs      int
		topicBytes, levels int
		clientID           int
	}{
		{"aliyun", 30, 1200, 300, 1, false, 262144, 30, "5/1m0s", 8, 100, 128, 7, 64},
		{"tencent", 0, 900, 300, 1, false, 16384, 30, "1/5s", 1, 0, 255, 0, 0},
		{"generic", 0, 65535, 60, 2, true, 0, 0, "0", 0, 0, 65535, 0, 65535},
	} {
		t.Run(test.provider, func(t *testing.T) {
			l, ok := LimitsOf(test.provider)
			if !ok {
				t.Fatal("not known")
			}
			want := Limits{
				KeepaliveMin: test.low * time.Second, KeepaliveMax: test.high * time.Second,
				KeepaliveDefault: test.usual * time.Second,
				MaxQoS:           test.qos, Retain: test.kept, Will: test.kept, MaxPayload: test.payload,
				UplinkPerSecond: test.uplink, Connects: l.Connects, MaxInFlight: 100,
				FiltersPerSubscribe: test.filters, MaxSubscriptions: test.subs,
				MaxTopicBytes: test.topicBytes, MaxTopicLevels: test.levels, MaxClientID: test.clientID,
			}
			if l != want || l.Connects.String() != test.connects {
				t.Errorf("\n%+v\nwant\n%+v, connects %s", l, want, test.connects)
			}
			if l.Connects.Unlimited() != (test.connects == "0") {
				t.Error("Unlimited is wrong")
			}
		})
	}
}

func TestProviders(t *testing.T) {
	if got := Providers(); !slices.Equal(got, []string{"aliyun", "generic", "tencent"}) {
		t.Errorf("%v", got)
	}
	if _, ok := LimitsOf("aws"); ok {
		t.Error("aws is known")
	}
}
