// Package reference writes the reference of the configuration for people, from the comments and tags of the source file
// that defines its keys, config/keys.go.
//
// It is for generating documentation; the program does not contain it.
package reference

import (
	"bytes"
	_ "embed" // for the beginning of the document
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
)

// key is a field of one of the structs.
type key struct {
	name string
	kind string // the type as the source has it
	text string
	tag  reflect.StructTag
}

// section is a struct.
type section struct {
	text string
	keys []key // those of embedded structs in their place
}

// part says where a struct stands in the document, and in the configuration.
type part struct {
	keys  string // the struct's name
	title string
	intro string
}

// parts are all structs in the order of the document. What an intro says is no key's business.
var parts = []part{
	{"fileKeys", "The file", "What stands at the left margin."},
	{"listenKeys", "`listen`", "A list: each entry is an address where devices connect."},
	{"logKeys", "`log`", "bridged logs to standard error, which systemd keeps in the journal."},
	{"adminKeys", "`admin`", "Status page, API, metrics and health: `http://127.0.0.1:9883` on the gateway itself."},
	{"limitKeys", "`limits`", ""},
	{"queueKeys", "`queue`", "Each device has two queues, one towards its cloud and one towards itself."},
	{"cloudKeys", "`clouds`", "Below `clouds:` stand names of your choice, and below each of them these keys."},
	{"tlsKeys", "`tls` of a cloud", ""},
	{"cloudLimitKeys", "`limits` of a cloud", "The defaults are the provider's."},
	{"deviceKeys", "`devices`", "A list: each entry is a device. The keys from `cloud` to `topics` may stand below " +
		"`defaults:` as well, where they hold for all devices that do not say otherwise."},
	{"loginKeys", "`login` of a device", "How a device is recognised when it connects to the gateway. Without a " +
		"password whoever says its client id is let in: there should be one, or `allow_from`."},
	{"subscribeKeys", "`subscribe` of a device", "A list."},
	{"topicKeys", "`topics` of a device", "A list."},
	{"secretKeys", "Secrets", "Wherever a secret is expected there may be the secret itself, in quotation marks, " +
		"or one of these keys. A configuration file with a secret in it must be readable by its owner only."},
}

//go:embed head.md
var head string

// Configuration returns the reference as Markdown. source is the text of keys.go.
func Configuration(source []byte) ([]byte, error) {
	sections, err := parse(source)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(head)
	for _, p := range parts {
		s, ok := sections[p.keys]
		if !ok {
			return nil, fmt.Errorf("there is no struct %s", p.keys)
		}
		delete(sections, p.keys)
		fmt.Fprintf(&b, "\n## %s\n", p.title)
		for _, text := range []string{p.intro, s.text} {
			if text != "" {
				fmt.Fprintf(&b, "\n%s\n", text)
			}
		}
		b.WriteString("\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n")
		for _, k := range s.keys {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.name, k.value(), k.defaults(), k.meaning())
		}
	}
	delete(sections, "sharedKeys") // is part of deviceKeys
	for name := range sections {
		return nil, fmt.Errorf("the struct %s has no place in the document", name)
	}
	return b.Bytes(), nil
}

// kinds says what the types are called.
var kinds = map[string]string{
	"text": "text", "number": "number", "boolean": "`true` or `false`", "duration": "duration", "size": "size",
	"rate": "rate", "secret": "secret", "proxy": "text", "list[text]": "list of texts",
	"table[secret]": "names with secrets",
}

func (k key) value() string {
	if words := strings.Fields(k.tag.Get("oneof")); len(words) > 0 {
		return "`" + strings.Join(words, "`, `") + "`"
	}
	v, ok := kinds[k.kind]
	switch {
	case strings.HasPrefix(k.kind, "list[") && !ok:
		return "list of sections"
	case strings.HasPrefix(k.kind, "table[") && !ok:
		return "named sections"
	case !ok:
		return "section"
	}
	low, high := k.tag.Get("min"), k.tag.Get("max")
	switch {
	case low != "" && high != "":
		v += fmt.Sprintf(", `%s` to `%s`", low, high)
	case low != "":
		v += fmt.Sprintf(", `%s` or more", low)
	case high != "":
		v += fmt.Sprintf(", `%s` at most", high)
	}
	return v
}

func (k key) defaults() string {
	if d := k.tag.Get("default"); d != "" {
		return "`" + d + "`"
	}
	return ""
}

func (k key) meaning() string {
	text := strings.NewReplacer("|", `\|`, "<", `\<`, "*", `\*`).Replace(k.text)
	if p := k.tag.Get("provider"); p != "" {
		text += " *Only " + strings.Join(strings.Fields(p), ", ") + ".*"
	}
	return text
}

// parse finds the structs.
func parse(source []byte) (map[string]section, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "keys.go", source, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	structs, texts := make(map[string]*ast.StructType), make(map[string]string)
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range decl.Specs {
			if t, ok := s.(*ast.TypeSpec); ok {
				if st, ok := t.Type.(*ast.StructType); ok {
					structs[t.Name.Name] = st
					texts[t.Name.Name] = aboutStruct(t.Name.Name, decl.Doc.Text())
				}
			}
		}
	}
	sections := make(map[string]section)
	for name, st := range structs {
		sections[name] = section{text: texts[name], keys: keysOf(st, structs)}
	}
	return sections, nil
}

// aboutStruct is what a struct's comment says after its first sentence, which is about the struct as Go has it.
func aboutStruct(name, doc string) string {
	doc = oneLine(doc)
	if !strings.HasPrefix(doc, name) {
		return ""
	}
	_, rest, _ := strings.Cut(doc, ". ")
	return rest
}

func keysOf(st *ast.StructType, structs map[string]*ast.StructType) (keys []key) {
	text := ""
	for _, f := range st.Fields.List {
		if len(f.Names) == 0 { // embedded
			if id, ok := f.Type.(*ast.Ident); ok && structs[id.Name] != nil {
				keys = append(keys, keysOf(structs[id.Name], structs)...)
			}
			continue
		}
		if f.Tag == nil {
			continue
		}
		if f.Doc != nil { // a comment counts for the fields below it that have none
			text = oneLine(f.Doc.Text())
		}
		tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
		keys = append(keys, key{name: tag.Get("yaml"), kind: typeName(f.Type), text: text, tag: tag})
	}
	return keys
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func typeName(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.Ident:
		return t.Name
	case *ast.IndexExpr:
		return typeName(t.X) + "[" + typeName(t.Index) + "]"
	}
	return ""
}
