#!/usr/bin/env bash
# record.sh OUT PREPARE COMMAND: record what COMMAND, as its store, does to a disk with an ext4.
#
# Both are run by a shell in the top folder of the file system, PREPARE before anything is recorded;
# CRASHSIM_MARK is then a command that sets the mark it is given.  When COMMAND has ended the power is cut.
# Made: OUT/base.img, the disk before, and OUT/recording.  It needs root, nbdkit, nbdfuse and mkfs.ext4.
#
# KVFS_CRASHSIM_FILTER, KVFS_CRASHSIMCTL: where they are, if not installed.
set -euo pipefail

[[ $# -eq 3 ]] || { echo "usage: record.sh OUT PREPARE COMMAND" >&2; exit 2; }
[[ $(id -u) -eq 0 ]] || { echo "mounting needs root" >&2; exit 77; }
filter=${KVFS_CRASHSIM_FILTER:-crashsim}
export KVFS_CRASHSIMCTL=${KVFS_CRASHSIMCTL:-crashsimctl}
mkdir -p "$1"
out=$(cd "$1" && pwd)
mkdir "$out/fuse" "$out/mnt"
end() {
    set +e
    ! mountpoint -q "$out/mnt" || umount -l "$out/mnt" # its device does not answer any more
    ! mountpoint -q "$out/fuse" || fusermount3 -uz "$out/fuse"
    [[ ! -e $out/pid ]] || kill "$(cat "$out/pid")"
    wait
    rmdir "$out/fuse" "$out/mnt"
    rm -f "$out/pid" "$out/fuse.pid" "$out/sock" "$out/ctl" "$out/disk.img"
}
trap end EXIT

# Nothing is left for the kernel to do later, and a journal of which the recording stays small.
truncate -s 16M "$out/base.img"
mkfs.ext4 -q -b 4096 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard "$out/base.img"
mount -o loop,noatime "$out/base.img" "$out/mnt"
(cd "$out/mnt" && sh -c "$2")
umount "$out/mnt"
cp --sparse=always "$out/base.img" "$out/disk.img"

nbdkit -P "$out/pid" -U "$out/sock" --filter="$filter" file "$out/disk.img" \
    crashsim-control="$out/ctl" crashsim-record="$out/recording"
nbdfuse -P "$out/fuse.pid" "$out/fuse/disk" "nbd+unix:///?socket=$out/sock" &
until [[ -s $out/fuse.pid ]]; do
    kill -0 $! || exit 1
    sleep 0.01
done
rm "$out/fuse.pid"
mount -o loop,noatime "$out/fuse/disk" "$out/mnt"
sync -f "$out/mnt" # what mounting changed in place, past the journal, is no doing of COMMAND
export CRASHSIM_MARK="'$KVFS_CRASHSIMCTL' '$out/ctl' mark"
(cd "$out/mnt" && sh -c "$3")
"$KVFS_CRASHSIMCTL" "$out/ctl" cut >/dev/null
