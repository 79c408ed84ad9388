#!/bin/sh
# Run once as root on every host of the group `@GROUP@`. Nothing secret is in here.
set -eu
umask 022

cat > /etc/ssh/writ-ca-@GROUP@.pub <<'KEY'
@CA@
KEY

# Which roles of a certificate may become which unix user.
@PRINCIPALS@

# WRIT.EXAMPLE is Writ itself (the list is not secret; any web server that serves `krl_file` will do).
# The revocation list must exist before sshd asks for it: while it is missing, sshd refuses EVERY key.
# First put `writ` on the host, then:
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

# Only these users log in with certificates; break-glass keys of people stay outside the block, and so outside the list.
cat > /etc/ssh/sshd_config.d/10-writ.conf <<'CONF'
TrustedUserCAKeys /etc/ssh/writ-ca-@GROUP@.pub
AuthorizedPrincipalsFile /etc/ssh/writ-principals/%u
RevokedKeys /etc/ssh/writ.krl
ExposeAuthInfo yes
LogLevel INFO
CONF

systemctl daemon-reload
systemctl enable --now writ-ssh-host
sshd -t && systemctl reload ssh
