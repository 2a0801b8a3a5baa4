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
same "format create ls stat mkdir rm mv ln resize import export copy check compact log bench df engines" \
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
        COMP_WORDS=(kvfs "$@"); COMP_CWORD=$#; COMP_LINE="kvfs $*" COMP_POINT=99999
        _kvfs; printf "%s\n" "${COMPREPLY[@]}"' - \
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

# A real bash at a terminal, which divides words at = and : and inserts what it gets.
cat >"$tmp/typed.py" <<'P'
# typed.py COMPLETION FOLDER LINE...: each LINE as it stands after a Tab.
import os, pty, re, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(PS1="$ ", TERM="dumb", INPUTRC="/dev/null", HISTFILE="/dev/null")
    os.chdir(sys.argv[2])
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
seen = b""
def until(pattern):
    global seen
    end = time.monotonic() + 60
    while not (found := re.search(pattern, seen)):
        if not select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
            sys.exit("waited in vain for %r in %r" % (pattern, seen))
        seen += os.read(fd, 4096)
    seen = seen[found.end():]
    return found
until(rb"\$ ")
setup = r'''. "%s"; bind 'set enable-bracketed-paste off'
bind -x '"\C-g": printf "LINE<%%s>ENIL" "$READLINE_LINE"'; echo rea""dy
''' % sys.argv[1]
os.write(fd, os.fsencode(setup))
until(rb"\nready")
for line in sys.argv[3:]:
    os.write(fd, b"\x15" + os.fsencode(line) + b"\t\x07")
    print(os.fsdecode(until(rb"(?s)LINE<(.*?)>ENIL").group(1)))
os.write(fd, b"\x15exit\n")
P
mkdir "$tmp/typing"
mkdir "$tmp/typing/here only"
ok format "$tmp/typing/h2"
ok format "$tmp/typing/h:3"
ok create "$tmp/typing/h2" base0 --size=1M
ok mkdir "$tmp/typing/h2" "dir one"
ok create "$tmp/typing/h2" "dir one/a:b" --size=1M
ok create "$tmp/typing/h:3" third --size=1M
typed() { # AFTER BEFORE: pairs
    local before=() after=() i
    for ((i = 1; i < $#; i += 2)); do
        after+=("${!i}") && before+=("${@:i+1:1}")
    done
    PATH="$(dirname "$KVFS_BIN"):$PATH" python3 "$tmp/typed.py" \
        "$KVFS_SOURCE_DIR/cli/kvfs.bash-completion" "$tmp/typing" "${before[@]}" >"$tmp/out"
    printf '%s\n' "${after[@]}" | diff - "$tmp/out" || fail "completed otherwise (>) than wanted (<)"
}
typed 'kvfs compact ' 'kvfs comp' \
    'kvfs import --block-size=' 'kvfs import --bl' \
    'kvfs format --engine=lmdb ' 'kvfs format --engine=lm' \
    'kvfs import --block-size=4096 h2 base0 ' 'kvfs import --block-size=4096 h2 b' \
    'kvfs import --block-size 4096 h2 base0 ' 'kvfs import --block-size 4096 h2 b' \
    'kvfs import --block-size=4096 h2/' 'kvfs import --block-size=4096 h2' \
    'kvfs import h2 base0 here\ only/' 'kvfs import h2 base0 her' \
    'kvfs ls "h2" base0 ' 'kvfs ls "h2" b' \
    "kvfs ls 'h2' \"base0\" " "kvfs ls 'h2' \"b" \
    'kvfs ls h2 dir\ one ' 'kvfs ls h2 d' \
    'kvfs ls h2 dir\ one/a:b ' 'kvfs ls h2 dir\ one/a:' \
    'kvfs copy h2:base0 ' 'kvfs copy h2:b' \
    'kvfs copy h:3:third ' 'kvfs copy h:3:' \
    'kvfs copy h2:base0 h2:dir\ one ' 'kvfs copy h2:base0 h2:d' \
    'kvfs copy "h2:base0" ' 'kvfs copy "h2:b' \
    'kvfs copy here\ only/' 'kvfs copy her'

# The test that CONTRIBUTING runs by hand is there.
example=$(sed -n 's/.*`ctest --preset dev -R \([^ `]*\) -V`.*/\1/p' "$KVFS_SOURCE_DIR/CONTRIBUTING.md")
[ -n "$example" ] || fail "CONTRIBUTING runs no single test"
grep -Frq "[=[$example]=]" "$KVFS_BINARY_DIR/tests" --include=CTestTestfile.cmake ||
    fail "CONTRIBUTING: there is no test $example"

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
