// Package pack tests what is installed: the service as systemd runs it, and the packages. It needs root.
package pack
