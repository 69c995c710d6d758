package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// account is a user of this machine as file modes see it.
type account struct {
	name   string
	uid    uint32
	groups []uint32
}

// lookupAccount finds a user by name, with the groups that its processes get.
func lookupAccount(name string) (account, error) {
	found, err := user.Lookup(name)
	if err != nil {
		return account{}, err
	}
	ids, err := found.GroupIds()
	if err != nil {
		return account{}, err
	}
	a := account{name: name}
	uid, err := strconv.ParseUint(found.Uid, 10, 32)
	if err != nil {
		return account{}, err
	}
	a.uid = uint32(uid)
	for _, id := range ids {
		if gid, err := strconv.ParseUint(id, 10, 32); err == nil {
			a.groups = append(a.groups, uint32(gid))
		}
	}
	return a, nil
}

// may says whether a file's mode gives this user a right: 2 to write (which a
// socket wants of those who connect), 1 to enter a folder. Access control
// lists are not looked at.
func (a account) may(info fs.FileInfo, right fs.FileMode) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case a.uid == 0 || !ok:
		return true
	case owner.Uid == a.uid:
		return mode>>6&right != 0
	case slices.Contains(a.groups, owner.Gid):
		return mode>>3&right != 0
	}
	return mode&right != 0
}

// obstacle says what keeps the user from connecting to a unix socket, "" where
// nothing does. The error is fs.ErrNotExist where there is no socket, and
// fs.ErrPermission where whoever runs this may not look.
func (a account) obstacle(socket string) (string, error) {
	real, err := filepath.EvalSymlinks(socket)
	if errors.Is(err, fs.ErrNotExist) {
		// The folders can still be looked at.
		if folder, problem := filepath.EvalSymlinks(filepath.Dir(socket)); problem == nil {
			real = filepath.Join(folder, filepath.Base(socket))
		}
	}
	if real == "" {
		return "", err
	}
	for _, folder := range foldersOf(real) {
		info, err := os.Stat(folder)
		if err != nil {
			return "", err
		}
		if !a.may(info, 1) {
			return fmt.Sprintf("the user %s may not enter %s (%s)", a.name, folder, info.Mode()), nil
		}
	}
	info, err := os.Stat(real)
	switch {
	case err != nil:
		return "", err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Sprintf("%s is not a socket", real), nil
	case !a.may(info, 2):
		return fmt.Sprintf("the user %s may not write to %s (%s)", a.name, real, info.Mode()), nil
	}
	return "", nil
}

// foldersOf lists the folders that lead to an absolute path, from / on.
func foldersOf(path string) (folders []string) {
	for folder := filepath.Dir(path); ; folder = filepath.Dir(folder) {
		folders = append(folders, folder)
		if folder == "/" {
			slices.Reverse(folders)
			return folders
		}
	}
}
