package page

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ask(method, path string, with func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, http.NoBody)
	if with != nil {
		with(r)
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w
}

func TestHandler(t *testing.T) {
	for path, want := range map[string]struct {
		status int
		kind   string
	}{
		"/":                {200, "text/html; charset=utf-8"},
		"/page/main.js":    {200, "text/javascript; charset=utf-8"},
		"/page/style.css":  {200, "text/css; charset=utf-8"},
		"/page/icon.svg":   {200, "image/svg+xml"},
		"/page/":           {404, "text/plain; charset=utf-8"},
		"/page/index.html": {404, "text/plain; charset=utf-8"},
		"/page/none.js":    {404, "text/plain; charset=utf-8"},
		"/page/../page.go": {404, "text/plain; charset=utf-8"},
		"/favicon.ico":     {404, "text/plain; charset=utf-8"},
		"/devices/x":       {404, "text/plain; charset=utf-8"},
	} {
		w := ask(http.MethodGet, path, nil)
		if w.Code != want.status || w.Header().Get("Content-Type") != want.kind {
			t.Errorf("%s: %d %s, want %d %s", path, w.Code, w.Header().Get("Content-Type"), want.status, want.kind)
		}
		if w.Body.Len() == 0 {
			t.Errorf("%s: an empty answer", path)
		}
	}
}

// A browser that has a file is not sent it again.
func TestNotModified(t *testing.T) {
	w := ask(http.MethodGet, "/page/main.js", nil)
	tag := w.Header().Get("ETag")
	if tag == "" || tag == ask(http.MethodGet, "/page/live.js", nil).Header().Get("ETag") {
		t.Fatalf("the tag %q does not tell files apart", tag)
	}
	given := func(tag string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("If-None-Match", tag) }
	}
	if w := ask(http.MethodGet, "/page/main.js", given(tag)); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
		t.Errorf("%d, %d bytes", w.Code, w.Body.Len())
	}
	if w := ask(http.MethodGet, "/page/main.js", given(`"other"`)); w.Code != http.StatusOK {
		t.Errorf("%d", w.Code)
	}
	if w := ask(http.MethodHead, "/page/main.js", nil); w.Code != http.StatusOK || w.Body.Len() > 0 {
		t.Errorf("HEAD: %d, %d bytes", w.Code, w.Body.Len())
	}
}

// What the content security policy forbids, and what would need the network or make markup of names, is not in the
// files at all.
func TestFiles(t *testing.T) {
	forbidden := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|` +
		`\sstyle=|\son[a-z]+=|javascript:|<script>|<style|@import|url\(|localStorage`)
	address := regexp.MustCompile(`https?://[^\s"'<]*`)
	entries, err := fs.ReadDir(static, "static")
	if err != nil || len(entries) < 10 {
		t.Fatal(len(entries), err)
	}
	for _, e := range entries {
		body, err := fs.ReadFile(static, "static/"+e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if found := forbidden.FindString(string(body)); found != "" {
			t.Errorf("%s has %q", e.Name(), found)
		}
		for _, a := range address.FindAllString(string(body), -1) {
			if !strings.HasPrefix(a, "http://www.w3.org/") { // the name of a namespace
				t.Errorf("%s has the address %s", e.Name(), a)
			}
		}
	}
}
