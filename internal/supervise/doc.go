// Package supervise stands between the relay and whoever runs it, a service manager such as systemd. It tells when the relay has come up,
// what it does, and that it still does it, as sd_notify(3) has it; and it lets one new configuration after the other through.
package supervise
