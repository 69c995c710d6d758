//go:build !race

package detect

// streamed is how much the memory test sends.
const streamed = 100 << 20
