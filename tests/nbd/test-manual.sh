#!/usr/bin/env bash
# The parameters that nbdkit --help lists, those that the manual page has, and
# those that the plugin accepts are the same; --dump-plugin says what it must.
set -euo pipefail
command -v nbdkit >/dev/null || exit 77

manual="$KVFS_SOURCE_DIR/plugin/nbdkit-kvfs-plugin.1"
nbdkit_() {
    LD_PRELOAD=${KVFS_PRELOAD:-} ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" nbdkit "$@"
}

# Lines such as "cache=SIZE   ..." and "[volume=]PATH ..." behind the description.
help=$(nbdkit_ "$KVFS_PLUGIN" --help | sed -n 's/^\[\{0,1\}\([a-z-]*\)=.*/\1/p' | sort)
# Entries of the section PARAMETERS, and the synopsis.
entries=$(sed -n '/^\.SH PARAMETERS/,/^\.SH WHAT/p' "$manual" | grep -A1 '^\.TP' |
    sed -n 's/\\-/-/g; s/^\.\(B\|BI\|RB \[\) *\([a-z-]*\)=.*/\2/p' | sort)
synopsis=$(sed -n '/^\.SH SYNOPSIS/,/^\.SH DESCRIPTION/p' "$manual" |
    sed -n 's/\\-/-/g; s/^\.RB \[ *\([a-z-]*\)=.*/\1/p' | sort)

fail() {
    echo "$1" >&2
    exit 1
}

[ -n "$help" ] || fail "no parameters in --help"
[ "$help" = "$entries" ] || fail "--help has: $help; the manual has: $entries"
[ "$help" = "$synopsis" ] || fail "--help has: $help; the synopsis has: $synopsis"

# A parameter is known if a bad value of it is refused for the value's sake.  The
# candidates are all words that the sources could mean.
known=$(for key in $help file-name size path export params create-size sync journal cache-size; do
    said=$(nbdkit_ -f -U - "$KVFS_PLUGIN" "$key=" 2>&1 --run true || true)
    case $said in
        *"unknown parameter"*) ;;
        *) echo "$key" ;;
    esac
done | sort)
[ "$help" = "$known" ] || fail "--help has: $help; accepted are: $known"
in_table=$(sed -n 's/^ *{"\([a-z-]*\)", params_set_.*/\1/p' "$KVFS_SOURCE_DIR/plugin/params.c" | sort)
[ "$help" = "$in_table" ] || fail "--help has: $help; params.c has: $in_table"

dump=$(nbdkit_ "$KVFS_PLUGIN" --dump-plugin)
for line in '^name=kvfs$' '^version=[0-9.]*$' '^kvfs_version=[0-9.]*$' '^kvfs_engines=.' \
    '^kvfs_engine_lmdb=.' '^magic_config_key=volume$' '^thread_model=parallel$'; do
    grep -q "$line" <<<"$dump" || fail "--dump-plugin lacks $line"
done
[ "$(sed -n 's/^version=//p' <<<"$dump")" = "$(sed -n 's/^kvfs_version=//p' <<<"$dump")" ] ||
    fail "two versions in --dump-plugin"
