#!/usr/bin/env bash
# Recordings and other people's tools: QEMU's blklogwrites reads ours and goes on with it; one reader,
# which judges an entry as xfstests' replay-log does, replays ours and QEMU's.  And a full disk: below
# the recording, which then ends while the disk goes on, and below the disk, which then says so.
# Last, that a state follows from the seed.
set -euo pipefail
for tool in nbdkit qemu-io python3; do
    command -v $tool >/dev/null || exit 77
done

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() {
    echo "$*" >&2
    exit 1
}
export dir

cat >"$dir/replay.py" <<'PY'
import struct, sys
log, image, out = open(sys.argv[1], "rb").read(), bytearray(open(sys.argv[2], "rb").read()), sys.argv[3]
magic, version, entries, size = struct.unpack_from("<QQQI", log)
assert magic == 0x6a736677736872 and version == 1 and size == 512, "no log"
at, kinds = 512, []
for i in range(entries):
    sector, count, flags, length = struct.unpack_from("<QQQQ", log, at)
    assert flags or count, "entry %d is malformed: all zeroes" % i
    assert flags == 8 or log[at + 32] == 0, "entry %d is malformed: not padded" % i
    assert flags < 16 and at + 512 <= len(log)
    # --end-mark compares one byte more than the name has, which is to be 0
    assert flags & 8 == 0 or (count == 0 and 0 < length < 480 and log[at + 32 + length] == 0)
    kinds.append(next((k for k, bit in (("D", 4), ("M", 8), ("U", 2), ("F", 1)) if flags & bit), "w"))
    at += 512
    if flags & 4: # no bytes follow, whatever else it is
        image[sector * 512:(sector + count) * 512] = bytes(count * 512)
    else:
        assert count * 512 < 0x7ffff000, "entry %d is more than one read() gives" % i
        assert at + count * 512 <= len(log), "entry %d is cut off" % i
        image[sector * 512:(sector + count) * 512] = log[at:at + count * 512]
        at += count * 512
open(out, "wb").write(image)
print("".join(kinds), at)
PY
cat >"$dir/work.sh" <<'WORK'
set -euo pipefail
work=(-c 'write -q -P 1 0 8k' -c 'write -q -f -P 2 4k 4k' -c flush -c 'write -q -z 8k 4k'
    -c 'write -q -P 3 12k 8k' -c 'discard -q 12k 4k' -c 'write -q -P 4 600k 1536' -c flush)
qemu-io -t writeback "${work[@]}" "$@"
WORK
cat >"$dir/ours.sh" <<'OURS'
set -euo pipefail
"$KVFS_CRASHSIMCTL" "$dir/c" mark 'a mark'
bash "$dir/work.sh" -f raw "$uri"
qemu-img convert -O raw "$uri" "$dir/ours.disk"
OURS

# Ours, by the reader; then QEMU goes on with it, which it can only if it finds the end.
truncate -s 1M "$dir/zeros" "$dir/qemu.disk" "$dir/more.disk"
nbdkit -f -U - --filter="$KVFS_CRASHSIM_FILTER" memory 1M crashsim-record="$dir/ours" \
    crashsim-control="$dir/c" --run 'export uri; bash "$dir/ours.sh"'
read -r kinds end < <(python3 "$dir/replay.py" "$dir/ours" "$dir/zeros" "$dir/replayed")
cmp "$dir/replayed" "$dir/ours.disk"
[[ $kinds == M* && $kinds == *U* && $kinds == *F* && $kinds == *D* ]] || fail "ours is $kinds"
[ "$end" = "$(stat -c %s "$dir/ours")" ] || fail "ours ends at $end"
cp "$dir/ours" "$dir/more"
log='driver=blklogwrites,file.driver=file,log.driver=file,log-super-update-interval=1'
qemu-io -t writeback -c 'write -q -P 5 64k 512' -c flush \
    --image-opts "$log,log-append=on,file.filename=$dir/more.disk,log.filename=$dir/more"
cmp -i 512 -n $((end - 512)) "$dir/ours" "$dir/more" || fail 'QEMU wrote over our entries'
read -r more _ < <(python3 "$dir/replay.py" "$dir/more" "$dir/zeros" "$dir/replayed")
[[ $more == "$kinds"wF* ]] || fail "QEMU made $more of $kinds"

# QEMU's own.
: >"$dir/qemu"
bash "$dir/work.sh" --image-opts "$log,file.filename=$dir/qemu.disk,log.filename=$dir/qemu"
python3 "$dir/replay.py" "$dir/qemu" "$dir/zeros" "$dir/replayed" >/dev/null
cmp "$dir/replayed" "$dir/qemu.disk"
cmp "$dir/qemu.disk" "$dir/ours.disk"

