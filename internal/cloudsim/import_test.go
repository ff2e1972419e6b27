package cloudsim

import (
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// What this package shared with the code it is to test, both would get wrong together.
func TestImports(t *testing.T) {
	allowed := map[string]bool{"bridged/internal/mqtt": true}
	files := value(os.ReadDir("."))(t)
	checked := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") {
			continue
		}
		parsed := value(parser.ParseFile(token.NewFileSet(), f.Name(), nil, parser.ImportsOnly))(t)
		for _, i := range parsed.Imports {
			path := value(strconv.Unquote(i.Path.Value))(t)
			if strings.HasPrefix(path, "bridged/") && !allowed[path] {
				t.Errorf("%s imports %s", f.Name(), path)
			}
			checked++
		}
	}
	if checked == 0 {
		t.Error("found no import")
	}
}
