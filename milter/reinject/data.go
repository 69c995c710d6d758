package reinject

import "bytes"

// dataWriter writes a message as DATA wants it: a dot that begins a line is
// doubled (RFC 5321, section 4.5.2). It looks for dots, of which armor and
// base64 have none, so that such a body is copied as it is.
type dataWriter struct {
	conn  *conn
	buf   []byte  // at most writeSize bytes and a dot, or the end of the data
	tail  [2]byte // the last two bytes that were written
	count int64   // without the doubled dots
	err   error   // the first one: after it, there is no end of the data
}

// newDataWriter begins a message at the begin of a line, in a buffer that may
// have served for another.
func newDataWriter(c *conn, buf []byte) *dataWriter {
	return &dataWriter{conn: c, buf: buf[:0], tail: [2]byte{'\r', '\n'}}
}

// Write takes LF for the end of a line, whether CR stands before it or not, as
// lenient servers do: they take the dot behind it off again.
func (w *dataWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), writeSize-len(w.buf))
		dot := bytes.IndexByte(rest[:n], '.')
		if dot >= 0 {
			n = dot + 1
		}
		w.buf = append(w.buf, rest[:n]...)
		if dot == 0 && w.tail[1] == '\n' || dot > 0 && rest[dot-1] == '\n' {
			w.buf = append(w.buf, '.')
		}
		w.note(rest[:n])
		rest = rest[n:]
		if len(w.buf) >= writeSize {
			w.flush()
		}
		if w.err != nil {
			return 0, w.err
		}
	}
	return len(p), nil
}

// note remembers how the message ends so far.
func (w *dataWriter) note(p []byte) {
	w.count += int64(len(p))
	if len(p) > 1 {
		w.tail[0] = p[len(p)-2]
	} else {
		w.tail[0] = w.tail[1]
	}
	w.tail[1] = p[len(p)-1]
}

func (w *dataWriter) flush() {
	if w.err == nil {
		w.err = w.conn.writeData(w.buf)
	}
	w.buf = w.buf[:0]
}

// end writes the end of the data, and the end of the last line where that has
// none. Where it fails the server has no message: what a failed write has left
// out is at least its last byte.
func (w *dataWriter) end() error {
	if w.err != nil {
		return w.err
	}
	// A reply that is there already is not that to this message.
	if w.err = w.conn.silent(); w.err != nil {
		return w.err
	}
	w.conn.said = 0
	if w.tail != [2]byte{'\r', '\n'} {
		w.buf = append(w.buf, "\r\n"...)
	}
	w.buf = append(w.buf, ".\r\n"...)
	w.flush()
	return w.err
}
