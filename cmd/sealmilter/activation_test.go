package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sealmilter/milter/client"
	"sealmilter/testdata/bed"
)

func talksMilter(t *testing.T, addr net.Addr) {
	t.Helper()
	s, err := client.Dial(addr.Network(), addr.String(), client.Options{})
	if err != nil {
		t.Error(err)
		return
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// listeningFile is a socket that listens, as systemd would pass it.
func listeningFile(t *testing.T, network, address string) (*os.File, net.Addr) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	file, err := ln.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file, ln.Addr()
}

// TestSocketActivation: the ways to get the sockets that systemd passes.
func TestSocketActivation(t *testing.T) {
	dir := bed.Dir(t)
	first, firstAddr := listeningFile(t, "unix", filepath.Join(dir, "first"))
	second, secondAddr := listeningFile(t, "tcp", "127.0.0.1:0")
	tests := []struct{ name, listen string }{
		{"listen is not set", ""},
		{"all", `listen = "systemd:"`},
		{"by name", `listen = ["systemd:other", "systemd:milter"]`},
		{"by address", fmt.Sprintf(`listen = ["unix:%s/./first", "inet:%s"]`, dir, secondAddr)},
		{"mixed", `listen = ["systemd:other", "systemd:", "unix:$DIR/own"]`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			systemd := newServiceManager(t, filepath.Join(bed.Dir(t), "notify"))
			s := serve(t, "[milter]\n"+test.listen+"\n", []*os.File{first, second},
				"LISTEN_FDS=2", "LISTEN_FDNAMES=milter:other", "NOTIFY_SOCKET="+systemd.address)
			s.start(t)
			systemd.announces(t, "READY=1")
			for _, addr := range []net.Addr{firstAddr, secondAddr} {
				talksMilter(t, addr)
			}
			if strings.Contains(test.listen, "own") {
				talksMilter(t, &net.UnixAddr{Name: filepath.Join(filepath.Dir(s.store), "own"), Net: "unix"})
			}
			// The environment that named them is gone: a reload must know them all the same.
			s.Process.Signal(syscall.SIGHUP)
			systemd.announces(t, "RELOADING=1")
			systemd.announces(t, "READY=1")
			talksMilter(t, firstAddr)
			s.stop(t)
			if strings.Contains(s.log.String(), "level=WARN") {
				t.Errorf("a warning came:\n%s", s.log)
			}
			if _, err := os.Stat(firstAddr.String()); err != nil {
				t.Errorf("the socket is systemd's to remove: %v", err)
			}
		})
	}
}

func TestSocketActivationRefused(t *testing.T) {
	socket, addr := listeningFile(t, "tcp", "127.0.0.1:0")
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	connection, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	plain, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	tests := []struct {
		name, listen string
		files        []*os.File
		count, want  string
	}{
		{"not named", "unix:$DIR/sock", []*os.File{socket}, "1", "systemd passes the socket milter (" + addr.String() + "), which listen under [milter] does not name"},
		{"not passed", "systemd:", nil, "0", "listening on systemd:: systemd has passed no such socket"},
		{"another name", "systemd:other", []*os.File{socket}, "1", "listening on systemd:other: systemd has passed no such socket"},
		{"a connection", "systemd:", []*os.File{connection}, "1", "it does not listen, expected Accept=no in its unit"},
		{"no socket", "systemd:", []*os.File{plain}, "1", "it is no socket"},
		{"no number", "systemd:", []*os.File{socket}, "one", `LISTEN_FDS is \"one\"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, fmt.Sprintf("milter.listen = %q\n", test.listen), test.files, "LISTEN_FDS="+test.count, "LISTEN_FDNAMES=milter")
			s.fails(t, exitConfig, strings.ReplaceAll(test.want, `\"`, `"`))
		})
	}
}
