package cli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"

	"bridged/internal/config"
)

// What run serves has the status page.
func TestStatusPage(t *testing.T) {
	w := httptest.NewRecorder()
	h := newAdmin(config.Admin{}, nil, zap.NewNop()).Handler()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "<title>bridged</title>") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
