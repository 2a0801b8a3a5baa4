#!/usr/bin/env bash
# test-filesystem.sh ext4|xfs|btrfs: the running kernel keeps a file system on our disk.
#
# The disk comes as a file of nbdfuse, and that as a loop device.  mkfs, mount, copy a tree,
# unmount, fsck; the server ends and starts again, and the tree is the same.  Then the server is
# killed in the middle of writing: after the next start the file system mounts, what was synced is
# there, and fsck finds nothing.
# shellcheck source=tests/kernel/loop.sh
source "$(dirname "$0")/loop.sh"

kind=${1:?usage: test-filesystem.sh ext4|xfs|btrfs}
size=1G

case $kind in
ext4) make=(mkfs.ext4 -q -F) check=(e2fsck -fn) ;;
xfs) make=(mkfs.xfs -q -f) check=(xfs_repair -n) ;;
btrfs) make=(mkfs.btrfs -q -f) check=(btrfs check --readonly) ;;
*) die "unknown file system $kind" ;;
esac

# same_tree NAME: the copy in $mnt equals what was written, read from the disk.
same_tree()
{
    tree_sums "$mnt/$1" | cmp - "$work/$1.sums" || die "$1 differs from what was written"
}

fs_check() { "${check[@]}" "$loop" >"$work/fsck" 2>&1 || { cat "$work/fsck"; die "fsck found damage"; }; }

serve_init
loop_need "$kind" "${make[0]}" "${check[0]}"
noise_tree "$work/tree"
tree_sums "$work/tree" >"$work/tree.sums"

say "$kind: make, copy, unmount, check"
serve_start $size
loop_attach
"${make[@]}" "$loop"
loop_mount "$kind"
cp -a "$work/tree" "$mnt/tree"
loop_umount
fs_check
loop_detach
serve_stop

say "$kind: the same tree from a new server; then more, synced, and a kill while writing"
serve_start $size
loop_attach
loop_mount "$kind"
same_tree tree
cp -a "$work/tree" "$mnt/second"
cp "$work/tree.sums" "$work/second.sums"
sync -f "$mnt"
mkfifo "$work/busy"
(
    # Runs until the disk fails under it; says so when it has written something unsynced.
    cat "$work/tree/big" >"$mnt/busy"
    echo go >"$work/busy"
    while dd if="$work/tree/big" of="$mnt/busy" bs=64k conv=fsync; do :; done
) >/dev/null 2>&1 &
busy=$!
read -r -t 60 _ <"$work/busy" || die "the writer wrote nothing"
serve_kill
wait $busy || true
loop_umount
loop_detach

say "$kind: after the kill"
serve_start $size
loop_attach
loop_mount "$kind"
same_tree tree
same_tree second
loop_umount
fs_check
loop_detach
serve_stop
say "ok"
