package config

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bridged/internal/credentials"
)

// eachKey calls f for every key of the configuration, once for each place where it may be written. The path has [] for
// an item of a list and <name> for a name of the user's choice.
func eachKey(t reflect.Type, path string, f func(path string, k key, field reflect.Type)) {
	for _, k := range keysOf(t) {
		field := t.FieldByIndex(k.index).Type
		p := strings.TrimPrefix(path+"."+k.name, ".")
		f(p, k, field)
		switch {
		case field == reflect.TypeFor[secret]():
			eachKey(reflect.TypeFor[secretKeys](), p, f)
		case reflect.PointerTo(field).Implements(reflect.TypeFor[leaf]()):
		case strings.HasPrefix(field.Name(), "list["):
			items, _ := field.FieldByName("items")
			eachItem(items.Type.Elem(), p+"[]", f)
		case strings.HasPrefix(field.Name(), "table["):
			items, _ := field.FieldByName("items")
			eachItem(items.Type.Elem().Elem(), p+".<name>", f)
		default:
			eachKey(field, p, f)
		}
	}
}

func eachItem(t reflect.Type, path string, f func(string, key, reflect.Type)) {
	if !reflect.PointerTo(t).Implements(reflect.TypeFor[leaf]()) {
		eachKey(t, path, f)
	}
}

// What a tag says must be sound: defaults that are accepted, ranges that are ranges, providers that there are.
func TestTags(t *testing.T) {
	seen := 0
	eachKey(reflect.TypeFor[fileKeys](), "", func(path string, k key, field reflect.Type) {
		seen++
		for p := range strings.FieldsSeq(k.tag.Get("provider")) {
			if p != ProviderPassThrough && !slices.Contains(credentials.Providers(), p) {
				t.Errorf("%s: unknown provider %s", path, p)
			}
		}
		l, ok := reflect.New(field).Interface().(leaf)
		for _, name := range []string{"default", "min", "max"} {
			value, given := k.tag.Lookup(name)
			switch {
			case given && !ok:
				t.Errorf("%s: %s is not for a section or list", path, name)
			case !given:
			default:
				if f := l.set(value, k.tag); f != nil {
					t.Errorf("%s: %s: %s; %s", path, name, f.what, f.remedy)
				}
			}
		}
	})
	if seen < 100 {
		t.Errorf("only %d keys", seen)
	}
}

// Every key says what it means: the reference is made from it.
func TestEveryKeyIsDocumented(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "keys.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	documented := 0
	ast.Inspect(file, func(n ast.Node) bool {
		s, ok := n.(*ast.StructType)
		if !ok {
			return true
		}
		group := false // keepalive_min and keepalive_max share a comment
		for _, f := range s.Fields.List {
			if f.Tag == nil {
				continue
			}
			documented++
			if f.Doc == nil && !group {
				t.Errorf("%s has no comment", f.Names[0])
			}
			group = f.Names[0].Name == "KeepaliveMin"
		}
		return true
	})
	if documented < 80 {
		t.Errorf("only %d keys", documented)
	}
}

// Whatever the key, a value of a wrong kind is a fault at its own path, and so are a key twice and an empty value of a
// scalar.
func TestWrongKinds(t *testing.T) {
	eachKey(reflect.TypeFor[fileKeys](), "", func(path string, k key, field reflect.Type) {
		kind := reflect.New(field).Interface()
		_, isLeaf := kind.(leaf)
		for _, wrong := range []struct {
			value   string
			applies bool
		}{
			{"[[x]]", true},
			{"!unknown x", true},
			{"just text", !isLeaf},
			{"~", isLeaf},
			{"{}", isLeaf && field != reflect.TypeFor[secret]()},
		} {
			if !wrong.applies {
				continue
			}
			yaml, at := atPath(path, wrong.value)
			_, err := parse("f.yaml", []byte(yaml), 0o600, fuzzEnv)
			if err == nil || !strings.Contains(err.Error(), ": "+at) {
				t.Errorf("%s: %s gives %v\nwant a fault at %s", path, yaml, err, at)
			}
		}
		yaml, at := atPath(path, "~")
		last := path[strings.LastIndex(path, ".")+1:]
		yaml = strings.Replace(yaml, last+": ~", last+": ~, "+last+": ~", 1)
		_, err := parse("f.yaml", []byte(yaml), 0o600, fuzzEnv)
		if err == nil || !strings.Contains(err.Error(), ": "+at+": is written twice") {
			t.Errorf("%s: %s gives %v", path, yaml, err)
		}
	})
}

// atPath makes a configuration with one value at a path, and says how a fault names the path.
func atPath(path, value string) (yaml, at string) {
	parts := strings.Split(path, ".")
	yaml = value
	for i := len(parts) - 1; i >= 0; i-- {
		name, isList := strings.CutSuffix(parts[i], "[]")
		if isList {
			yaml = "[" + yaml + "]"
		}
		if name == "<name>" {
			name = "x"
		}
		yaml = "{" + name + ": " + yaml + "}"
	}
	return yaml, strings.ReplaceAll(strings.ReplaceAll(path, "[]", "[0]"), "<name>", "x")
}
