#!/usr/bin/env bash
# Every script of the tree is clean in shellcheck's eyes.
set -euo pipefail
command -v shellcheck >/dev/null || exit 77
cd "$KVFS_SOURCE_DIR"
mapfile -t scripts < <(find bootstrap .ci tests bench cli plugin tools -type f \
    \( -name '*.sh' -o -name '*.bash-completion' -o -path bootstrap -o -path '.ci/*' \) 2>/dev/null)
echo "checking ${#scripts[@]} scripts"
[ ${#scripts[@]} -ge 4 ]
shellcheck "${scripts[@]}"
