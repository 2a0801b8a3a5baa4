#!/usr/bin/env bash
# Run a test in Debian's Python, whose sqlite3 is the stock library: run-python.sh FILE
set -euo pipefail
[ -x /usr/bin/python3 ] || {
    echo "skipped: /usr/bin/python3 is missing"
    exit 77
}
/usr/bin/python3 -c 'import sqlite3; sqlite3.connect(":memory:").enable_load_extension(True)' || {
    echo "skipped: this sqlite3 loads no extensions"
    exit 77
}
# A sanitized extension in an ordinary program; what Python itself never frees is not our leak.
export LD_PRELOAD=${KVFS_PRELOAD:-}
export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
exec /usr/bin/python3 "$(dirname "${BASH_SOURCE[0]}")/$1"
