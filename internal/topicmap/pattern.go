package topicmap

import "strings"

// pattern is a valid topic filter, taken apart.
type pattern struct {
	text   string
	levels []string // without the final "#"
	plus   int      // how many levels are "+"
	many   bool     // ends with "#"
}

func parse(filter string) pattern {
	p := pattern{text: filter, levels: strings.Split(filter, "/")}
	if last := len(p.levels) - 1; p.levels[last] == "#" {
		p.many = true
		p.levels = p.levels[:last]
	}
	for _, level := range p.levels {
		if level == "+" {
			p.plus++
		}
	}
	return p
}

func (p *pattern) wildcards() int {
	if p.many {
		return p.plus + 1
	}
	return p.plus
}

func (p *pattern) startsWild() bool { return startsWild(p.text) }

func startsWild(filter string) bool {
	return filter[0] == '+' || filter[0] == '#'
}

// tail is what a "#" stands for: levels, or nothing where the topic is the parent itself.
type tail struct {
	levels string
	some   bool
}

// capture matches a topic and returns what the "+" stand for, appended to buf, and what "#" stands for.
func (p *pattern) capture(topic string, buf []string) (plus []string, rest tail, ok bool) {
	remaining, more := topic, true
	for _, want := range p.levels {
		if !more {
			return nil, tail{}, false
		}
		var level string
		level, remaining, more = strings.Cut(remaining, "/")
		switch want {
		case "+":
			buf = append(buf, level)
		case level:
		default:
			return nil, tail{}, false
		}
	}
	if more && !p.many {
		return nil, tail{}, false
	}
	return buf, tail{levels: remaining, some: more}, true
}

// fill is the reverse of capture. Its result may be empty.
func (p *pattern) fill(plus []string, rest tail) string {
	if p.wildcards() == 0 {
		return p.text
	}
	var b strings.Builder
	size := len(p.text) + len(rest.levels)
	for _, level := range plus {
		size += len(level)
	}
	b.Grow(size)
	for i, level := range p.levels {
		if i > 0 {
			b.WriteByte('/')
		}
		if level == "+" {
			level, plus = plus[0], plus[1:]
		}
		b.WriteString(level)
	}
	if p.many && rest.some {
		if len(p.levels) > 0 {
			b.WriteByte('/')
		}
		b.WriteString(rest.levels)
	}
	return b.String()
}

// intersect returns the filter that matches exactly the topics that both filters match. There always is one, unless
// they have nothing in common.
func intersect(a, b string) (string, bool) {
	levels, ok := commonLevels(a, b)
	common := strings.Join(levels, "/")
	return common, ok && common != "" // "+" and "/#" have the empty topic in common, which is none
}

func commonLevels(a, b string) (common []string, ok bool) {
	if a[0] == '$' && startsWild(b) || b[0] == '$' && startsWild(a) {
		return nil, false // MQTT 3.1.1, 4.7.2
	}
	la, lb := strings.Split(a, "/"), strings.Split(b, "/")
	for i := 0; ; i++ {
		switch endA, endB := i == len(la), i == len(lb); {
		case endA && endB:
			return common, true
		case !endA && la[i] == "#":
			return append(common, lb[i:]...), true
		case !endB && lb[i] == "#":
			return append(common, la[i:]...), true
		case endA || endB:
			return nil, false
		case la[i] == "+":
			common = append(common, lb[i])
		case lb[i] == "+" || lb[i] == la[i]:
			common = append(common, la[i])
		default:
			return nil, false
		}
	}
}
