package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"

	"gopkg.in/yaml.v3"
)

// decoder fills the structs of keys.go from one file's YAML nodes.
type decoder struct {
	*report
	file string
	// inlineSecrets says that the file holds a secret itself.
	inlineSecrets bool
}

// loader is a value that is not written as one scalar and reads its node itself.
type loader interface {
	marked
	load(d *decoder, n *yaml.Node, tag reflect.StructTag)
}

// key is one key of a section.
type key struct {
	name  string
	index []int
	tag   reflect.StructTag
}

// keysByType holds what keysOf found: a fleet asks for the same few types again and again.
var keysByType sync.Map // from reflect.Type to []key

// keysOf lists the keys of a section's struct type in their order.
func keysOf(t reflect.Type) []key {
	if keys, ok := keysByType.Load(t); ok {
		return keys.([]key)
	}
	var keys []key
	for _, f := range reflect.VisibleFields(t) {
		if name := f.Tag.Get("yaml"); name != "" {
			keys = append(keys, key{name, f.Index, f.Tag})
		}
	}
	keysByType.Store(t, keys)
	return keys
}

// value fills the struct field v from a node.
func (d *decoder) value(v reflect.Value, n *yaml.Node, at place, tag reflect.StructTag) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	m := v.Addr().Interface().(marked)
	*m.state() = mark{place: at, given: true}
	switch m := m.(type) {
	case loader:
		m.load(d, n, tag)
	case leaf:
		d.leaf(m, n, tag)
	default:
		d.section(v, n)
	}
}

// leaf takes a scalar.
func (d *decoder) leaf(l leaf, n *yaml.Node, tag reflect.StructTag) {
	if n.Kind != yaml.ScalarNode {
		d.bad(l, "must be a single value, not a "+kindName(n), "")
		return
	}
	switch n.Tag {
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp":
		d.text(l, n.Value, tag)
	case "!!null":
		d.bad(l, "has no value", "write one, or remove the key")
	default:
		// The tag may be the beginning of a password: it is not shown.
		d.bad(l, `begins with a character that YAML reads as a tag ("!")`, "put the value in quotes")
	}
}

// text sets a leaf from its text.
func (d *decoder) text(l leaf, s string, tag reflect.StructTag) {
	if f := l.set(s, tag); f != nil {
		d.bad(l, f.what, f.remedy)
	}
}

// bad reports a fault of a value and marks it, so that no others follow from it.
func (d *decoder) bad(m marked, what, remedy string) {
	s := m.state()
	s.bad = true
	d.fault(s.place, what, remedy)
}

// section fills a struct from a mapping.
func (d *decoder) section(v reflect.Value, n *yaml.Node) {
	m := v.Addr().Interface().(marked)
	keys := keysOf(v.Type())
	if isNull(n) {
		return // as in "queue:" with everything below it commented out
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	if n.Kind != yaml.MappingNode {
		d.bad(m, "must be a mapping, not a "+kindName(n), "write KEY: VALUE with the keys "+strings.Join(names, ", "))
		return
	}
	d.pairs(m.state(), n, func(name, value *yaml.Node) {
		at := place{d.file, name.Line, name.Column, m.state().path}.sub(wordOf(name.Value))
		i := slices.Index(names, name.Value)
		if i < 0 {
			d.unknown(at, name.Value, names)
			return
		}
		d.value(v.FieldByIndex(keys[i].index), value, at.of(value), keys[i].tag)
	})
}

// of is the place for faults of a key's value: a scalar's own, that of the key for what goes on over several lines.
func (p place) of(value *yaml.Node) place {
	if value.Kind == yaml.ScalarNode && !isNull(value) {
		p.line, p.col = value.Line, value.Column
	}
	return p
}

// pairs calls do for each key of a mapping. Keys that come twice or are no plain words are reported here.
func (d *decoder) pairs(m *mark, n *yaml.Node, do func(name, value *yaml.Node)) {
	first := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at := place{d.file, k.Line, k.Column, m.path}
		switch {
		case k.Tag == "!!merge":
			d.fault(at.sub("<<"), "YAML merge keys are not supported", "write what devices have in common under defaults")
		case k.Kind != yaml.ScalarNode || k.Value == "":
			d.fault(at, "has a key that is no plain word", "write KEY: VALUE")
		case first[k.Value] != 0:
			d.fault(at.sub(wordOf(k.Value)), fmt.Sprintf("is written twice, first in line %d", first[k.Value]),
				"remove one of them")
		default:
			first[k.Value] = k.Line
			do(k, v)
		}
	}
}

