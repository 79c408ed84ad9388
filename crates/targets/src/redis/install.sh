#!/bin/sh
# Run once beside each Redis, or on the machine of Writ under another user than Writ's. The gate alone gets the right to
# change users; Writ gets a secret for the gate, and no user at Redis at all.
set -eu
umask 077
useradd --system --no-create-home --shell /usr/sbin/nologin writ-gate 2>/dev/null || true
install -d -o writ-gate -m 0750 /etc/writ-gate /run/writ
head -c 32 /dev/urandom | base64 -w0 | tr '+/' '-_' | tr -d '=' > /etc/writ-gate/password
head -c 32 /dev/urandom | base64 -w0 | tr '+/' '-_' | tr -d '=' > /etc/writ-gate/broker-secret

printf 'broker_sha256 = "%s"\n' "$(sha256sum < /etc/writ-gate/broker-secret | cut -d' ' -f1)" > /etc/writ-gate/gate.toml
cat >> /etc/writ-gate/gate.toml <<'CONF'
listen = "unix:/run/writ/redis-gate.sock"
lifetime_secs_max = @LIFETIME@
live_max = 1000
@NODES@
@TEMPLATES@
CONF
chown -R writ-gate /etc/writ-gate

# At every node, as its administrator (this one user is worth an ACL SAVE; users of Writ never are):
echo "ACL SETUSER writ_gate reset on #$(sha256sum < /etc/writ-gate/password | cut -d' ' -f1) -@all +acl|setuser +acl|deluser +acl|users +acl|getuser +client|list"

cat > /etc/systemd/system/writ-redis-gate.service <<'UNIT'
[Unit]
Description=The gate of Writ in front of Redis
[Service]
User=writ-gate
RuntimeDirectory=writ
ExecStart=/usr/local/bin/writ redis-gate /etc/writ-gate/gate.toml
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
UNIT
# /etc/writ-gate/broker-secret -> gate_secret of the target file; then delete it here.
