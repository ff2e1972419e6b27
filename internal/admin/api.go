package admin

import "time"

// Status is the answer of /api/v1/status: the fleet at a glance.
type Status struct {
	At            time.Time `json:"at"`
	Version       string    `json:"version"`
	Revision      string    `json:"revision,omitempty"`
	StartedAt     time.Time `json:"started_at"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	Ready         bool      `json:"ready"`
	// NotReady is why not.
	NotReady []string      `json:"not_ready"`
	Listen   []string      `json:"listen"`
	Devices  DeviceCounts  `json:"devices"`
	Clouds   []CloudStatus `json:"clouds"`
	// Problems are what keeps devices offline now, the most important first.
	Problems  []Problem   `json:"problems"`
	Up        Flow        `json:"up"`
	Down      Flow        `json:"down"`
	Spool     Spool       `json:"spool"`
	Memory    Memory      `json:"memory"`
	Local     Connections `json:"local"`
	Dials     Dials       `json:"dials"`
	Clock     Clock       `json:"clock"`
	Leftovers []Leftover  `json:"leftovers"`
	// RateWindowSeconds is over how long the messages per second are averaged.
	RateWindowSeconds float64 `json:"rate_window_seconds"`
}

// DeviceCounts counts devices.
type DeviceCounts struct {
	Total int `json:"total"`
	// Connected are those that are connected on the LAN.
	Connected int `json:"connected"`
	// Failing are those whose last attempt or session failed and that have no session.
	Failing int `json:"failing"`
	// Alarm are the failing ones that a person has to look at.
	Alarm int `json:"alarm"`
	// ByState has every state.
	ByState map[string]int `json:"by_state"`
}

// CloudStatus is how a cloud is.
type CloudStatus struct {
	Name                 string       `json:"name"`
	Provider             string       `json:"provider"`
	Endpoint             string       `json:"endpoint"`
	Devices              DeviceCounts `json:"devices"`
	CertificateExpiresAt *time.Time   `json:"certificate_expires_at,omitempty"`
}

// Problem is what keeps devices of a cloud offline.
type Problem struct {
	Cloud   string   `json:"cloud"`
	Kind    string   `json:"kind"`
	Class   string   `json:"class"`
	Alarm   bool     `json:"alarm"`
	Says    string   `json:"says"`
	Causes  []string `json:"causes"`
	Remedy  string   `json:"remedy"`
	Devices int      `json:"devices"`
	// Device is one of them.
	Device string `json:"device"`
}

// Flow is what a device, or all of them, have sent in one direction and what became of it: accepted = delivered +
// queued + dropped, at every moment.
type Flow struct {
	AcceptedMessages           uint64  `json:"accepted_messages_total"`
	DeliveredMessages          uint64  `json:"delivered_messages_total"`
	DroppedMessages            uint64  `json:"dropped_messages_total"`
	QueuedMessages             int     `json:"queued_messages"`
	QueuedBytes                int64   `json:"queued_bytes"`
	StoredMessages             int     `json:"stored_messages"`
	OldestAgeSeconds           float64 `json:"oldest_age_seconds"`
	AcceptedMessagesPerSecond  float64 `json:"accepted_messages_per_second"`
	DeliveredMessagesPerSecond float64 `json:"delivered_messages_per_second"`
}

// Spool is how storing on disk goes.
type Spool struct {
	Bytes      int64       `json:"bytes"`
	LimitBytes int64       `json:"limit_bytes"`
	Commits    uint64      `json:"commits_total"`
	Messages   uint64      `json:"stored_messages_total"`
	Fault      *SpoolFault `json:"fault,omitempty"`
}

// SpoolFault is why messages cannot be stored.
type SpoolFault struct {
	Since  time.Time `json:"since"`
	Error  string    `json:"error"`
	Remedy string    `json:"remedy"`
}

// Memory is what all queues hold in memory.
type Memory struct {
	UsedBytes  int64 `json:"used_bytes"`
	LimitBytes int64 `json:"limit_bytes"`
}

// Connections are those on the LAN.
type Connections struct {
	Open          int    `json:"open_connections"`
	Limit         int    `json:"limit_connections"`
	RefusedLogins uint64 `json:"refused_logins_total"`
	TurnedAway    uint64 `json:"turned_away_connections_total"`
}

// Dials are attempts to connect to clouds.
type Dials struct {
	Waiting int `json:"waiting"`
	Open    int `json:"open"`
}

// Clock is how the clock is.
type Clock struct {
	State         string    `json:"state"`
	SystemTime    time.Time `json:"system_time"`
	UsedTime      time.Time `json:"used_time"`
	OffsetSeconds float64   `json:"offset_seconds"`
	Source        string    `json:"source,omitempty"`
	Reason        string    `json:"reason"`
	Remedy        string    `json:"remedy,omitempty"`
	Sets          uint64    `json:"sets_total"`
}

// Leftover is what is kept of a device that is not configured.
type Leftover struct {
	Device       string `json:"device"`
	UpMessages   int    `json:"up_messages"`
	DownMessages int    `json:"down_messages"`
}

// DeviceList is the answer of /api/v1/devices.
type DeviceList struct {
	At time.Time `json:"at"`
	// Total is how many devices there are, Matching how many of them the filter lets through.
	Total    int             `json:"total"`
	Matching int             `json:"matching"`
	Limit    int             `json:"limit"`
	Offset   int             `json:"offset"`
	Devices  []DeviceSummary `json:"devices"`
}

// DeviceSummary is a device in a list.
type DeviceSummary struct {
	Name  string `json:"name"`
	Cloud string `json:"cloud"`
	// Guest says that it is not configured by itself: it signs for its cloud itself.
	Guest  bool      `json:"guest"`
	State  string    `json:"state"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
	// Connected says whether it is connected on the LAN.
	Connected bool `json:"connected"`
	// OfflineSince is since when it should have a session and has none, because of failures.
	OfflineSince *time.Time `json:"offline_since,omitempty"`
	// Failure is what keeps it offline now.
	Failure       *FailureSummary `json:"failure,omitempty"`
	NextAttemptAt *time.Time      `json:"next_attempt_at,omitempty"`
	Up            Flow            `json:"up"`
	Down          Flow            `json:"down"`
}

