// Package page is the status page: plain HTML, CSS and JavaScript modules, which are part of the binary. It needs no
// network and no build step.
//
// The page shows what package admin's API tells, and gets it like everybody else: /api/v1/status, /api/v1/devices,
// /api/v1/devices/NAME, and /api/v1/events for what changes. The files themselves tell nothing of the installation, so
// that they may be read without a token; the page asks for it when the API does.
//
// What devices and clouds say gets into the document as text only, never as HTML, and a strict content security policy
// forbids scripts and styles that are not files of this package.
package page

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
)

// Prefix is where the files are, but for the page itself, which is at "/".
const Prefix = "/page/"

//go:embed static
var static embed.FS

type file struct {
	body []byte
	kind string
	tag  string // changes with the body
}

// Handler answers with the page at "/", with its files below Prefix, and elsewhere with 404.
func Handler() http.Handler {
	files := make(map[string]file)
	entries, err := fs.ReadDir(static, "static")
	if err != nil {
		panic(err) // it was compiled in
	}
	for _, e := range entries {
		body, err := static.ReadFile(path.Join("static", e.Name()))
		if err != nil {
			panic(err) // as above
		}
		at := Prefix + e.Name()
		if e.Name() == "index.html" {
			at = "/"
		}
		files[at] = newFile(e.Name(), body)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files[r.URL.Path]
		if !ok {
			http.Error(w, "There is nothing here. The status page is at /.", http.StatusNotFound)
			return
		}
		h := w.Header()
		h.Set("Cache-Control", "no-cache") // asks each time, and gets the file only when it is another one
		h.Set("ETag", f.tag)
		h.Set("Content-Type", f.kind)
		if r.Header.Get("If-None-Match") == f.tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Length", fmt.Sprint(len(f.body)))
		if r.Method != http.MethodHead {
			_, _ = w.Write(f.body) // whoever asked may have gone
		}
	})
}

// kinds has what the operating system's tables may have wrong, or not at all.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

func newFile(name string, body []byte) file {
	sum := sha256.Sum256(body)
	kind := kinds[path.Ext(name)]
	if kind == "" {
		kind = mime.TypeByExtension(path.Ext(name))
	}
	return file{body: body, kind: kind, tag: `"` + hex.EncodeToString(sum[:8]) + `"`}
}
