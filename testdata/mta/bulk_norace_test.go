//go:build !race

package mta_test

const raceDetector = false