// FailureSummary is what keeps a device offline.
type FailureSummary struct {
	Kind  string `json:"kind"`
	Class string `json:"class"`
	// Alarm says that a person has to look at it.
	Alarm  bool   `json:"alarm"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy"`
}

// Device is the answer of /api/v1/devices/NAME.
type Device struct {
	DeviceSummary
	At time.Time `json:"at"`
	// Failures is how many attempts and sessions have failed in a row.
	Failures int    `json:"failures_in_a_row"`
	Connects uint64 `json:"connects_total"`
	// LastFailure is the latest one, although the device may be online again.
	LastFailure   *Failure       `json:"last_failure,omitempty"`
	Timeline      []Change       `json:"timeline"` // oldest first
	UpLedger      Ledger         `json:"up_ledger"`
	DownLedger    Ledger         `json:"down_ledger"`
	Queue         Queue          `json:"queue"`
	Subscriptions []Subscription `json:"subscriptions"`
	// SubscriptionsTotal is how many there are; the list has its bound.
	SubscriptionsTotal int `json:"subscriptions_total"`
	// LateRefusals counts subscriptions that the device believes to be granted, and the cloud refused.
	LateRefusals uint64 `json:"late_refusals_total"`
	// Lowered and Stripped count messages that lost QoS or the retain flag because the cloud does not take it,
	// PropertiesStripped those that lost MQTT 5 properties.
	Lowered            uint64       `json:"lowered_messages_total"`
	Stripped           uint64       `json:"stripped_messages_total"`
	PropertiesStripped uint64       `json:"properties_stripped_messages_total"`
	Local              Local        `json:"local"`
	Certificates       Certificates `json:"certificates"`
}

