#!/usr/bin/env bash
# fio as judge: random blocks of 512 B to 256 KiB, each with a checksum of its own, written at
# queue depth 16 with flushes in between, first over NBD, then through the kernel (loop, ext4).
#
# Over NBD the server is killed between writing (closed by a flush) and reading.  The flush comes
# from a second fio: the first one's --end_fsync is now and then left out (fio 3.33, nbd engine at a
# depth above 1, when --fsync has sent some; seen on the wire in 1 run of 100).
# shellcheck source=tests/kernel/loop.sh
source "$(dirname "$0")/loop.sh"

serve_init
need fio
loop_need ext4 mkfs.ext4 e2fsck

# fio_run ENGINE-OPTION...: quiet unless it fails.
fio_run()
{
    timeout 100 fio --aux-path="$work" --name=verify --rw=randwrite --bsrange=512-256k --iodepth=16 \
        --verify=crc32c --verify_fatal=1 --randseed="$seed" --thread --group_reporting \
        --output="$work/fio.out" "$@" >"$work/fio.err" 2>&1 ||
        { cat "$work/fio.out" "$work/fio.err"; die "fio found a fault"; }
}

nbd=(--ioengine=nbd "--uri=$uri" --size=96M --fsync=64)
say "over NBD: write, flush, kill, verify"
serve_start 128M
fio_run "${nbd[@]}" --do_verify=0
fio_run --ioengine=nbd "--uri=$uri" --rw=write --offset=120M --size=16k --bsrange=4k-4k --iodepth=1 \
    --fsync=1 --do_verify=0
serve_kill
serve_start 128M
fio_run "${nbd[@]}" --verify_only=1
say "over NBD: write over it and verify at once"
fio_run "${nbd[@]}" --verify_backlog=256 --serialize_overlap=1
serve_stop

say "through the kernel: ext4 on a loop device"
serve_start 128M
loop_attach
mkfs.ext4 -q -F "$loop"
loop_mount ext4
fio_run --ioengine=libaio --directory="$mnt" --size=64M --fsync=100 --end_fsync=1 --do_verify=0
loop_umount
loop_detach
serve_stop
serve_start 128M
loop_attach
loop_mount ext4
fio_run --ioengine=libaio --directory="$mnt" --size=64M --verify_only=1
loop_umount
e2fsck -fn "$loop" >/dev/null 2>&1 || die "e2fsck found damage"
loop_detach
serve_stop
say "ok"
