#!/usr/bin/env bash
# Installs lftp for the benchmarks, where it is absent and apt-get may be used; else says so and succeeds.
set -euo pipefail

command -v lftp >/dev/null && exit 0
as_root=()
[[ $(id -u) == 0 ]] || as_root=(sudo -n)
if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
    echo "Not installed here: lftp. Its rows are left out."
    exit 0
fi
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update --quiet=2 || true
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --no-install-recommends lftp \
    || echo "Could not install lftp. Its rows are left out."
