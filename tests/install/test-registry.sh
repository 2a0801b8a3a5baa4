#!/usr/bin/env bash
# The registry has every engine of engines/CMakeLists.txt, in that order, wherever in that file
# its line stands; those that stand on others come last.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/src"
(cd "$KVFS_SOURCE_DIR" && cp -a CMakeLists.txt cmake kvfs engines plugin cli vfs tools bench crashsim "$tmp/src/")
for name in last first; do
    mkdir "$tmp/src/engines/$name"
    echo "kvfs_add_engine($name SOURCES $name.c)" >"$tmp/src/engines/$name/CMakeLists.txt"
    : >"$tmp/src/engines/$name/$name.c"
done
lists=$tmp/src/engines/CMakeLists.txt
echo 'add_subdirectory(last)' >>"$lists"
{ echo 'add_subdirectory(first)' && cat "$lists"; } >"$tmp/lists"
mv "$tmp/lists" "$lists"
cmake -G Ninja -S "$tmp/src" -B "$tmp/b" -DCMAKE_C_COMPILER="$CC" -DBUILD_TESTING=OFF \
    >"$tmp/log" 2>&1 || { cat "$tmp/log" && exit 1; }
found=$(tr -d '\n' <"$tmp/b/kvfs/engines.inc")
case $found in
"KVFS_ENGINE(first)KVFS_ENGINE(mem)"*"KVFS_ENGINE(last)KVFS_ENGINE(hybrid) KVFS_WRAPPER(hybrid)KVFS_ENGINE(log) KVFS_WRAPPER(log)") ;;
*)
    echo "FAILED: the registry is $found"
    exit 1
    ;;
esac
