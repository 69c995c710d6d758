dnl # sealmilter in sendmail.mc. Put these lines there, in front of the MAILER
dnl # lines, or include this file:
dnl #   include(`/usr/local/share/doc/sealmilter/sendmail/sealmilter.m4')dnl
dnl # Then build sendmail.cf anew and restart Sendmail.
dnl #
dnl # The filter stands behind those that look at content, such as a spam
dnl # filter: they are shown nothing but ciphertext otherwise. A unix socket is
dnl # written S=local:/run/sealmilter/sealmilter.sock.
dnl # F=T: where the daemon is away, hangs or dies, mail is deferred (451).
dnl # Without it Sendmail lets the mail pass unsealed.
dnl # C: Sendmail would try for five minutes to connect. R: it would wait ten
dnl # seconds for a reply, and the daemon gives the key store up to eight. E: the
dnl # daemon gives up by itself after four minutes.
INPUT_MAIL_FILTER(`sealmilter', `S=inet:8890@127.0.0.1, F=T, T=C:10s;S:60s;R:30s;E:5m')dnl
dnl # From 9 on, which is what it has by default, Sendmail logs the values of
dnl # the header fields that a filter adds and takes out.
define(`confMILTER_LOG_LEVEL', `8')dnl
