dnl # A mailer that hands mail to Dovecot by LMTP, each recipient as a whole
dnl # address. It stands at the end of sendmail.mc, behind MAILER(`smtp'), and
dnl # the mailertable sends the domains to it. README.md says why it is not the
dnl # local mailer.
dnl # z: the protocol is LMTP. 8: eight bits stay as they are. L=0: lines of any
dnl # length do too.
MAILER_DEFINITIONS
Mdovecot,	P=[IPC], F=mDFMuXz8, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP,
		E=\r\n, L=0, T=DNS/RFC822/SMTP, A=FILE /run/dovecot/lmtp
