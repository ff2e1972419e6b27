// Package clock is the gateway's idea of the time. A gateway may boot in 1970, or go by a clock that nobody sets, while
// signatures and certificates depend on the time.
//
// A Clock starts from the system clock and what the kernel says of it, and learns from the Date headers of clouds and
// proxies (Observe). Now is the system's time, or a corrected one if there is good reason to believe that the system
// clock is off by more than a minute. It never changes the system clock.
//
// # What is plainly wrong
//
// Time before this program was built, or twenty years after, is plainly wrong: a state of its own, in which a refused
// login or certificate says nothing about the login or the certificate. A clock that is merely not synchronised is
// normal where NTP is not allowed; that is told and stops nothing.
//
// # Whom to believe
//
// A Date that came over TLS, from a host whose certificate was verified, is authentic: it has that host's word. A Date
// that came in the clear is anybody's on the way; a proxy or cache may make one up, too. No Date is accepted from
// before the build, from twenty years after, from a time at which the host's own certificate is not valid, from a
// cache, or after a round trip so long that it says little.
//
//	the system clock is                 one authentic source   two authentic that agree   plain, twice the same
//	synchronised, by the kernel's word  told only              corrects                   ignored
//	not synchronised, or not known      corrects               corrects                   corrects
//	plainly wrong                       corrects               corrects                   corrects
//
// Plain sources are heard only while there is no authentic one. With several sources the median counts; of an even
// number the one of the middle two that is closer to the system clock. A correction starts at more than a minute, ends
// at less than half of that, and does not follow changes of less than two seconds.
//
// What remains is this. Somebody who can change what a plain ws connection carries can have a device sign with an
// expiry years ahead, and use that signature until then; on such a connection he can use each signature for its normal
// hour anyway. He cannot if the kernel says that the clock is synchronised, or once the Date of
// a cloud has come by wss. Who minds uses wss, or NTP.
//
// When the system clock is set (the wall clock moves against the monotonic one), whoever did that is believed:
// corrections and what was observed before are dropped. A machine that was suspended looks the same.
//
// # Certificates at a wrong time
//
// With a clock in 1970 no certificate is valid, so there is no TLS connection that could bring an authentic Date. See
// VerifyTime for the way out and its price.
//
// # Concurrency
//
// All methods are safe for concurrent use. None blocks beyond asking the kernel.
package clock
