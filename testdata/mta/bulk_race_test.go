//go:build race

package mta_test

// The race detector makes the test slow, but not the daemon.
const raceDetector = true
