package bed

import (
	"fmt"
	"net"
	"testing"
)

// TestFreePort: a port belongs to one test until its end, though nobody listens
// on it, and the system gives it to nobody who asks for any port.
func TestFreePort(t *testing.T) {
	taken := make(map[int]bool)
	var first int
	t.Run("claimed", func(t *testing.T) {
		for range 200 {
			port := FreePort(t)
			if taken[port] {
				t.Fatalf("port %d was given twice", port)
			}
			taken[port] = true
			if first == 0 {
				first = port
			}
			if port >= ephemeralPort(t) {
				t.Errorf("port %d is among those of connections, from %d on", port, ephemeralPort(t))
			}
		}
		if ln, err := net.Listen("unix", claimName(first)); err == nil {
			ln.Close()
			t.Errorf("port %d could be claimed by another process", first)
		}
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first))
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
	})
	ln, err := net.Listen("unix", claimName(first))
	if err != nil {
		t.Fatalf("port %d is claimed beyond the end of its test: %v", first, err)
	}
	ln.Close()
}
