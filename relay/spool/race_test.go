//go:build race

package spool

// The race detector makes the long tests five times as slow, and all but TestStorm are not about races.
func init() { testScale = 8 }
