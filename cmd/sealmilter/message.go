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
	info  os.FileInfo // of the file, as it was at first
	held  bytes.Buffer
}

func openOriginal(r io.Reader) *original {
	o := &original{}
	if file, ok := r.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			if start, err := file.Seek(0, io.SeekCurrent); err == nil {
				o.file, o.start, o.info, o.in = file, start, info, bufio.NewReaderSize(file, pieceSize)
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
	info, err := o.file.Stat()
	if err == nil && (info.Size() != o.info.Size() || !info.ModTime().Equal(o.info.ModTime())) {
		return nil, errors.New("its file has changed meanwhile, and what was decided is about what it was")
	}
	if err == nil {
		_, err = o.file.Seek(o.start, io.SeekStart)
	}
	return bufio.NewReaderSize(o.file, pieceSize), err
}

// maxHeader is the longest header that is read, in bytes, as in the daemon.
const maxHeader = 4 << 20

// readHeader reads a message up to its first empty line and loses nothing of it:
// the rest is the body. eol is how the first line ends.
func readHeader(r *bufio.Reader) (header []envelope.Field, eol string, err error) {
	eol = "\n"
	var value []byte // of the last field, whose lines may not have ended
	defer func() {
		if len(header) > 0 {
			header[len(header)-1].Value = string(value)
		}
	}()
	for number, size := 1, 0; ; number++ {
		line, err := readLine(r, maxHeader-size)
		if err != nil && err != io.EOF {
			return nil, "", err
		}
		size += len(line)
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
		if (line[0] == ' ' || line[0] == '\t') && len(header) > 0 && ended {
			value = append(append(value, '\n'), line...)
			continue
		}
		name, behind, isField := bytes.Cut(line, []byte(":"))
		switch {
		case number == 1 && bytes.HasPrefix(line, []byte("From ")):
			return nil, "", errors.New("it begins with the \"From \" line of an mbox file, which is no part of a message: leave it out (flag F of pipe(8))")
		case !ended:
			return nil, "", fmt.Errorf("it breaks off in line %d, within its header", number)
		case !isField || len(name) == 0 || bytes.ContainsAny(name, " \t"):
			return nil, "", fmt.Errorf("line %d is no header field, and no empty line stands before it", number)
		}
		if len(header) > 0 {
			header[len(header)-1].Value = string(value)
		}
		header, value = append(header, envelope.Field{Name: string(name)}), append(value[:0], behind...)
	}
}

// readLine reads a line of at most so many bytes, with its end.
func readLine(r *bufio.Reader, most int) (line []byte, err error) {
	for err = bufio.ErrBufferFull; err == bufio.ErrBufferFull; {
		var piece []byte
		piece, err = r.ReadSlice('\n')
		if line = append(line, piece...); len(line) > most {
			return nil, fmt.Errorf("its header is longer than %d bytes", maxHeader)
		}
	}
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%w: %w", errUnread, err)
	}
	return line, err
}

// errUnread says that nobody knows what the message is, as it could not be read.
var errUnread = errors.New("it could not be read")

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
