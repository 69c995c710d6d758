package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sealmilter/keys"
)

// An exported keyring may have a million keys. It is cut into keys while it is
// read, and no more than one of them is held. What a key is worth only
// keys.Validate says; nothing is judged here.

// readKeysOf hands on each key of a file, of whatever kind it is. Its error is
// that of each.
func readKeysOf(path string, each func(handedText) error) error {
	file, err := openRegular(path)
	if err != nil {
		return each(handedText{file: path, problem: err})
	}
	defer file.Close()
	return readKeysFrom(file, path, each)
}

// openRegular opens a file and nothing else: a FIFO would keep us waiting, and a
// device has no end.
func openRegular(path string) (*os.File, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, plainPathError(err)
	} else if !info.Mode().IsRegular() {
		return nil, errors.New("this is no file")
	}
	file, err := os.Open(path)
	return file, plainPathError(err)
}

// plainPathError leaves out the path, which the caller names.
func plainPathError(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func readKeysFrom(r io.Reader, name string, each func(handedText) error) error {
	in := bufio.NewReaderSize(r, pieceSize)
	begin, _ := in.Peek(12)
	if bytes.HasPrefix(begin, []byte("\xef\xbb\xbf")) {
		in.Discard(3)
		begin = begin[3:]
	}
	if isOpenPGP(begin) {
		c := keyCutter{in: in, each: numbered(name, each)}
		return c.cut()
	}
	return readBlocks(in, name, each)
}

// numbered names the keys of a file one after the other.
func numbered(file string, each func(handedText) error) func([]byte, error) error {
	number := 0
	return func(data []byte, problem error) error {
		number++
		return each(handedText{file: file, place: fmt.Sprintf("key %d", number), data: data, problem: problem})
	}
}

const (
	blockBegin  = "-----BEGIN "
	blockEnd    = "-----END "
	blockDashes = "-----"
	pgpPublic   = "PGP PUBLIC KEY BLOCK"
)

// blockReader reads the armored blocks of a text one after the other.
type blockReader struct {
	in           *bufio.Reader
	certificates [][]byte // the blocks of certificates, which are judged together
	loose        []byte   // what stands outside of blocks, up to the size of a key
	blocks       int
	size         int
}

// readBlocks hands on what the blocks of a text hold, and all of a text that
// has none, as one in DER or bare base64.
func readBlocks(in *bufio.Reader, name string, each func(handedText) error) error {
	b := &blockReader{in: in}
	pgp := numbered(name, each)
	for {
		line, err := readPiece(in)
		if kind, begins := strings.CutPrefix(strings.TrimSpace(string(line)), blockBegin); begins {
			b.blocks++
			kind, _, _ = strings.Cut(kind, blockDashes)
			if err := b.block(kind, line, pgp); err != nil {
				return err
			}
		} else if b.blocks == 0 && len(b.loose) <= keys.MaxKeySize {
			b.loose = append(b.loose, line...)
		}
		if err != nil {
			break
		}
	}
	if b.blocks == 0 {
		return handOver(handedText{file: name, data: b.loose}, each)
	}
	return b.handCertificates(name, each)
}

// readPiece reads a line, or as much of a long one as the buffer holds.
func readPiece(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		err = nil
	}
	return bytes.Clone(line), err
}

// block reads one block. An OpenPGP block may be a whole keyring.
func (b *blockReader) block(kind string, first []byte, each func([]byte, error) error) error {
	if kind == pgpPublic {
		body := &armorBody{in: b.in}
		c := keyCutter{in: bufio.NewReader(base64.NewDecoder(base64.StdEncoding, body)), each: each}
		err := c.cut()
		for err == nil && !body.ended { // damaged: what is left of it is passed over
			if _, failed := body.line(); failed != nil {
				break
			}
		}
		return err
	}
	text := bytes.Clone(first)
	for line := first; !bytes.HasPrefix(bytes.TrimSpace(line), []byte(blockEnd)); {
		var err error
		if line, err = readPiece(b.in); len(text) <= keys.MaxKeySize {
			text = append(text, line...)
		}
		if err != nil {
			break
		}
	}
	if strings.HasSuffix(kind, "CERTIFICATE") {
		if b.size += len(text); b.size <= maxCertificates {
			b.certificates = append(b.certificates, text)
			return nil
		}
	}
	return each(text, nil)
}

