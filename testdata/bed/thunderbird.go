package bed

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Thunderbird is a Thunderbird without a screen that reads the mailboxes of a
// Dovecot over IMAP, each user's as an account of its own.
type Thunderbird struct {
	// Patience is how long a message may take until its text is shown.
	Patience time.Duration

	dir     string
	dovecot *Dovecot
	cmd     *exec.Cmd
	gone    chan error
	m       *marionette
}

// Shown is what somebody sees of a message.
type Shown struct {
	Subject     string
	Text        string
	Encryption  string   // "OpenPGP", "S/MIME", or "" where the message is not encrypted
	Attachments []string // names
}

// StartThunderbird starts Thunderbird with a home and a profile of its own. It
// is killed at the end of the test and its home removed.
func StartThunderbird(t testing.TB, d *Dovecot) *Thunderbird {
	t.Helper()
	program := Need(t, "thunderbird")
	b := &Thunderbird{Patience: 20 * time.Second, dir: Dir(t), dovecot: d, gone: make(chan error, 1)}
	profile, port := filepath.Join(b.dir, "profile"), FreePort(t)
	if err := os.Mkdir(profile, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(profile, "user.js"), userJS(t, d, port), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(b.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	b.cmd = exec.Command(program, "--headless", "--no-remote", "--profile", profile, "--marionette", "--remote-allow-system-access")
	// Nothing of the caller's environment: no desktop, no keyring, no XDG
	// folders outside this home.
	b.cmd.Env = []string{"HOME=" + b.dir, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TMPDIR=" + b.dir}
	b.cmd.Stdout, b.cmd.Stderr = log, log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with the processes that it starts
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { b.gone <- b.cmd.Wait() }()
	t.Cleanup(func() {
		b.stop()
		if t.Failed() {
			t.Logf("Thunderbird:\n%s", b.log())
		}
	})
	b.connect(t, fmt.Sprintf("127.0.0.1:%d", port))
	for _, user := range d.Users {
		b.script(t, nil, `
			const login = Cc["@mozilla.org/login-manager/loginInfo;1"].createInstance(Ci.nsILoginInfo);
			login.init("imap://127.0.0.1", null, "imap://127.0.0.1", args[0], args[1], "", "");
			await Services.logins.addLoginAsync(login);`, user, dovecotPassword)
	}
	return b
}

// ImportOpenPGP adds an armored secret key without a passphrase.
func (b *Thunderbird) ImportOpenPGP(t testing.TB, secret []byte) {
	t.Helper()
	if err := b.TryImportOpenPGP(secret); err != nil {
		t.Fatalf("Thunderbird: %v", err)
	}
}

// TryImportOpenPGP is ImportOpenPGP for a key that Thunderbird may not take.
func (b *Thunderbird) TryImportOpenPGP(secret []byte) error {
	return b.m.script(nil, mainWindow+`
		const {EnigmailCore} = ChromeUtils.importESModule("chrome://openpgp/content/modules/core.sys.mjs");
		await EnigmailCore.init();
		const {RNP} = ChromeUtils.importESModule("chrome://openpgp/content/modules/RNP.sys.mjs");
		const noPassphrase = () => ({password: "", flags: 0});
		const result = await RNP.importSecKeyBlockImpl(window, noPassphrase, false, args[0]);
		if (result.exitCode !== 0 || !result.importedKeys?.length)
			throw new Error("importing the OpenPGP key: " + result.errorMsg);`, string(secret))
}

// ImportIdentity adds a certificate with its key, by way of PKCS#12.
func (b *Thunderbird) ImportIdentity(t testing.TB, i Identity) {
	t.Helper()
	if err := b.TryImportIdentity(t, i); err != nil {
		t.Fatalf("Thunderbird: %v", err)
	}
}

// TryImportIdentity is ImportIdentity for a key that Thunderbird may not take.
func (b *Thunderbird) TryImportIdentity(t testing.TB, i Identity) error {
	t.Helper()
	return b.m.script(nil, mainWindow+`
		const certificates = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
		const file = Cc["@mozilla.org/file/local;1"].createInstance(Ci.nsIFile);
		file.initWithPath(args[0]);
		const code = certificates.importPKCS12File(file, args[1]);
		if (code) throw new Error("importing the PKCS#12 file: error " + code);`, i.PKCS12(t), PKCS12Password)
}

// Inbox opens a user's INBOX, in which n messages must be, then each message,
// in the order in which they came, and returns what is shown of them.
func (b *Thunderbird) Inbox(t testing.TB, user string, n int) []Shown {
	t.Helper()
	var keys []int
	for deadline := time.Now().Add(30 * time.Second); len(keys) < n; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("Thunderbird sees %d of %d messages of %s\n%s", len(keys), n, user, b.dovecot.Log())
		}
		b.script(t, &keys, openInbox, user)
	}
	if len(keys) > n {
		t.Fatalf("Thunderbird sees %d messages of %s, not %d", len(keys), user, n)
	}
	shown := make([]Shown, n)
	for i, key := range keys {
		shown[i] = b.open(t, user, key)
	}
	return shown
}

// aboutInbox names the pane with folders and messages, and the INBOX of the
// user args[0]. That is not there before Thunderbird has first asked the server
// for its folders.
const aboutInbox = `
	const {MailServices} = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
	const server = MailServices.accounts.findServer(args[0], "127.0.0.1", "imap");
	const inbox = server.rootFolder.subFolders.find(folder => folder.name.toLowerCase() === "inbox");
	const pane = window.document.getElementById("tabmail").currentAbout3Pane;`

// openInbox shows the folder, asks the server for what is new in it, and
// returns the keys of the messages known so far.
const openInbox = aboutInbox + `
	if (!inbox) {
		server.performExpand(window.msgWindow);
		return [];
	}
	if (pane.gFolder?.URI !== inbox.URI) pane.displayFolder(inbox.URI);
	else inbox.getNewMessages(window.msgWindow, null);
	return Array.from(inbox.messages, message => message.messageKey).sort((a, b) => a - b);`

// open reads what is shown of a message once that has stayed the same for a
// second: an encrypted message comes up in several steps, of which the
// attachments are the last.
func (b *Thunderbird) open(t testing.TB, user string, key int) Shown {
	t.Helper()
	var last Shown
	var since time.Time
	for deadline := time.Now().Add(b.Patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var now *Shown
		b.script(t, &now, openMessage, user, key)
		switch {
		case now == nil:
			since = time.Time{}
		case since.IsZero() || !reflect.DeepEqual(*now, last):
			last, since = *now, time.Now()
		case now.Text != "" && time.Since(since) > time.Second:
			return last
		}
	}
	return last // as far as it came: what is missing is the caller's to see
}

// openMessage selects the message args[1], unless it is selected already, and
// returns null while it is being loaded. Messages of two folders can have the
// same key.
const openMessage = aboutInbox + `
	const message = inbox.GetMessageHeader(args[1]);
	pane.selectMessage(message);
	const view = pane.messageBrowser?.contentWindow;
	const shown = view?.gMessage;
	if (!view?.msgLoaded || shown?.messageKey !== message.messageKey || shown.folder.URI !== inbox.URI) return null;
	const element = id => view.document.getElementById(id);
	const visible = element => element.checkVisibility() ? element.textContent.trim() : "";
	return {
		Subject: visible(element("expandedsubjectBox").value), // beside its heading
		Text: view.getMessagePaneBrowser().contentDocument?.body?.innerText.trim() ?? "", // the header to be printed left out
		// The button with the name stands for signatures too.
		Encryption: element("encryptedHdrIcon").checkVisibility() ? visible(element("encryptionTechBtn")) : "",
		Attachments: Array.from(element("attachmentList").querySelectorAll("richlistitem"), item => item.attachment.name),
	};`

// mainWindow opens a script that works in Thunderbird's main window.
const mainWindow = `const window = Services.wm.getMostRecentWindow("mail:3pane");`

// script runs one there.
func (b *Thunderbird) script(t testing.TB, value any, body string, args ...any) {
	t.Helper()
	if err := b.m.script(value, mainWindow+body, args...); err != nil {
		t.Fatalf("Thunderbird: %v", err)
	}
}

// connect waits until Thunderbird has opened its main window.
func (b *Thunderbird) connect(t testing.TB, addr string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		m, err := dialMarionette(addr)
		if err == nil {
			b.m = m
			break
		}
		select {
		case err := <-b.gone:
			b.gone <- err
			t.Fatalf("thunderbird did not start: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("thunderbird does not answer: %v", err)
		}
	}
	for range 300 {
		var ready bool
		if err := b.m.script(&ready, `return !!Services.wm.getMostRecentWindow("mail:3pane")?.document.getElementById("tabmail")?.currentAbout3Pane?.displayFolder;`); err != nil {
			t.Fatalf("thunderbird: %v", err)
		}
		if ready {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("thunderbird does not open its main window")
}

// stop kills Thunderbird, whose profile goes anyway, and waits until none of its
// processes is left to write there.
func (b *Thunderbird) stop() {
	if b.m != nil {
		b.m.conn.Close()
	}
	group := -b.cmd.Process.Pid
	syscall.Kill(group, syscall.SIGKILL)
	<-b.gone
	for deadline := time.Now().Add(5 * time.Second); syscall.Kill(group, 0) == nil && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
}

// log is what Thunderbird has printed, but for what GTK complains about where
// there is no screen.
func (b *Thunderbird) log() string {
	text, _ := os.ReadFile(filepath.Join(b.dir, "log"))
	lines := slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool {
		return line == "" || strings.Contains(strings.ToLower(line), "gtk")
	})
	return strings.Join(lines, "\n")
}

// userJS is a profile's settings: the accounts, and nothing that would ask,
// greet or call home.
func userJS(t testing.TB, d *Dovecot, port int) []byte {
	t.Helper()
	settings := map[string]any{
		"marionette.port": port,

		"mail.server.local.type":                 "none",
		"mail.server.local.hostname":             "Local Folders",
		"mail.server.local.userName":             "nobody",
		"mail.server.local.name":                 "Local Folders",
		"mail.account.local.server":              "local",
		"mail.accountmanager.localfoldersserver": "local",

		"mail.provider.suppress_dialog_on_startup": true,
		"mail.shell.checkDefaultClient":            false,
		"mail.spotlight.firstRunDone":              true,
		"mail.rights.version":                      1,
		"mailnews.start_page.enabled":              false,
		"mail.inappnotifications.enabled":          false,
		"app.donation.eoy.version.viewed":          999,

		"app.update.enabled":                         false,
		"extensions.update.enabled":                  false,
		"datareporting.policy.bypassNotification":    true,
		"datareporting.policy.dataSubmissionEnabled": false,
		"toolkit.telemetry.enabled":                  false,
		"network.captive-portal-service.enabled":     false,
		"network.connectivity-service.enabled":       false,
		"browser.safebrowsing.malware.enabled":       false,
		"browser.safebrowsing.phishing.enabled":      false,
		"services.settings.server":                   "data:,",
	}
	var accounts []string
	for i, user := range d.Users {
		name := fmt.Sprintf("user%d", i+1)
		accounts = append(accounts, name)
		settings["mail.account."+name+".server"] = name
		settings["mail.account."+name+".identities"] = name
		settings["mail.identity."+name+".useremail"] = user
		settings["mail.identity."+name+".fullName"] = user
		settings["mail.identity."+name+".valid"] = true
		for key, value := range map[string]any{
			"type": "imap", "hostname": "127.0.0.1", "port": d.IMAP, "userName": user, "name": user,
			"socketType": 0, "authMethod": 3, // no TLS, the password as it is
			"login_at_startup": false, "check_new_mail": false, "use_idle": false,
		} {
			settings["mail.server."+name+"."+key] = value
		}
	}
	settings["mail.accountmanager.defaultaccount"] = accounts[0]
	settings["mail.accountmanager.accounts"] = strings.Join(append(accounts, "local"), ",")
	var js strings.Builder
	for name, value := range settings {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&js, "user_pref(%q, %s);\n", name, text)
	}
	return []byte(js.String())
}
