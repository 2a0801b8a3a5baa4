#!/usr/bin/env bash
# Debian's source of the SQLite that is installed here: sqlite-source.sh FOLDER
# fetches and unpacks it into FOLDER, once, and says which folder inside.  The list of sources is
# derived from the machine's own, and lies in FOLDER as all else does; nothing of the machine is
# changed.  77: this is no Debian, or it cannot be had.
set -euo pipefail
folder=$1
exec 9>"$folder.lock"
flock 9
if [ -f "$folder/done" ]; then
    cat "$folder/done"
    exit 0
fi
skip() {
    echo "skipped: $*" >&2
    exit 77
}
if ! command -v apt-get >/dev/null || ! command -v xz >/dev/null; then
    skip "no apt-get or no xz"
fi
version=$(dpkg-query -W -f='${source:Version}' libsqlite3-0 2>/dev/null) || skip "no libsqlite3-0"
rm -rf "$folder"
mkdir -p "$folder/parts" "$folder/lists/partial" "$folder/cache/archives/partial"
shopt -s nullglob
for list in /etc/apt/sources.list.d/*.sources; do
    if grep -q '^URIs:.*debian' "$list"; then
        sed 's/^Types:.*/Types: deb-src/' "$list" >"$folder/parts/${list##*/}"
    fi
done
sed -n 's/^deb \(.*debian.*\)/deb-src \1/p' /etc/apt/sources.list /etc/apt/sources.list.d/*.list \
    >"$folder/parts/own.list" 2>/dev/null || true
options=(-q -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$folder/parts"
    -o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache"
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb-src::DEP-11::DefaultEnabled=false)
[ "$(id -u)" != 0 ] || options+=(-o APT::Sandbox::User=root)
cd "$folder"
{ apt-get "${options[@]}" update && apt-get "${options[@]}" --download-only --tar-only source "sqlite3=$version"; } \
    >"$folder/log" 2>&1 </dev/null || {
    tail -5 "$folder/log" >&2
    skip "the source of sqlite3 $version cannot be fetched"
}
mkdir src
tar -C src --strip-components=1 --wildcards -xf sqlite3_*.orig.tar.xz '*/test/*.[ch]' '*/mptest/*' '*/src/test_multiplex.[ch]'
rm -rf lists cache sqlite3_*
echo "$folder/src" | tee "$folder/done"
