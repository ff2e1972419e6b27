// Package topicmap translates topics between a device's LAN side and its cloud side by rules, for firmware with fixed
// short topics. What no rule names passes unchanged.
//
// A rule pairs a local with a cloud pattern. Both are topic filters (MQTT 3.1.1, 4.7.1) with the same wildcards: what
// the n-th "+" of one side stands for goes to the n-th "+" of the other, and what "#" stands for goes to "#", including
// nothing at all ("a/#" matches "a" too). As everywhere in MQTT, a wildcard in the first level does not stand for a
// level that begins with "$". A rule applies to a topic that matches the one side if the result is a valid topic that
// matches the other: so the same rule, used the other way, leads back to the same topic. Of several rules that apply,
// the first one counts, and it is applied once: rules do not chain.
//
// A Map does not change after New and is safe for concurrent use. A nil *Map is the identity.
package topicmap

import (
	"cmp"
	"slices"
	"strings"
)

// maxTopic is the longest topic name or filter in bytes (MQTT 3.1.1, 1.5.3).
const maxTopic = 65535

// Rule pairs topics of the LAN with topics of the cloud.
type Rule struct {
	Local     string // pattern on the device's side
	Cloud     string // pattern on the cloud's side
	Direction Direction
}

// Map is a checked set of rules.
type Map struct {
	up   []rule // from local to cloud
	down []rule // from cloud to local
}

// rule is a Rule for one direction.
type rule struct {
	from, to pattern
	index    int // in the set that New was given
}

// New checks the rules and returns a Map, nil if there are no rules. The error is a Faults with everything that is
// wrong.
//
// A rule whose topics are all taken by an earlier rule of the same direction is a fault, because a device that relies
// on it would miss messages without a word. Exceptions therefore come before what they are exceptions of.
func New(rules []Rule) (*Map, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	m := &Map{}
	var faults Faults
	for i, r := range rules {
		if f := checkRule(i, r); len(f) > 0 {
			faults = append(faults, f...)
			continue
		}
		local, cloud := parse(r.Local), parse(r.Cloud)
		if r.Direction&Up != 0 {
			m.up = append(m.up, rule{from: local, to: cloud, index: i})
		}
		if r.Direction&Down != 0 {
			m.down = append(m.down, rule{from: cloud, to: local, index: i})
		}
	}
	faults = append(faults, checkReach(m.up, Local)...)
	faults = append(faults, checkReach(m.down, Cloud)...)
	if len(faults) > 0 {
		slices.SortStableFunc(faults, func(a, b Fault) int { return cmp.Compare(a.Rule, b.Rule) })
		return nil, faults
	}
	return m, nil
}

// Up returns the cloud topic for a valid topic that the device publishes to.
func (m *Map) Up(topic string) string {
	if m == nil {
		return topic
	}
	return translate(m.up, topic)
}

// Down returns the topic under which the device receives what the cloud published to a valid topic.
//
// A cloud topic that a rule renames reaches the device under its local name only: a device that subscribes to the
// cloud's name for it gets nothing.
func (m *Map) Down(topic string) string {
	if m == nil {
		return topic
	}
	return translate(m.down, topic)
}

func translate(rules []rule, topic string) string {
	for i := range rules {
		if t, ok := rules[i].apply(topic); ok {
			return t
		}
	}
	return topic
}

// Filters returns which filters to subscribe to in the cloud, so that the device gets what its own valid filter asks
// for: for each rule of the direction Down the cloud's name for what the rule and the filter have in common, and the
// filter itself, unless one rule's local pattern covers all of it: what that pattern matches belongs to the rule. The
// order is that of the rules, the filter itself last. There is at least one, and none comes twice.
//
// Different filters of a device may lead to the same cloud filter: who unsubscribes from one must keep what another
// still needs. A shared subscription ("$share/...") is a filter like any other here.
func (m *Map) Filters(filter string) []string {
	if m == nil {
		return []string{filter} // on the caller's stack: this method is small enough to be inlined
	}
	return m.filters(filter)
}

func (m *Map) filters(filter string) []string {
	var out []string
	covered := false
	for i := range m.down {
		r := m.down[i].reverse()
		cloud, all, ok := r.applyFilter(filter)
		if !ok {
			continue
		}
		covered = covered || all
		if !slices.Contains(out, cloud) {
			out = append(out, cloud)
		}
	}
	if !covered && !slices.Contains(out, filter) {
		out = append(out, filter)
	}
	return out
}

func (r rule) reverse() rule {
	return rule{from: r.to, to: r.from, index: r.index}
}

// apply translates one topic. ok is false if the rule does not apply to it.
func (r *rule) apply(topic string) (string, bool) {
	if r.from.wildcards() == 0 {
		return r.to.text, r.from.text == topic
	}
	if r.from.startsWild() && strings.HasPrefix(topic, "$") {
		return "", false
	}
	return r.substitute(topic)
}

// applyFilter translates what the filter and the rule's from side have in common. all says that this is all of the
// filter, ok that there is anything.
func (r *rule) applyFilter(filter string) (translated string, all, ok bool) {
	common, ok := intersect(filter, r.from.text)
	if !ok {
		return "", false, false
	}
	translated, ok = r.substitute(common)
	if !ok {
		return "", false, false
	}
	// "#" and "+/#" match the same topics; no other two filters do.
	return translated, common == filter || filter == "#" && common == "+/#", true
}

// substitute rewrites a topic, or a filter that is at least as narrow as the from side. ok is false if it does not
// match, or if the result would be no topic, or one that the to side does not match.
func (r *rule) substitute(topic string) (string, bool) {
	var buf [8]string
	captured, rest, ok := r.from.capture(topic, buf[:0])
	if !ok {
		return "", false
	}
	out := r.to.fill(captured, rest)
	if out == "" || len(out) > maxTopic || r.to.startsWild() && out[0] == '$' {
		return "", false
	}
	return out, true
}
