#!/usr/bin/env bash
# kvload keeps its word: test-load.py.
set -euo pipefail
for tool in python3 zstd; do
    command -v "$tool" >/dev/null || exit 77
done
exec python3 "$(dirname "$0")/test-load.py"
