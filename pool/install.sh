#!/bin/sh
# Runs pool/install.py; brings Python itself where a Debian came without it. PYTHON chooses another one.
set -eu
python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "install: $python is missing, and only root on a Debian can install it here" >&2
        exit 1
    fi
    echo "install: Debian package python3"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    if ! { apt-get update && apt-get install -y --no-install-recommends python3; } >"$log" 2>&1 </dev/null; then
        echo "install: apt-get could not install python3. Its words:" >&2
        tail -n 15 "$log" >&2
        exit 1
    fi
    rm -f "$log"
fi
exec "$python" -m pool.install "$@"
