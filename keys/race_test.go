//go:build race

package keys

// slow is how much longer than usual the tests may take.
const slow = 20
