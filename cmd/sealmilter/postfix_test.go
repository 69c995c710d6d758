package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sealmilter/testdata/bed"
)

func TestParseMilters(t *testing.T) {
	none := map[string]string{}
	tests := []struct {
		value string
		want  []milterRef
	}{
		{"", nil},
		{" , ", nil},
		{"inet:localhost:8890", []milterRef{{"inet:localhost:8890", nil}}},
		{"inet:a:1,unix:/b  local:c", []milterRef{{"inet:a:1", nil}, {"unix:/b", nil}, {"local:c", nil}}},
		{"{ unix:/b }", []milterRef{{"unix:/b", none}}},
		{"{inet:a:1,default_action=accept} { unix:/b, { command_timeout = 3s }, protocol=2 }, inet:c:2", []milterRef{
			{"inet:a:1", map[string]string{"default_action": "accept"}},
			{"unix:/b", map[string]string{"command_timeout": "3s", "protocol": "2"}},
			{"inet:c:2", nil},
		}},
		{"{}", nil},
		{"{ unix:/b", []milterRef{{"{ unix:/b", nil}}}, // Postfix does not take it either
	}
	for _, test := range tests {
		if got := parseMilters(test.value); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q: got %v, want %v", test.value, got, test.want)
		}
	}
}

func TestOurSocket(t *testing.T) {
	dir := bed.Dir(t)
	for _, folder := range []string{"run", "queue/sealmilter"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("run", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		listen, endpoint string
		ours             bool
	}{
		{"inet:127.0.0.1:8890", "inet:127.0.0.1:8890", true},
		{"inet:127.0.0.1:8890", "inet:localhost:8890", true},
		{"inet:127.0.0.1:8890", "inet:[127.0.0.1]:8890", true},
		{"inet:localhost:8890", "inet:127.0.0.1:8890", true},
		{"inet:127.0.0.1:25", "inet:127.0.0.1:smtp", true},
		{"inet:127.0.0.1:8890", "inet:127.0.0.1:8891", false},
		{"inet:127.0.0.1:8890", "inet:192.0.2.1:8890", false},
		{"inet:0.0.0.0:8890", "inet:127.0.0.1:8890", true},
		{"inet:0.0.0.0:8890", "inet:192.0.2.1:8890", false},
		{"inet:0.0.0.0:8890", "inet:[::1]:8890", false},
		{"inet6:[::1]:8890", "inet:[::1]:8890", true},
		{"inet6:[::1]:8890", "inet:[0:0::1]:8890", true},
		{"inet6:[::]:8890", "inet:[::1]:8890", true},
		{"inet:127.0.0.1:8890", "unix:/127.0.0.1:8890", false},
		{"inet:127.0.0.1:8890", "inet:8890", false},
		{"inet:127.0.0.1:8890", "nonsense", false},
		{"unix:DIR/queue/sealmilter/s", "unix:sealmilter/s", true},
		{"unix:DIR/queue/sealmilter/s", "unix:/sealmilter/s", true}, // in a chroot
		{"unix:DIR/queue/sealmilter/s", "unix:DIR/queue/sealmilter/s", true},
		{"unix:DIR/queue/sealmilter/s", "local:sealmilter/s", true},
		{"unix:DIR/queue/sealmilter/s", "unix:sealmilter/t", false},
		{"unix:DIR/run/s", "unix:DIR/link/s", true},
		{"unix:DIR/run/s", "inet:localhost:1", false},
	}
	for _, test := range tests {
		listen, endpoint := strings.ReplaceAll(test.listen, "DIR", dir), strings.ReplaceAll(test.endpoint, "DIR", dir)
		network, target, err := parseListen(listen)
		if err != nil {
			t.Fatal(err)
		}
		if got := (ourSocket{listen, network, target}).is(t.Context(), endpoint, filepath.Join(dir, "queue")); got != test.ours {
			t.Errorf("%s is %s: %v, want %v", test.endpoint, test.listen, got, test.ours)
		}
	}
}

// The names that are proposed are those of the same socket.
func TestEndpoint(t *testing.T) {
	tests := []struct{ listen, open, chroot string }{
		{"inet:127.0.0.1:8890", "inet:127.0.0.1:8890", "inet:127.0.0.1:8890"},
		{"inet:0.0.0.0:8890", "inet:127.0.0.1:8890", "inet:127.0.0.1:8890"},
		{"inet6:[::]:8890", "inet:[::1]:8890", "inet:[::1]:8890"},
		{"unix:/var/spool/postfix/sealmilter/s", "unix:sealmilter/s", "unix:sealmilter/s"},
		{"unix:/run/sealmilter/s", "unix:/run/sealmilter/s", ""},
	}
	for _, test := range tests {
		network, target, err := parseListen(test.listen)
		if err != nil {
			t.Fatal(err)
		}
		o := ourSocket{test.listen, network, target}
		for chroot, want := range map[bool]string{false: test.open, true: test.chroot} {
			got := o.endpoint("/var/spool/postfix", chroot)
			if got != want || got != "" && !o.is(t.Context(), got, "/var/spool/postfix") {
				t.Errorf("%s, chroot %v: %q, want %q", test.listen, chroot, got, want)
			}
		}
	}
}

func TestSplitFilter(t *testing.T) {
	tests := []struct{ filter, transport, address string }{
		{"", "", ""},
		{"scan", "scan", ""},
		{"scan:", "scan", ""},
		{"scan:filter.example", "scan", ""},
		{"sealing:[127.0.0.1]:10026", "sealing", "[127.0.0.1]:10026"},
		{"sealing:localhost:10026", "sealing", "localhost:10026"},
		{"sealing:[::1]:10026", "sealing", "[::1]:10026"},
		{"lmtp:unix:/run/filter", "lmtp", "unix:/run/filter"},
	}
	for _, test := range tests {
		if transport, address := splitFilter(test.filter); transport != test.transport || address != test.address {
			t.Errorf("%q: %q and %q", test.filter, transport, address)
		}
	}
}

func TestListensAt(t *testing.T) {
	tests := []struct {
		service, address string
		want             bool
	}{
		{"127.0.0.1:10026/inet", "[127.0.0.1]:10026", true},
		{"localhost:10026/inet", "[127.0.0.1]:10026", true},
		{"127.0.0.1:10026/inet", "127.0.0.1:10025", false},
		{"10026/inet", "[127.0.0.1]:10026", true},
		{"smtp/inet", "[127.0.0.1]:25", true},
		{"10026/inet", "[192.0.2.1]:10026", false},
		{"[::1]:10026/inet", "[::1]:10026", true},
		{"127.0.0.1:10026/inet", "unix:/run/filter", false},
		{"10026/unix", "[127.0.0.1]:10026", false},
	}
	for _, test := range tests {
		if got := (&postfixService{name: test.service}).listensAt(t.Context(), test.address); got != test.want {
			t.Errorf("%s at %s: %v", test.service, test.address, got)
		}
	}
}

func TestDelimiter(t *testing.T) {
	tests := []struct{ theirs, ours, says string }{
		{"+", "+", ""},
		{"", "", ""},
		{"+-", "-+", ""},
		{"+-", "+", "mail to ann-list@ goes to ann's mailbox and is not sealed"},
		{"", "+", "mail to ann+list@ is sealed to ann's key, and to Postfix that is another mailbox"},
		{"-", "+", "mail to ann-list@ goes to ann's mailbox and is not sealed"},
	}
	for _, test := range tests {
		var out strings.Builder
		p := &postfixCheck{report: &report{out: &out}, conf: &postfixConf{main: map[string]string{"recipient_delimiter": test.theirs}}}
		p.delimiter(test.ours)
		if got := out.String(); (got == "") != (test.says == "") || !strings.Contains(got, test.says) {
			t.Errorf("%q and %q: %q, want %q", test.theirs, test.ours, got, test.says)
		}
	}
}

// TestObstacle: a folder or a socket that lets nobody in, as another user sees
// it.
func TestObstacle(t *testing.T) {
	dir := bed.Dir(t)
	inner := filepath.Join(dir, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(inner, "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	own := uint32(os.Getgid())
	tests := []struct {
		name           string
		folder, socket os.FileMode
		who            account
		want           string
	}{
		{"everybody", 0o755, 0o666, account{"mta", 4711, nil}, ""},
		{"the group", 0o750, 0o660, account{"mta", 4711, []uint32{1, own}}, ""},
		{"the owner", 0o700, 0o600, account{"mta", uint32(os.Getuid()), nil}, ""},
		{"the folder is closed", 0o700, 0o666, account{"mta", 4711, nil}, "the user mta may not enter " + inner + " (drwx------)"},
		{"the folder is closed to the group", 0o705, 0o666, account{"mta", 4711, []uint32{own}}, "the user mta may not enter " + inner},
		{"the socket is closed", 0o755, 0o660, account{"mta", 4711, nil}, "the user mta may not write to " + socket + " (Srw-rw----)"},
		{"the socket can be read only", 0o755, 0o664, account{"mta", 4711, nil}, "the user mta may not write to " + socket},
	}
	for _, test := range tests {
		os.Chmod(inner, test.folder)
		os.Chmod(socket, test.socket)
		got, err := test.who.obstacle(socket)
		if err != nil || (got == "") != (test.want == "") || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %q, error %v, want %q", test.name, got, err, test.want)
		}
	}
	who := account{"mta", 4711, nil}
	os.Chmod(inner, 0o755)
	if _, err := who.obstacle(filepath.Join(inner, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	if got, err := who.obstacle(inner); err != nil || !strings.HasSuffix(got, "is not a socket") {
		t.Errorf("a folder: %q, %v", got, err)
	}
	os.Chmod(inner, 0o700)
	if got, _ := who.obstacle(filepath.Join(inner, "none")); !strings.Contains(got, "may not enter") {
		t.Errorf("no socket in a folder that is closed: %q", got)
	}
}

func TestSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{"30": 30 * time.Second, "30s": 30 * time.Second, "5m": 5 * time.Minute, "1H": time.Hour, "1d": 24 * time.Hour} {
		if got, ok := seconds(text); got != want || !ok {
			t.Errorf("%s: %v %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "s", "-1", "1.5s", "x"} {
		if _, ok := seconds(text); ok {
			t.Errorf("%q is a time", text)
		}
	}
}

// What is said to fit, fits.
func TestSealedLimit(t *testing.T) {
	for _, taken := range []int64{1 << 20, 10240000, 52428800, 1 << 40} {
		if limit := sealedLimit(taken); takenFor(limit) > taken || takenFor(limit) < taken-200 || sealedLimit(takenFor(limit)) > limit {
			t.Errorf("%d needs %d, which is enough for %d", taken, limit, takenFor(limit))
		}
	}
	if takenFor(1000) != 0 {
		t.Error("nothing fits into nothing")
	}
}
