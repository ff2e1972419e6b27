package boltstore

const childMode = "BOLTSTORE_TEST_CHILD"

func child(mode string, args []string) int { return 2 }
