// Package enroll makes configuration out of the lists of devices that vendors' consoles export: a YAML file for each
// device, and a file for each secret.
//
// Write takes all or nothing: every file is written beside its place first, and synced. Then the files of secrets
// take their places, and at last those of the devices, so that whoever reads the configuration meanwhile finds no
// device without its secret. If one cannot, those that did are taken back; only what they replaced, which has to be
// asked for, is gone. Nothing here starts goroutines; two processes that write the same files at once do not
// overwrite each other's.
package enroll