// unknown reports a key that there is not.
func (d *decoder) unknown(at place, name string, known []string) {
	if wordOf(name) != name {
		d.fault(at, "unknown key",
			"put a space after the colon, as in KEY: VALUE; allowed here: "+strings.Join(known, ", "))
		return
	}
	d.fault(at, "unknown key", suggest(name, known, "allowed here: "))
}

var notWord = regexp.MustCompile(`[^A-Za-z0-9_.-].*`)

// wordOf is a key to show in a path: cut at the first character that no key has, since after a colon without a space
// the key goes on with its value, which may be a secret.
func wordOf(name string) string {
	return notWord.ReplaceAllString(name, "...")
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	}
	return "single value"
}

// list is a sequence of values of one kind.
type list[T any] struct {
	mark
	items []T
}

func (l *list[T]) load(d *decoder, n *yaml.Node, tag reflect.StructTag) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.bad(l, "must be a list, not a "+kindName(n), "write each item on a line of its own after a dash: - ITEM")
		return
	}
	l.items = make([]T, len(n.Content))
	for i, item := range n.Content {
		at := place{d.file, item.Line, item.Column, fmt.Sprintf("%s[%d]", l.path, i)}
		v := reflect.ValueOf(&l.items[i]).Elem()
		d.value(v, item, at, tag)
		if _, ok := v.Addr().Interface().(leaf); !ok {
			applyDefaults(v)
		}
	}
}

// table is a mapping from names of the user's choice.
type table[T any] struct {
	mark
	names []string // in the order of the file
	items map[string]*T
}

func (t *table[T]) load(d *decoder, n *yaml.Node, tag reflect.StructTag) {
	t.items = make(map[string]*T)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.bad(t, "must be a mapping, not a "+kindName(n), "write a name of your choice, a colon, and its keys below")
		return
	}
	d.pairs(&t.mark, n, func(name, value *yaml.Node) {
		at := place{d.file, name.Line, name.Column, t.path}
		if f := badName(name.Value); f != nil {
			d.fault(at.sub(wordOf(name.Value)), "the name "+f.what, f.remedy)
			return
		}
		item := new(T)
		d.value(reflect.ValueOf(item).Elem(), value, at.sub(name.Value).of(value), tag)
		applyDefaults(reflect.ValueOf(item).Elem())
		t.names = append(t.names, name.Value)
		t.items[name.Value] = item
	})
}

// applyDefaults gives every leaf below v that is not written the value of its default tag.
func applyDefaults(v reflect.Value) {
	for _, k := range keysOf(v.Type()) {
		field := v.FieldByIndex(k.index)
		switch m := field.Addr().Interface().(type) {
		case loader:
		case leaf:
			if text, ok := k.tag.Lookup("default"); ok && !m.state().given {
				// A test sets every default there is: it cannot be faulty.
				_ = m.set(text, k.tag)
			}
		default:
			applyDefaults(field)
		}
	}
}

// merge copies into the section dst what src has and dst has not.
func merge(dst, src reflect.Value) {
	for _, k := range keysOf(dst.Type()) {
		to, from := dst.FieldByIndex(k.index), src.FieldByIndex(k.index)
		switch m := to.Addr().Interface().(type) {
		case loader, leaf:
			if !m.(marked).state().given && from.Addr().Interface().(marked).state().given {
				to.Set(from)
			}
		default:
			merge(to, from)
		}
	}
}
