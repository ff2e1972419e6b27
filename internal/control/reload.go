package control

// Reloaded is the answer to a reload that was done.
type Reloaded struct {
	// Config is the file that was read.
	Config  string     `json:"config"`
	Devices Difference `json:"devices"`
	Clouds  Difference `json:"clouds"`
	// NeedsRestart are keys that have changed and are only looked at when bridged starts.
	NeedsRestart []string `json:"needs_restart"`
	// Kept is what is stored for devices that were removed.
	Kept     []Kept   `json:"kept"`
	Warnings []string `json:"warnings"`
}

// Difference is what has become of devices or clouds, by name.
type Difference struct {
	Added     []string `json:"added"`
	Removed   []string `json:"removed"`
	Changed   []string `json:"changed"`
	Unchanged int      `json:"unchanged"`
}

// Kept is how many messages are kept for a device that is not configured any more.
type Kept struct {
	Device string `json:"device"`
	Up     int    `json:"up"`
	Down   int    `json:"down"`
}

// Refusal is the answer to a reload that was not done: nothing has changed.
type Refusal struct {
	// Reasons are the faults of the configuration, or else one sentence.
	Reasons []string `json:"errors"`
	Hint    string   `json:"hint,omitempty"`
	// Config says that it is the configuration that is wrong.
	Config bool `json:"configuration"`
}

// Error is the first reason.
func (r *Refusal) Error() string {
	if len(r.Reasons) == 0 {
		return "refused"
	}
	return r.Reasons[0]
}
