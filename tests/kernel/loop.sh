# shellcheck shell=bash
# Sourced: the disk as a loop device of this machine, by nbdfuse.  Begins with all of serve.sh.
#
# loop_attach sets $loop; loop_mount puts the file system at $mnt.  Whatever a test leaves behind
# when it fails is undone by the trap of serve_init: unmount, loop device, nbdfuse, server.
# shellcheck source=tests/kernel/serve.sh
source "$(dirname "${BASH_SOURCE[0]}")/serve.sh"

loop='' mnt='' fuse='' fuse_job='' mounted=''

# loop_need KIND TOOL...: root, the kernel's drivers and the tools, or the test is skipped.
loop_need()
{
    local kind=$1 driver
    shift
    [[ $(id -u) -eq 0 ]] || skip "mounting needs root"
    need nbdfuse losetup mount umount "$@"
    [[ -c /dev/fuse && -c /dev/loop-control ]] || skip "no /dev/fuse or /dev/loop-control"
    for driver in fuse $kind; do
        if ! grep -qw "$driver" /proc/filesystems; then
            modprobe -q "$driver" 2>/dev/null || skip "this kernel has no $driver"
        fi
    done
    mnt=$work/mnt
    mkdir -p "$mnt" "$work/fuse"
    on_exit loop_cleanup
}

# loop_attach: nbdfuse on the served disk, and a loop device on its file.
loop_attach()
{
    rm -f "$work/fuse.pid"
    mkfifo "$work/fuse.pid"
    exec 8<>"$work/fuse.pid"
    # As with the server: a pid comes when the file is there, the other line when it ended.
    (
        exec 8<&-
        status=0
        nbdfuse -P "$work/fuse.pid" "$work/fuse/disk" "$uri" || status=$?
        [[ ! -p $work/fuse.pid ]] || echo ended 1<>"$work/fuse.pid"
        exit "$status"
    ) 2>>"$work/server.err" &
    fuse_job=$!
    # One byte tells: nbdfuse writes its pid without a newline.
    read -r -N 1 -t 60 -u 8 fuse || die "nbdfuse neither mounts nor ends"
    exec 8<&-
    [[ $fuse != e ]] || { fuse=''; die "nbdfuse ended at once"; }
    loop=$(losetup -f --show "$work/fuse/disk")
}

loop_detach()
{
    losetup -d "$loop"
    loop=''
    umount "$work/fuse"
    fuse=''
    wait "$fuse_job" || true
}

loop_mount() # KIND
{
    mount -t "$1" "$loop" "$mnt"
    mounted=yes
}

# After the server was killed the last writes of an unmount fail: that is the point of the kill.
loop_umount()
{
    umount "$mnt"
    mounted=''
}

loop_cleanup()
{
    [[ -z $mounted ]] || umount "$mnt" || umount -l "$mnt"
    [[ -z $loop ]] || losetup -d "$loop"
    if [[ -n $fuse ]]; then
        umount "$work/fuse" || umount -l "$work/fuse"
        wait "$fuse_job"
    fi
}
