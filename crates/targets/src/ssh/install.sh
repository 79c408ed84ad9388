#!/bin/sh
# Run once as root on every host of the group `@GROUP@`. Nothing secret is in here.
set -eu
umask 022

cat > /etc/ssh/writ-ca-@GROUP@.pub <<'KEY'
@CA@
KEY

# Which roles of a certificate may become which unix user. What was said before is gone.
install -d -m 0755 /etc/ssh/writ-principals
rm -f /etc/ssh/writ-principals/*
@PRINCIPALS@

# WRIT.EXAMPLE is Writ itself (the list is not secret; any web server that serves `krl_file` will do).
# The revocation list must exist before sshd asks for it: while it is missing, sshd refuses EVERY key.
# First put `writ` on the host, then:
touch /var/log/writ-sshd.log
chmod 0600 /var/log/writ-sshd.log
writ ssh-host --once --from https://WRIT.EXAMPLE/targets/@TARGET@/krl --krl-file /etc/ssh/writ.krl --auth-log /var/log/writ-sshd.log

cat > /etc/systemd/system/writ-ssh-host.service <<'UNIT'
[Unit]
Description=Revocation of SSH certificates by Writ
After=network-online.target
[Service]
ExecStart=/usr/local/bin/writ ssh-host --from https://WRIT.EXAMPLE/targets/@TARGET@/krl --krl-file /etc/ssh/writ.krl --auth-log /var/log/writ-sshd.log
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
UNIT

# Only these users log in with certificates. Keys of everybody else, break-glass keys too, stay outside the block, and so
# outside the list.
cat > /etc/ssh/sshd_config.d/10-writ.conf <<'CONF'
Match User @USERS@
TrustedUserCAKeys /etc/ssh/writ-ca-@GROUP@.pub
AuthorizedPrincipalsFile /etc/ssh/writ-principals/%u
RevokedKeys /etc/ssh/writ.krl
ExposeAuthInfo yes
LogLevel INFO
Match all
CONF

# The helper reads who came with which certificate from a file that only sshd writes: anybody can write to a syslog. From here
# on sshd logs to that file; sessions that are open go on.
unit=ssh
systemctl cat ssh.service >/dev/null 2>&1 || unit=sshd
install -d -m 0755 /etc/systemd/system/$unit.service.d
cat > /etc/systemd/system/$unit.service.d/writ.conf <<'UNIT'
[Service]
ExecStart=
ExecStart=/usr/sbin/sshd -D -E /var/log/writ-sshd.log $SSHD_OPTS $OPTIONS
UNIT

systemctl daemon-reload
systemctl enable --now writ-ssh-host
sshd -t && systemctl restart $unit
