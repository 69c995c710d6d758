//go:build race

package detect

// streamed is how much the memory test sends; the race detector is slow.
const streamed = 10 << 20
