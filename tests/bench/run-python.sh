#!/usr/bin/env bash
# kvload and kvdir keep their word: the script of this folder that is named.
set -euo pipefail
for tool in python3 zstd; do
    command -v "$tool" >/dev/null || exit 77
done
exec python3 "$(dirname "$0")/$1"
