#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# mkdir, rm, mv, ln, ls, stat.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"
v=$tmp/v
ok format "$v"

# mkdir, create, ls
ok mkdir "$v" a /b
ok mkdir -p "$v" a/x/y/z
ok mkdir -p "$v" a/x/y/z
refuses "a" mkdir "$v" a
refuses "no such|missing|not" mkdir "$v" missing/c
ok create "$v" a/disk --size=64K
same $'a\nb' "$(kvfs ls "$v")" "ls"
same $'disk\nx' "$(kvfs ls "$v" a)" "ls a"
same $'/:\na\nb\n\n/a:\ndisk\nx\n\n/a/x:\ny\n\n/a/x/y:\nz\n\n/a/x/y/z:\n\n/b:' "$(kvfs ls -R "$v" /)"
same "a" "$(kvfs ls -d "$v" a)" "ls -d"
same $'disk\nx' "$(kvfs ls -U "$v" a | sort)" "ls -U"
kvfs ls -l "$v" a | grep -Eq '^-rw-r--r-- +1 +[0-9]+ +[0-9]+ +65536 .* disk$' || fail "ls -l"
refuses "nowhere" ls "$v" nowhere
refuses "disk" mkdir "$v" a/disk/below

# mv
ok mv "$v" a/disk a/disk2
ok mv "$v" a/disk2 b
same "disk2" "$(kvfs ls "$v" b)" "mv into a folder"
ok create "$v" other --size=128K
refuses "exist" mv -n "$v" other b/disk2
ok mv --exchange "$v" other b/disk2
same 131072 "$(kvfs stat --json "$v" b/disk2 | json "j[0]['size_bytes']")" "exchange"
ok mv "$v" other b/disk2
same 65536 "$(kvfs stat --json "$v" b/disk2 | json "j[0]['size_bytes']")" "replace"
refuses "" mv "$v" a a/x
refuses "exclude" mv -n --exchange "$v" a b
ok create "$v" one --size=512
ok create "$v" two --size=512
refuses "no folder" mv "$v" one two b/disk2
ok mv "$v" one two b
same $'disk2\none\ntwo' "$(kvfs ls "$v" b)" "mv of many"
ok mkdir "$v" empty
ok mv -T "$v" empty a/x/y/z
refuses "" mv -T "$v" b a

# ln
ok ln "$v" b/one hard
same 2 "$(kvfs stat --json "$v" b/one | json "j[0]['nlink']")" "links"
same "$(kvfs stat --json "$v" b/one | json "j[0]['ino']")" \
    "$(kvfs stat --json "$v" hard | json "j[0]['ino']")" "inode"
ok ln -s "$v" b/one soft
ok ln -s "$v" "../some where" a
same "b/one" "$(kvfs stat --json "$v" soft | json "j[0]['target']")" "target"
kvfs ls -l "$v" | grep -q 'soft -> b/one$' || fail "ls -l of a link"
same "../some where" "$(kvfs ls -l --json "$v" a | json "[e['target'] for e in j if 'target' in e][0]")"
refuses "" ln "$v" b dirlink
refuses "exist" ln "$v" b/one hard

# stat
kvfs stat "$v" hard >"$tmp/out"
for key in path ino type mode mode_octal uid gid nlink rdev size_bytes block_size_bytes version \
    atime mtime ctime crtime; do
    grep -q "^$key " "$tmp/out" || fail "stat does not tell $key"
done
grep -q "^type  *file$" "$tmp/out" || fail "type"
same folder "$(kvfs stat --json "$v" / | json "j[0]['type']")"
random_file "$tmp/r" 100000
ok import "$v" data "$tmp/r"
same 102400 "$(kvfs stat -u --json "$v" data | json "-(-j[0]['used_bytes'] // 4096) * 4096")" "used"
refuses "nowhere" stat "$v" nowhere

# Names of any bytes: exact through a pipe, in JSON with their hex form, never raw on a terminal.
odd=$'\xff\e[31m\nx'
ok mkdir "$v" "$odd" 'grün "q"'
kvfs ls "$v" | grep -aq $'\xff\e' || fail "ls changes bytes in a pipe"
kvfs ls --json "$v" | json "'/grün \"q\"' in [e['path'] for e in j]" | grep -qx True || fail "utf-8"
same 2fff1b5b33316d0a78 "$(kvfs ls --json "$v" | json "[e['path_hex'] for e in j if 'path_hex' in e][0]")"
if command -v script >/dev/null; then
    script -qec "'$KVFS_BIN' ls '$v'" /dev/null </dev/null >"$tmp/out"
    ! grep -aq $'\e' "$tmp/out" || fail "a name steers the terminal"
    grep -aq 'grün' "$tmp/out" || fail "utf-8 on the terminal"
fi
same 1 "$(kvfs mkdir "$v" "no"$'\n'"where/a" 2>&1 | wc -l)" "lines of an error about an odd name"

# What else could steer a terminal: C1 control characters, bare bytes, reordered text.
steer=$'c1\xc2\x9b31m\x9b32m\xe2\x80\xaetxt'
ok mkdir "$v" "$steer"
kvfs ls --json "$v" | json "len(j) > 0" | grep -qx True || fail "JSON of odd names"
if command -v script >/dev/null; then
    script -qec "'$KVFS_BIN' ls '$v'" /dev/null </dev/null >"$tmp/out"
    grep -aq 'c1?31m?32m?txt' "$tmp/out" || fail "C1 on the terminal: $(cat -v "$tmp/out")"
fi
kvfs rm "$v" "$steer" 2>"$tmp/stderr" || true
grep -q 'c1?31m?32m?txt' "$tmp/stderr" || fail "C1 in an error: $(cat -v "$tmp/stderr")"
ok rm -r "$v" "$steer"

# A missing folder is named, and so is the path.
for c in "create --size=1M $v" "mkdir $v" "import $v" "mv $v data" "ln $v data" "ln -s $v data" \
    "copy $v:data"; do
    case $c in
    import*) behind=$tmp/r ;;
    *) behind= ;;
    esac
    where="b/nodir/deep/x"
    case $c in copy*) c="$c $v:$where" where= ;; esac
    # shellcheck disable=SC2086
    refuses "b/nodir/deep/x: there is no folder 'nodir'" $c $where $behind
