#!/usr/bin/env bash
# Installs the SSH servers that the local stack and the tests speak to, where they are absent and apt-get may be used;
# else names what is missing and succeeds: without sshd the stack serves SFTP from Python, and tests of ProFTPD skip.
set -euo pipefail

PATH="$PATH:/usr/sbin:/sbin"
# Modules of ProFTPD are packages of their own: mod_sftp is in proftpd-mod-crypto.
declare -A servers=([sshd]=openssh-server [proftpd]=proftpd-mod-crypto)

packages=()
for server in "${!servers[@]}"; do
    command -v "$server" >/dev/null || packages+=("${servers[$server]}")
done
((${#packages[@]})) || exit 0

as_root=()
if [[ $(id -u) != 0 ]]; then
    as_root=(sudo -n)
    sudo -n true 2>/dev/null || as_root=(false)
fi
if ! command -v apt-get >/dev/null || [[ ${as_root[*]} == false ]]; then
    echo "Not installed here: ${packages[*]} (Debian's names). The stack starts without them; some tests are left out."
    exit 0
fi

# The programs are wanted, not their services: a laptop must not begin to listen because it runs a demo.
units=(ssh.service ssh.socket proftpd.service)
systemd=false
[[ -d /run/systemd/system ]] && systemd=true
$systemd && "${as_root[@]}" systemctl mask --quiet "${units[@]}"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update --quiet=2 || true
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --no-install-recommends "${packages[@]}" \
    || echo "Could not install ${packages[*]}. The stack starts without them; some tests are left out."
if $systemd; then
    "${as_root[@]}" systemctl unmask --quiet "${units[@]}"
    "${as_root[@]}" systemctl disable --quiet "${units[@]}" 2>/dev/null || true
fi
