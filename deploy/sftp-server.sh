#!/bin/sh
# A customer's SFTP server for docker-compose.yml: one account, keys only, without root. The keys are made once, in the volume.
# The files are in /srv/customer/files; the client's key is for whoever may read the volume.
set -eu
cd /srv/customer
mkdir -p keys files/outbox files/inbox
[ -f keys/host_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -C '' -f keys/host_ed25519
[ -f keys/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -C 'customer' -f keys/id_ed25519
chmod 0640 keys/id_ed25519
[ -n "$(ls -A files/outbox)" ] || printf 'Hello from the other side.\n' > files/outbox/hello.txt
cat > /tmp/sshd_config <<'CONFIG'
Port 2222
HostKey /srv/customer/keys/host_ed25519
AuthorizedKeysFile /srv/customer/keys/id_ed25519.pub
AuthenticationMethods publickey
UsePAM no
StrictModes no
PidFile none
Subsystem sftp internal-sftp
ForceCommand internal-sftp -d /srv/customer/files
DisableForwarding yes
CONFIG
exec /usr/sbin/sshd -D -e -f /tmp/sshd_config