// Failure is why an attempt failed or a session ended.
type Failure struct {
	At    time.Time `json:"at"`
	Kind  string    `json:"kind"`
	Class string    `json:"class"`
	Stage string    `json:"stage"`
	Alarm bool      `json:"alarm"`
	// Reason is a sentence, Error the same with the cause.
	Reason string   `json:"reason"`
	Error  string   `json:"error"`
	Causes []string `json:"causes"`
	Remedy string   `json:"remedy"`
}

// Change is an entry of a device's time line.
type Change struct {
	At     time.Time `json:"at"`
	State  string    `json:"state"`
	Reason string    `json:"reason"`
	// Seconds is how long that lasted, or has lasted so far.
	Seconds float64 `json:"duration_seconds"`
	// Times is how many attempts in a row have failed for this reason; the entry stands for all of them.
	Times int `json:"times,omitempty"`
}

// Ledger is all that is known of one direction, beyond Flow.
type Ledger struct {
	AcceptedMessages  uint64            `json:"accepted_messages_total"`
	DeliveredMessages uint64            `json:"delivered_messages_total"`
	DroppedMessages   uint64            `json:"dropped_messages_total"`
	DroppedByReason   map[string]uint64 `json:"dropped_messages_total_by_reason"`
	LastDroppedReason string            `json:"last_dropped_reason,omitempty"`
	QueuedMessages    int               `json:"queued_messages"`
	QueuedBytes       int64             `json:"queued_bytes"`
	InFlightMessages  int               `json:"in_flight_messages"`
	StoredMessages    int               `json:"stored_messages"`
	StoredBytes       int64             `json:"stored_bytes"`
	OldestAgeSeconds  float64           `json:"oldest_age_seconds"`
}

// Queue are the bounds of each of a device's queues.
type Queue struct {
	LimitMessages int   `json:"limit_messages"`
	LimitBytes    int64 `json:"limit_bytes"`
	// LimitAgeSeconds is 0 for no limit.
	LimitAgeSeconds float64 `json:"limit_age_seconds"`
	OnFull          string  `json:"on_full"`
}

// Subscription is one of the cloud's filters.
type Subscription struct {
	Filter string `json:"filter"`
	// DeviceFilters are the device's own filters that stand for it.
	DeviceFilters []string `json:"device_filters"`
	Configured    bool     `json:"configured"`
	QoS           int      `json:"qos"`
	Verdict       string   `json:"verdict"` // granted, refused, pending, leaving
	GrantedQoS    *int     `json:"granted_qos,omitempty"`
}

// Local is how a device is on the LAN.
type Local struct {
	Connected     bool       `json:"connected"`
	Since         *time.Time `json:"since,omitempty"`
	RemoteAddress string     `json:"remote_address,omitempty"`
	Protocol      string     `json:"protocol,omitempty"` // 3.1, 3.1.1 or 5
}

// Certificates are when the ones that concern a device expire.
type Certificates struct {
	CloudExpiresAt  *time.Time `json:"cloud_expires_at,omitempty"`
	ClientExpiresAt *time.Time `json:"client_expires_at,omitempty"`
}

// Changed is what the event "devices" carries.
type Changed struct {
	At      time.Time       `json:"at"`
	Changed []DeviceSummary `json:"changed"`
	Removed []string        `json:"removed"`
	// More is how many others have changed and come with the next event.
	More int `json:"more"`
}

// Fault is the answer where there is no other, as RFC 9457 has it.
type Fault struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
	// Reasons are why bridged is not ready.
	Reasons []string `json:"reasons,omitempty"`
}

// Health is the answer of /healthz and /readyz if all is well.
type Health struct {
	Status string `json:"status"`
}