# A full disk: files may have so many blocks of 1024 bytes.
full() { # BLOCKS SCRIPT PLUGIN PARAMETER...
    local blocks=$1 script=$2
    shift 2
    rm -f "$dir/c"
    (
        trap '' XFSZ
        ulimit -f "$blocks"
        exec nbdkit -f -U - --filter="$KVFS_CRASHSIM_FILTER" "$@" crashsim-control="$dir/c" \
            --run "export uri; bash '$script'"
    ) 2>"$dir/said"
}
cat >"$dir/full-log.sh" <<'SCRIPT'
set -euo pipefail
qemu-io -t writeback -f raw -c 'write -q -P 1 0 64k' -c flush -c 'write -q -P 2 64k 64k' -c flush \
    -c 'write -q -P 3 128k 64k' -c flush -c 'read -q -P 3 128k 64k' "$uri"
"$KVFS_CRASHSIMCTL" "$dir/c" stats | grep -q '^recording=failed$'
"$KVFS_CRASHSIMCTL" "$dir/c" cut --survive=drop-all | grep -q '^open=0$'
"$KVFS_CRASHSIMCTL" "$dir/c" power-on
qemu-io -t writeback -f raw -c 'read -q -P 3 128k 64k' "$uri"
SCRIPT
full 100 "$dir/full-log.sh" memory 1M crashsim-record="$dir/cut-off" || fail "$(cat "$dir/said")"
[ "$(grep -c 'the recording ends here' "$dir/said")" = 1 ] || fail "$(cat "$dir/said")"
read -r kinds _ < <(python3 "$dir/replay.py" "$dir/cut-off" "$dir/zeros" "$dir/replayed")
[ "$kinds" = wF ] || fail "what was whole before is $kinds"

truncate -s 1M "$dir/small"
cat >"$dir/full-disk.sh" <<'SCRIPT'
set -euo pipefail
! qemu-io -t writeback -f raw -c 'write -q -P 1 0 16k' -c 'write -q -P 2 512k 16k' -c flush "$uri"
"$KVFS_CRASHSIMCTL" "$dir/c" stats | grep -q '^open=1$'
qemu-io -t writeback -f raw -c 'read -q -P 1 0 16k' -c 'read -q -P 2 512k 16k' "$uri"
"$KVFS_CRASHSIMCTL" "$dir/c" cut --survive=drop-all >/dev/null
"$KVFS_CRASHSIMCTL" "$dir/c" power-on || true # what it records next would not fit
qemu-io -t writeback -f raw -c 'read -q -P 1 0 16k' -c 'read -q -P 0 512k 16k' "$uri"
SCRIPT
full 100 "$dir/full-disk.sh" file "$dir/small" crashsim-record="$dir/full" || fail "$(cat "$dir/said")"
# The recording knows what a flush that failed had done before.
truncate -s 1M "$dir/small"
"$KVFS_CRASHSIM" replay "$dir/full" -o "$dir/full.disk" >/dev/null
cmp "$dir/small" "$dir/full.disk" || fail 'the recording of a full disk is of another'

# A cut whose choice names a change that is not: none of them, and its recording says so.
truncate -s 1M "$dir/one"
nbdkit -f -U - --filter="$KVFS_CRASHSIM_FILTER" file "$dir/one" crashsim-survive=only-one:7 \
    crashsim-record="$dir/one.rec" crashsim-cut-after-writes=2 \
    --run 'export uri; ! bash "$dir/work.sh" -f raw "$uri"' 2>"$dir/said"
"$KVFS_CRASHSIM" replay "$dir/one.rec" -o "$dir/one.disk" >/dev/null
cmp "$dir/one" "$dir/one.disk" || fail 'a cut that names no change is another in its recording'

# The same seed and the same requests of one client: the same state.  Another seed: another.
for seed in 7 7 8; do
    rm -f "$dir/disk"
    truncate -s 1M "$dir/disk"
    nbdkit -f -U - --filter="$KVFS_CRASHSIM_FILTER" file "$dir/disk" crashsim-seed=$seed \
        crashsim-cache=16K crashsim-cut-after-writes=5 crashsim-lying-flush=50% \
        crashsim-rot=0,1048576,3 --run 'export uri; ! bash "$dir/work.sh" -f raw "$uri"' 2>"$dir/said"
    sha256sum <"$dir/disk" >>"$dir/sums"
done
[ "$(uniq "$dir/sums" | wc -l)" = 2 ] || fail "$(cat "$dir/sums")"