done
refuses "b/nodir/x: there is no folder 'nodir'" rm "$v" b/nodir/x
refuses "b/nodir/x: there is no folder 'nodir'" resize "$v" b/nodir/x 1M
refuses "b/nodir/x: there is no folder 'nodir'" export "$v" b/nodir/x -
refuses "b/nothing: 'nothing': no such" stat "$v" b/nothing
# The reason is seen, however long the path.
refuses "nnnn: a name of 300 bytes" mkdir "$v" "$(printf './%.0s' $(seq 500))$(printf 'n%.0s' $(seq 300))"

# The root and the dots are no names to make or remove.
for c in "rm" "rm -r" "mkdir" "create --size=1M" "import"; do
    # shellcheck disable=SC2086
    refuses "/: is the root folder" $c "$v" /
    # shellcheck disable=SC2086
    refuses "'.' is no name" $c "$v" .
    # shellcheck disable=SC2086
    refuses "b/..: '..' is no name" $c "$v" b/..
done
refuses "/: is the root folder" mv "$v" / b
refuses "'.' is no name" rm -r "$v" b/.

# A slash at the end says "folder": fine for one, refused for a file.
refuses "new/: a file's name cannot end in a slash" create "$v" new/ --size=1M
refuses "new/: a file's name cannot end in a slash" import "$v" new/ "$tmp/r"
refuses "new/: a file's name cannot end in a slash" mv "$v" data new/
refuses "new/: a file's name cannot end in a slash" mv -T "$v" data new/
refuses "new/: a file's name cannot end in a slash" ln "$v" data new/
refuses "new/: a file's name cannot end in a slash" ln -s "$v" data new/
refuses "new/: a file's name cannot end in a slash" copy "$v:data" "$v:new/"
refuses "no folder" rm "$v" data/
refuses "no folder" mv "$v" data/ new
! kvfs ls "$v" | grep -qx new || fail "a refused name is there"
ok mkdir "$v" slash/
ok mv "$v" slash/ slash2/
ok mv "$v" slash2 b/
ok rm -r "$v" b/slash2/

# rm
refuses "" rm "$v" a
refuses "nowhere" rm "$v" nowhere
ok rm -f "$v" nowhere
ok rm "$v" hard soft
same 1 "$(kvfs stat --json "$v" b/one | json "j[0]['nlink']")" "links left"
ok rm -r "$v" a b "$odd"
same "data" "$(kvfs ls "$v" | head -1)" "left"
refuses "" rm -r "$v" /
refuses "" rm -r "$v" .

# A folder of more names than are read at a time, and a deep tree, vanish.
mapfile -t many < <(seq -f 'many/n%g' 600)
ok mkdir -p "$v" many "${many[@]}"
same 600 "$(kvfs ls "$v" many | wc -l)"
same 600 "$(kvfs ls -U "$v" many | sort -u | wc -l)" "unsorted"
deep=many$(printf '/d%.0s' $(seq 300))
ok mkdir -p "$v" "$deep"
same 902 "$(kvfs ls -R --json "$v" many | json "len(j) + 1 + 1")"
ok rm -r "$v" many
! kvfs ls "$v" | grep -q many || fail "rm -r left something"
kvfs check "$v" >"$tmp/out" || fail "check: $(cat "$tmp/out")"

# One name has one spelling in a message, however odd it is; a long one is not said twice either.
refuses "^kvfs: rm: 'a.x1b\[31mz': no such entry$" rm "$v" $'a\x1b[31mz'
ok mkdir "$v" spelling
refuses "^kvfs: rm: spelling/a.x1b.x5cz: 'a.x1b.x5cz': no such entry$" rm "$v" $'spelling/a\x1b\\z'
refuses "^kvfs: rm: '(ab){20,}a?[.]{3}': no such entry$" rm "$v" "$(printf 'ab%.0s' $(seq 100))"
