package reinject

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"sealmilter/testdata/bed"
)

// armored is a body of lines as armor and base64 have them.
func armored(size int) []byte {
	line := []byte(strings.Repeat("Ab3/", 19) + "\r\n")
	return bytes.Repeat(line, size/len(line)+1)
}

// writeBody writes a message in the pieces in which it comes from the spool.
func writeBody(w io.Writer, body []byte) error {
	for len(body) > 0 {
		n := min(len(body), 48<<10)
		if _, err := w.Write(body[:n]); err != nil {
			return err
		}
		body = body[n:]
	}
	return nil
}

// BenchmarkSend: this package, go-smtp's own writer, and nothing but the socket,
// each to the same sink, which reads and forgets. "go test -bench Send".
func BenchmarkSend(b *testing.B) {
	body := armored(70 << 20)
	for _, network := range []string{"tcp", "unix"} {
		addr := "127.0.0.1:0"
		if network == "unix" {
			addr = filepath.Join(bed.Dir(b), "sink")
		}
		ln := sink(b, network, addr)
		target := Target{Address: ln.Addr().String()}
		if network == "unix" {
			target.Address = "unix:" + addr
		}
		b.Run(network+"/reinject", func(b *testing.B) {
			s, err := target.Dial(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				_, err := s.Send(context.Background(), Message{
					To: []Recipient{{Address: "b@bed.test"}}, Size: int64(len(body)),
					Write: func(w io.Writer) error { return writeBody(w, body) },
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(network+"/go-smtp", func(b *testing.B) { benchmarkLibrary(b, ln.Addr(), body) })
		b.Run(network+"/socket", func(b *testing.B) { benchmarkSocket(b, ln.Addr(), body) })
	}
}

func benchmarkLibrary(b *testing.B, addr net.Addr, body []byte) {
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	c := smtp.NewClient(conn)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if err := c.SendMail("a@bed.test", []string{"b@bed.test"}, bytes.NewReader(body)); err != nil {
			b.Fatal(err)
		}
	}
}

func benchmarkSocket(b *testing.B, addr net.Addr, body []byte) {
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	in.ReadString('\n')
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		io.WriteString(conn, "RAW\r\n")
		in.ReadString('\n')
		// No WriterTo, so that io.Copy has a buffer as everywhere.
		if _, err := io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{bytes.NewReader(body)}, make([]byte, 256<<10)); err != nil {
			b.Fatal(err)
		}
		io.WriteString(conn, ".\r\n")
		if _, err := in.ReadString('\n'); err != nil {
			b.Fatal(err)
		}
	}
}
