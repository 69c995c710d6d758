package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"sealmilter/milter/envelope"
)

// pieceSize is how much of a message is read and sealed at a time, in bytes.
const pieceSize = 64 << 10

// original is a message as it was handed in. Of a pipe it is remembered what was
// read, so that it can be read once more; a file is read again.
type original struct {
	in    *bufio.Reader
	file  *os.File // where it can be read again
	start int64
	held  bytes.Buffer
}

func openOriginal(r io.Reader) *original {
	o := &original{}
	if file, ok := r.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			if start, err := file.Seek(0, io.SeekCurrent); err == nil {
				o.file, o.start, o.in = file, start, bufio.NewReaderSize(file, pieceSize)
				return o
			}
		}
	}
	o.in = bufio.NewReaderSize(io.TeeReader(r, &o.held), pieceSize)
	return o
}

// again is the message from its beginning, when all of it has been read once.
func (o *original) again() (*bufio.Reader, error) {
	if o.file == nil {
		return bufio.NewReader(bytes.NewReader(o.held.Bytes())), nil
	}
	_, err := o.file.Seek(o.start, io.SeekStart)
	return bufio.NewReaderSize(o.file, pieceSize), err
}

// readHeader reads a message up to its first empty line and loses nothing of it:
// the rest is the body. eol is how the first line ends.
func readHeader(r *bufio.Reader) (header []envelope.Field, eol string, err error) {
	eol = "\n"
	for number := 1; ; number++ {
		line, err := r.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return nil, "", err
		}
		if len(line) == 0 {
			return header, eol, nil
		}
		line, ended := bytes.CutSuffix(line, []byte("\n"))
		if text, cr := bytes.CutSuffix(line, []byte("\r")); ended && cr {
			line = text
			if number == 1 {
				eol = "\r\n"
			}
		}
		if len(line) == 0 {
			return header, eol, nil
		}
		if (line[0] == ' ' || line[0] == '\t') && len(header) > 0 {
			header[len(header)-1].Value += "\n" + string(line)
			continue
		}
		name, value, isField := bytes.Cut(line, []byte(":"))
		switch {
		case number == 1 && bytes.HasPrefix(line, []byte("From ")):
			return nil, "", errors.New("it begins with the \"From \" line of an mbox file, which is no part of a message: leave it out (flag F of pipe(8))")
		case !isField || len(name) == 0 || bytes.ContainsAny(name, " \t"):
			return nil, "", fmt.Errorf("line %d is no header field, and no empty line stands before it", number)
		case !ended:
			return nil, "", fmt.Errorf("it breaks off in line %d, within its header", number)
		}
		header = append(header, envelope.Field{Name: string(name), Value: string(value)})
	}
}

// copyBody writes a body with CRLF at the end of each line, as SMTP carries it:
// it makes CRLF of each LF that stands alone. It returns how much it wrote.
func copyBody(w io.Writer, r io.Reader) (written int64, err error) {
	in, out := make([]byte, pieceSize), make([]byte, 0, 2*pieceSize)
	var before byte
	for err == nil {
		var n int
		n, err = r.Read(in)
		out = out[:0]
		for rest := in[:n]; len(rest) > 0; {
			line, after, ended := bytes.Cut(rest, []byte("\n"))
			if len(line) > 0 {
				before = line[len(line)-1]
			}
			out = append(out, line...)
			if ended {
				if before != '\r' {
					out = append(out, '\r')
				}
				out = append(out, '\n')
				before = '\n'
			}
			rest = after
		}
		written += int64(len(out))
		if _, failed := w.Write(out); failed != nil {
			return written, failed
		}
	}
	if err == io.EOF {
		err = nil
	}
	return written, err
}
