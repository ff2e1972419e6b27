package boltstore

func runMounted(mode, dir string) error { return nil }
