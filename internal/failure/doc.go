// Package failure says what can go wrong between the gateway and a cloud.
//
// Everything that keeps a device offline has a Kind, and one table tells all about it: its class, how soon to try
// again, a sentence for a person, what usually causes it, and what to do. The workers, the logs, the metrics' labels,
// the status page and the commands that explain a failure use that table, so that they cannot disagree.
//
// A Failure is one such event, as an error. Neither it nor the table ever holds a secret: whoever makes a Failure keeps
// credentials out of its Detail and its Err. What the other side said goes through Clean before it becomes part of one.
//
// Everything here is a value, or a table that is never written; all of it is safe for concurrent use.
package failure

//go:generate go run ./gendoc
