package admin

import "net/http"

func (a *Admin) metrics() http.Handler { return http.NotFoundHandler() }
