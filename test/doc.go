// Package test is the black box: it runs the real binary against real servers, takes links and processes away from it,
// kills it, fills its disk, and counts what arrives.
package test
