//go:build race

package hostile_test

// slow is how much longer than usual the tests may take.
const slow = 5