// maxCertificates is how many bytes of certificates are held to be judged
// together; those behind are judged alone.
const maxCertificates = 4 << 20

// handCertificates hands on the certificates of a file. One person's chain goes
// together, so that the authorities can be told from the person; a list of many
// people is taken apart, so that one that is refused does not refuse the others.
func (b *blockReader) handCertificates(name string, each func(handedText) error) error {
	whole := bytes.Join(b.certificates, nil)
	if len(b.certificates) == 0 {
		return nil
	}
	if parsed, err := keys.Parse(whole); err == nil || len(b.certificates) == 1 {
		return handParsed(handedText{file: name, data: whole}, parsed, each)
	}
	for i, certificate := range b.certificates {
		if err := each(handedText{file: name, place: fmt.Sprintf("certificate %d", i+1), data: certificate}); err != nil {
			return err
		}
	}
	return nil
}

// handOver hands a text on, and each key of it alone where it has several, as a
// bundle may.
func handOver(h handedText, each func(handedText) error) error {
	parsed, _ := keys.Parse(h.data)
	return handParsed(h, parsed, each)
}

func handParsed(h handedText, parsed []*keys.Key, each func(handedText) error) error {
	if len(parsed) < 2 {
		return each(h)
	}
	for i, key := range parsed {
		if err := each(handedText{file: h.file, place: fmt.Sprintf("certificate %d", i+1), data: []byte(key.Armored())}); err != nil {
			return err
		}
	}
	return nil
}

// armorBody is the base64 of an armored block: without its header, and up to
// its checksum or last line.
type armorBody struct {
	in    *bufio.Reader
	left  []byte
	base  bool // base64 has begun
	stop  bool // it has ended
	ended bool // the last line was read
}

func (a *armorBody) Read(p []byte) (int, error) {
	for len(a.left) == 0 {
		if a.stop || a.ended {
			return 0, io.EOF
		}
		line, err := a.line()
		if err != nil {
			return 0, io.EOF
		}
		text := bytes.Join(bytes.Fields(line), nil)
		switch {
		case a.ended:
		case !a.base && bytes.IndexByte(line, ':') >= 0: // a header, which base64 is not
		case bytes.HasPrefix(text, []byte("=")): // the checksum
			a.stop = true
		default:
			a.base = a.base || len(text) > 0
			a.left = text
		}
	}
	n := copy(p, a.left)
	a.left = a.left[n:]
	return n, nil
}

// line reads the next line, and notes the last one.
func (a *armorBody) line() ([]byte, error) {
	line, err := readPiece(a.in)
	if bytes.HasPrefix(bytes.TrimSpace(line), []byte(blockEnd)) {
		a.ended = true
		return line, nil
	}
	if err != nil {
		a.ended = true
		if len(line) > 0 {
			err = nil
		}
	}
	return line, err
}

// keyEndings are those of files that hold keys and certificates.
var keyEndings = []string{".asc", ".gpg", ".pgp", ".key", ".pub", ".pem", ".crt", ".cer", ".der", ".p7b", ".p7c", ".p7", ".p12", ".pfx"}

// readFolder hands on what is in the files below a folder. Links are not
// followed, and what is no file is passed over.
func readFolder(folder string, each func(handedText) error) error {
	if info, err := os.Stat(folder); err != nil {
		return failure("reading the folder: %w", err)
	} else if !info.IsDir() {
		return failure("%s is no folder", folder)
	}
	return filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		switch {
		case err != nil:
			return each(handedText{file: path, problem: err})
		case !entry.Type().IsRegular() || !slices.Contains(keyEndings, strings.ToLower(filepath.Ext(path))):
			return nil
		}
		return readKeysOf(path, each)
	})
}
