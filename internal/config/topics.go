package config

import (
	"errors"
	"fmt"
	"strings"

	"bridged/internal/credentials"
	"bridged/internal/mqtt"
	"bridged/internal/topicmap"
)

// variables are what topics and filters may refer to as ${...}.
func (d *device) variables() map[string]string {
	vars := map[string]string{
		"name":        d.Name,
		"device_name": d.keys.DeviceName.value,
		"client_id":   plainClientID(d.Identity),
	}
	switch id := d.Identity.(type) {
	case credentials.Aliyun:
		vars["product_key"] = id.ProductKey
	case credentials.Tencent:
		vars["product_id"] = id.ProductID
	case credentials.TencentCertificate:
		vars["product_id"] = id.ProductID
	}
	return vars
}

// expand replaces the variables in a topic or filter. What it reports is about the text as written: a fault in the
// defaults comes once, not with every device.
func (r *resolver) expand(t *text, vars map[string]string) (string, bool) {
	s, err := topicmap.Expand(t.value, vars)
	if err != nil {
		r.fault(t.place, err.Error(), "")
	}
	return s, err == nil
}

// subscriptions builds the filters to subscribe to on the device's behalf.
func (r *resolver) subscriptions(d *device) {
	if d.Identity == nil {
		return // the variables are not known
	}
	vars, l := d.variables(), d.cloud.Limits
	for i := range d.keys.Subscribe.items {
		k := &d.keys.Subscribe.items[i]
		if k.bad || k.Filter.bad || k.QoS.bad {
			continue
		}
		if !k.Filter.given {
			r.fault(k.sub("filter"), "is missing", "write a topic filter of the cloud")
			continue
		}
		filter, ok := r.expand(&k.Filter, vars)
		if !ok {
			continue
		}
		s := mqtt.Subscription{Filter: filter, QoS: byte(k.QoS.value)}
		if s.QoS > l.MaxQoS {
			if k.QoS.given {
				r.warn(k.QoS.place, fmt.Sprintf("%d is more than the cloud %q gives", s.QoS, d.cloud.Name),
					fmt.Sprintf("write %d, which is what will be asked for", l.MaxQoS))
			}
			s.QoS = l.MaxQoS
		}
		if f := r.badSubscription(d, s.Filter); f != nil {
			r.fault(k.Filter.place, f.what, f.remedy)
			continue
		}
		d.Subscribe = append(d.Subscribe, s)
	}
	if n := len(d.Subscribe); l.MaxSubscriptions > 0 && n > l.MaxSubscriptions {
		r.fault(d.keys.Subscribe.place, fmt.Sprintf("has %d filters, the cloud %q allows a device %d", n, d.cloud.Name,
			l.MaxSubscriptions), "use wildcards")
	}
}

// doctorTopic takes the topic to try.
func (r *resolver) doctorTopic(d *device) {
	k := &d.keys.DoctorTopic
	if d.Identity == nil || !k.given || k.bad {
		return
	}
	topic, ok := r.expand(k, d.variables())
	if !ok {
		return
	}
	f := topicTooLong(topic, d.cloud.Limits)
	if !mqtt.ValidTopic(topic) {
		f = &flaw{quote(topic) + " is no topic to publish to", `write one without "+" and "#"`}
	}
	if f != nil {
		r.fault(k.place, f.what, f.remedy)
		return
	}
	d.DoctorTopic = topic
}

// badSubscription says what is wrong with a filter, nil if nothing is.
func (r *resolver) badSubscription(d *device, filter string) *flaw {
	if !mqtt.ValidFilter(filter) {
		return &flaw{quote(filter) + " is no valid filter", `"+" must fill a whole level, "#" the last one`}
	}
	for _, s := range d.Subscribe {
		if s.Filter == filter {
			return &flaw{quote(filter) + " is in the list already", "remove one of them"}
		}
	}
	return topicTooLong(filter, d.cloud.Limits)
}

const tooLong = "shorten it; if the cloud takes more by now, raise the cloud's limits."

// topicTooLong says that a topic or filter is beyond what the cloud takes.
func topicTooLong(s string, l credentials.Limits) *flaw {
	if n := len(s); l.MaxTopicBytes > 0 && n > l.MaxTopicBytes {
		return &flaw{fmt.Sprintf("%s has %d bytes, the cloud takes at most %d", quote(s), n, l.MaxTopicBytes),
			tooLong + "max_topic_bytes"}
	}
	if n := mqtt.Levels(s); l.MaxTopicLevels > 0 && n > l.MaxTopicLevels {
		return &flaw{fmt.Sprintf("%s has %d levels, the cloud takes at most %d", quote(s), n, l.MaxTopicLevels),
			tooLong + "max_topic_levels"}
	}
	return nil
}

// topics builds the topic rules.
func (r *resolver) topics(d *device) {
	if d.Identity == nil {
		return
	}
	vars := d.variables()
	var rules []topicmap.Rule
	var from []*topicKeys // the rules' keys
	for i := range d.keys.Topics.items {
		k := &d.keys.Topics.items[i]
		if k.bad || k.Local.bad || k.Cloud.bad || k.Direction.bad {
			continue
		}
		local, ok1 := r.expand(&k.Local, vars)
		cloud, ok2 := r.expand(&k.Cloud, vars)
		if !ok1 || !ok2 {
			continue
		}
		rule := topicmap.Rule{Local: local, Cloud: cloud}
		if err := rule.Direction.UnmarshalText([]byte(k.Direction.value)); err != nil {
			r.fault(k.Direction.place, err.Error(), "")
			continue
		}
		if f := topicTooLong(cloud, d.cloud.Limits); f != nil && !strings.ContainsAny(cloud, "+#") {
			r.fault(k.Cloud.place, f.what, f.remedy)
		}
		rules, from = append(rules, rule), append(from, k)
	}
	_, err := topicmap.New(rules)
	var faults topicmap.Faults
	if !errors.As(err, &faults) {
		d.Topics = rules
		return
	}
	for _, f := range faults {
		r.fault(from[f.Rule].placeOf(f.Field), f.Message, "")
	}
}

// placeOf is where a part of a rule stands, or the rule if it is not written.
func (k *topicKeys) placeOf(field string) place {
	parts := map[string]*text{topicmap.Local: &k.Local, topicmap.Cloud: &k.Cloud, topicmap.Dir: &k.Direction}
	if t := parts[field]; t != nil && t.given {
		return t.place
	}
	return k.sub(field)
}
