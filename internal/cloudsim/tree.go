package cloudsim

import "strings"

// tree finds the sessions subscribed to a topic. Its zero value is empty. Cloud.mu guards it.
type tree struct {
	children map[string]*tree
	subs     map[*session]byte // granted QoS of those whose filter ends here
}

func (t *tree) add(filter string, s *session, qos byte) {
	n := t
	for level := range strings.SplitSeq(filter, "/") {
		child := n.children[level]
		if child == nil {
			child = &tree{}
			if n.children == nil {
				n.children = make(map[string]*tree)
			}
			n.children[level] = child
		}
		n = child
	}
	if n.subs == nil {
		n.subs = make(map[*session]byte)
	}
	n.subs[s] = qos
}

// remove takes a subscription out, with the nodes that nobody needs any more.
func (t *tree) remove(filter string, s *session) {
	level, rest, more := strings.Cut(filter, "/")
	child := t.children[level]
	switch {
	case child == nil:
		return
	case more:
		child.remove(rest, s)
	default:
		delete(child.subs, s)
	}
	if len(child.subs) == 0 && len(child.children) == 0 {
		delete(t.children, level)
	}
}

// match returns the sessions subscribed to a topic, each once with the highest QoS granted to its matching filters.
func (t *tree) match(topic string) map[*session]byte {
	var found map[*session]byte
	t.walk(topic, true, func(subs map[*session]byte) {
		if found == nil && len(subs) > 0 {
			found = make(map[*session]byte, len(subs))
		}
		for s, qos := range subs {
			found[s] = max(found[s], qos)
		}
	})
	return found
}

func (t *tree) walk(topic string, first bool, visit func(map[*session]byte)) {
	level, rest, more := strings.Cut(topic, "/")
	wild := !first || !strings.HasPrefix(level, "$") // MQTT 3.1.1, 4.7.2
	if n := t.children["#"]; n != nil && wild {
		visit(n.subs)
	}
	for _, key := range [2]string{level, "+"} {
		n := t.children[key]
		if n == nil || key == "+" && !wild {
			continue
		}
		if more {
			n.walk(rest, false, visit)
			continue
		}
		visit(n.subs)
		if parent := n.children["#"]; parent != nil { // "a/#" matches "a" too (4.7.1.2)
			visit(parent.subs)
		}
	}
}
