#!/usr/bin/env bash
# mkfs.ext4 on a disk of 1 TiB stores little: under 40 MB, however large the disk is.
#
# The time is printed, not judged: the aim is under 5 s.  (Through nbdfuse and a loop device
# mkfs cannot trim; the guest test trims the way nbd-client does.)
# shellcheck source=tests/kernel/loop.sh
source "$(dirname "$0")/loop.sh"

serve_init
loop_need ext4 mkfs.ext4 e2fsck
noise_tree "$work/tree"
tree_sums "$work/tree" >"$work/tree.sums"

serve_start 1T
loop_attach
before=${EPOCHREALTIME/./}
mkfs.ext4 -q -F "$loop"
sync "$work/fuse/disk"
after=${EPOCHREALTIME/./}
say "mkfs.ext4 on 1 TiB: $(((after - before) / 1000)) ms with the closing flush"
loop_detach
serve_stop

stored=$(($(du -s --block-size=1 "$volume" | cut -f 1)))
say "stored: $stored bytes"
((stored < 40000000)) || die "an empty file system on 1 TiB takes $stored bytes"

serve_start 1T
loop_attach
loop_mount ext4
cp -a "$work/tree" "$mnt/tree"
loop_umount
loop_mount ext4
tree_sums "$mnt/tree" | cmp - "$work/tree.sums" || die "the tree differs from what was written"
loop_umount
loop_detach
serve_stop
say "ok"
