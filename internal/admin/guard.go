package admin

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"bridged/internal/admin/page"
)

// Guard decides who may ask. The zero value lets in whoever asks for this machine itself.
//
// Without a token only requests to a loopback address or localhost are answered: a web page that has its own name
// resolve to 127.0.0.1 must not read what is here with the browser of somebody at the gateway. With a token that is no
// concern, since that page does not know it. /healthz is open to all, and so are the files of the status page, which
// tell nothing of this installation: it asks for the token.
type Guard struct {
	// Token is what a request has to bring, as "Authorization: Bearer TOKEN", or once as ?token=TOKEN, which gives a
	// browser a cookie. Empty: none.
	Token string
}

// cookieName is the cookie that stands for the token.
const cookieName = "bridged"

func (g *Guard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.Token == "" {
			if !local(r.Host) {
				forbid(w, r)
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		if given := r.URL.Query().Get("token"); given != "" && g.matches(given) {
			g.welcome(w, r)
			return
		}
		if !open(r.URL.Path) && !g.knows(r) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="bridged"`)
			readOnly(http.HandlerFunc(unauthorized)).ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// open says whether what is at a path is for everybody.
func open(path string) bool {
	return path == "/healthz" || path == "/" || strings.HasPrefix(path, page.Prefix)
}

func (g *Guard) knows(r *http.Request) bool {
	if given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return g.matches(given)
	}
	c, err := r.Cookie(cookieName)
	return err == nil && subtle.ConstantTimeCompare([]byte(c.Value), []byte(g.pass())) == 1
}

func (g *Guard) matches(given string) bool {
	x, y := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(g.Token)) // of the same length, whatever was given
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// pass is the cookie's value. It follows from the token, so that it outlives the process, and does not tell it.
func (g *Guard) pass() string {
	h := hmac.New(sha256.New, []byte(g.Token))
	h.Write([]byte("bridged status page"))
	return hex.EncodeToString(h.Sum(nil))
}

// welcome gives a browser the cookie and has it go on without the token in its address. A redirect would not do: a
// browser that followed a link to here would not send the strict cookie along with it.
func (g *Guard) welcome(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: g.pass(), Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	rest := r.URL.Query()
	rest.Del("token")
	to := url.URL{Path: "/" + strings.TrimLeft(r.URL.Path, "/"), RawQuery: rest.Encode()}
	readOnly(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Refresh", "0; url="+to.String())
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintln(w, "Welcome.") // whoever asked may have gone
	})).ServeHTTP(w, r)
}

func unauthorized(w http.ResponseWriter, r *http.Request) {
	refuse(w, r, Fault{
		Status: http.StatusUnauthorized, Detail: "a token is needed",
		Remedy: "send it as \"Authorization: Bearer TOKEN\", or open this address once in a browser with ?token=TOKEN; " +
			"it is admin.token in the configuration",
	})
}

func forbid(w http.ResponseWriter, r *http.Request) {
	readOnly(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, Fault{
			Status: http.StatusForbidden, Detail: "without a token only requests to localhost or 127.0.0.1 are answered",
			Remedy: "ask for http://127.0.0.1, or set admin.token",
		})
	})).ServeHTTP(w, r)
}

// local says whether a request's Host is this machine itself.
func local(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.IsLoopback()
}
