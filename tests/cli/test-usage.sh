#!/usr/bin/env bash
# shellcheck disable=SC2154 # lib.sh sets tmp, seed and others
#
# Help, version, wrong use; --help, the man page and the completion tell the same options.
# shellcheck source=/dev/null
. "$(dirname "$0")/lib.sh"

kvfs --version | grep -Eqx 'kvfs [0-9]+\.[0-9]+\.[0-9]+' || fail "version"
kvfs --help >"$tmp/help"
same "$(cat "$tmp/help")" "$(kvfs help)" "help"
mapfile -t commands < <(sed -n 's/^  \([a-z]*\) .*/\1/p' "$tmp/help" | grep -vx help)
same "format create ls stat mkdir rm mv ln resize import export copy check compact df engines" \
    "${commands[*]}" "commands"

refuses "no command"
refuses "unknown command: frobnicate" frobnicate
refuses "unknown option: --frob" --frob
refuses "unknown command" help frobnicate
refuses "unknown or ambiguous option --frob" ls --frob "$tmp"
refuses "unknown or ambiguous option -Z" ls -Z "$tmp"
refuses "takes no value" ls --json=yes "$tmp"
refuses "value is missing behind --size" create a b --size
for c in "${commands[@]}"; do
    same "$(kvfs "$c" --help)" "$(kvfs help "$c")" "help $c"
    kvfs "$c" --help | head -1 | grep -q "^Usage: kvfs $c" || fail "usage of $c"
    refuses "^kvfs: $c: unknown or ambiguous option --frob" "$c" --frob
    [ "$c" = engines ] || refuses "^kvfs: $c: too few arguments" "$c"
done
refuses "too many arguments" engines x
status=0
kvfs ls 2>/dev/null || status=$?
same 2 $status "status of wrong use"

# Options: the truth is --help.
options_help() {
    kvfs "$1" --help | sed -n 's/^  \(-[a-zA-Z]\)\?,\? *\(--[a-z-]*\(=[A-Z]*\)\?\) .*/\1 \2/p' |
        tr ' ' '\n' | grep . | sort
}
options_man() {
    sed -n "/^\.SS \"kvfs $1 /,/^\.S[SH]/p; /^\.SS \"kvfs $1\"/,/^\.S[SH]/p" \
        "$KVFS_SOURCE_DIR/cli/kvfs.1" | sed -n '/^\.BI\? .*\\-/p; /^\.BR .*\\-/p' |
        sed 's/\\-/-/g; s/^\.B[IR]* //; s/", "/ /; s/= \([A-Z]*\)$/=\1/' | tr ' ' '\n' |
        grep '^-' | sort
}
for c in "${commands[@]}"; do
    options_help "$c" >"$tmp/a"
    [ "$(wc -l <"$tmp/a")" -ge 1 ] || fail "no options found in the help of $c"
    { options_man "$c" && echo --help; } | sort >"$tmp/b"
    diff "$tmp/a" "$tmp/b" || fail "$c: --help (<) and man page (>)"
    bash -c '. "$1"; _kvfs_options "$2"' - "$KVFS_SOURCE_DIR/cli/kvfs.bash-completion" "$c" |
        tr ' ' '\n' | sort >"$tmp/b"
    sed 's/=.*/=/' "$tmp/a" | sort | diff - "$tmp/b" || fail "$c: --help (<) and completion (>)"
done
same "${commands[*]} help" "$(bash -c '. "$1"; echo $_kvfs_commands' - \
    "$KVFS_SOURCE_DIR/cli/kvfs.bash-completion")" "commands of the completion"

# The completion itself: commands, options, names in a volume.
complete_words() { # WORD...: the last is being completed
    PATH="$(dirname "$KVFS_BIN"):$PATH" bash -c '. "$1"; shift
        COMP_WORDS=(kvfs "$@"); COMP_CWORD=$#; _kvfs; printf "%s\n" "${COMPREPLY[@]}"' - \
        "$KVFS_SOURCE_DIR/cli/kvfs.bash-completion" "$@" 2>/dev/null | tr '\n' ' '
}
same "create copy check compact " "$(complete_words c)"
same "--block-size= " "$(complete_words import --b)"
ok format "$tmp/v"
ok mkdir "$tmp/v" folder
ok create "$tmp/v" folder/disk0 --size=1M
same "folder " "$(complete_words ls "$tmp/v" fo)"
same "folder/disk0 " "$(complete_words export "$tmp/v" folder/d)"
# A name is never run, and comes quoted.
# shellcheck disable=SC2016 # the shell must not see it
evil='x y$(touch evil)'
ok mkdir "$tmp/v" "$evil"
(cd "$tmp" && complete_words ls v x) >"$tmp/out"
[ ! -e "$tmp/evil" ] || fail "completing runs what stands in a name"
same "$(printf '%q ' "$evil")" "$(cat "$tmp/out")" "a quoted name"
same "$(printf '%q ' "$evil")" "$(cd "$tmp" && complete_words ls v 'x\ y')" "completed on"
ok rm -r "$tmp/v" "$evil"

# An empty argument is an unset variable as a rule, and never the root.
refuses "argument is empty" ls ""
refuses "argument is empty" ls "$tmp/v" ""
refuses "argument is empty" rm -r "$tmp/v" ""
refuses "no volume before the colon" copy "$tmp/v:folder" :x

# A standard descriptor that is closed: its number must not go to the volume's own files.
head -c 300000 /dev/zero | tr '\0' x >"$tmp/data"
ok import "$tmp/v" f "$tmp/data"
for c in "ls $tmp/v" "export $tmp/v f -" "export $tmp/v f" "check $tmp/v"; do
    status=0
    # shellcheck disable=SC2086
    kvfs $c >&- 2>"$tmp/stderr" || status=$?
    one_line $status "standard output: Bad file descriptor" "$c >&-"
done
status=0
kvfs import "$tmp/v" none - <&- 2>"$tmp/stderr" || status=$?
one_line $status "standard input: Bad file descriptor" "import <&-"
kvfs mkdir "$tmp/v" quiet <&- >&- 2>&- || fail "a command without descriptors"
status=0
kvfs export "$tmp/v" nowhere - <&- >&- 2>&- || status=$?
same 1 $status "an error that nobody hears"
same $'f\nfolder\nquiet' "$(kvfs ls "$tmp/v")" "names after all that"
kvfs export "$tmp/v" f - | cmp - "$tmp/data" || fail "bytes after all that"
kvfs check "$tmp/v" >"$tmp/out" || fail "check after all that: $(cat "$tmp/out")"

# Bad output is a failure too.
if [ -c /dev/full ]; then
    status=0
    kvfs ls "$tmp/v" >/dev/full 2>"$tmp/stderr" || status=$?
    one_line $status "standard output: No space" "ls >/dev/full"
fi
