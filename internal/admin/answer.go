package admin

import (
	_ "embed"
	"encoding/json"
	"net/http"
)

// answer writes an answer as JSON.
func answer(w http.ResponseWriter, r *http.Request, body any) {
	write(w, r, http.StatusOK, "application/json", body)
}

// refuse writes a problem document (RFC 9457).
func refuse(w http.ResponseWriter, r *http.Request, f Fault) {
	f.Type, f.Title = "about:blank", http.StatusText(f.Status)
	write(w, r, f.Status, "application/problem+json", f)
}

func write(w http.ResponseWriter, r *http.Request, status int, kind string, body any) {
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_ = json.NewEncoder(w).Encode(body) // whoever asked may have gone
	}
}

func notFound(w http.ResponseWriter, r *http.Request) {
	refuse(w, r, Fault{
		Status: http.StatusNotFound, Detail: "there is nothing at " + r.URL.Path,
		Remedy: "GET /api/v1/openapi.yaml describes what there is",
	})
}

//go:embed openapi.yaml
var openAPIDocument []byte

func openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(openAPIDocument) // whoever asked may have gone
}

// readOnly lets through what changes nothing.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Content-Security-Policy", contentPolicy)
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			refuse(w, r, Fault{Status: http.StatusMethodNotAllowed, Detail: "only GET is known here"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// contentPolicy lets a page use what comes from here, and nothing else; no inline scripts or styles.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
