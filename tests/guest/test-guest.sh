#!/usr/bin/env bash
# The real nbd-client: Debian's kernel, booted by QEMU without any acceleration, attaches our disk.
#
# Four boots.  `make`: trim a disk of 1 TiB; on another one mkfs.ext4, copy a tree, checksum, trim,
# unmount; then the server ends and starts again.  `crash`: writes file after file with fsync until
# the host kills the server (and then the guest, so that nothing but the disk survives).  `verify`:
# the journal is replayed, every file that was acknowledged as synced is compared, and e2fsck finds
# nothing.  `make` once more, over the crash simulator's disk: what nbd.ko sends as FUA is recorded as FUA,
# and when all that was not durable is dropped, the unmounted file system is whole.
#
# nbdkit's log filter listens in, to show that the kernel's flush and FUA reach the plugin.
#
# KVFS_GUEST_DIR     where the kernel lies, fetched on first use (default: build/guest of the
#                    source tree, which all presets share, else guest/ of the build tree)
# KVFS_GUEST_KILLS   synced files after which the server is killed (default 24)
# KVFS_GUEST_ACCEL   QEMU accelerator (default tcg)
# KVFS_GUEST_LIMIT   seconds that one boot may take (default 240)
# shellcheck source=tests/kernel/serve.sh
here=$(cd "$(dirname "$0")" && pwd)
source "$here/../kernel/serve.sh"

size_bytes=$((1 << 30))
limit=${KVFS_GUEST_LIMIT:-240}
kills=${KVFS_GUEST_KILLS:-24}
qemu_pid=''

machine_choose()
{
    case $(uname -m) in
    aarch64) machine=(qemu-system-aarch64 -M virt -cpu max) console=ttyAMA0 ;;
    x86_64) machine=(qemu-system-x86_64 -M pc -cpu max) console=ttyS0 ;;
    *) skip "no guest is known for $(uname -m)" ;;
    esac
    need "${machine[0]}" busybox nbd-client mkfs.ext4 e2fsck ldd flock gzip xz dpkg
}

# initramfs_add PROGRAM: with the libraries that it needs.
initramfs_add()
{
    local path lib
    path=$(command -v "$1")
    install -D "$path" "$work/root/sbin/$1"
    { ldd "$path" || true; } | grep -o '/[^ ]*' | while read -r lib; do
        [[ -e $work/root/$lib ]] || install -D "$(readlink -f "$lib")" "$work/root/$lib"
    done
}

# Modules that are not built into the kernel, with those that they need.
initramfs_modules()
{
    local name path need from=$kernel/lib/modules/$version to=$work/root/lib/modules/$version
    mkdir -p "$to"
    for name in virtio_pci virtio_net nbd ext4 crc32c_generic crc32c_intel libcrc32c; do
        path=$(sed -n "s,^\(.*/$name\.ko\):.*,\1,p" "$from/modules.dep")
        [[ -n $path ]] || continue
        for need in $path $(sed -n "s,^$path:,,p" "$from/modules.dep"); do
            install -D -m 644 "$from/$need" "$to/$need"
        done
    done
    cp "$from/modules.builtin" "$to/"
    busybox depmod -b "$work/root" "$version"
}

initramfs_make()
{
    install -D "$(command -v busybox)" "$work/root/bin/busybox"
    install -m 755 "$here/init" "$work/root/init"
    mkdir -p "$work/root/dev" "$work/root/proc" "$work/root/sys"
    initramfs_add nbd-client
    initramfs_add mkfs.ext4
    initramfs_add e2fsck
    initramfs_modules
    noise_tree "$work/root/tree"
    tree_sums "$work/root/tree" >"$work/root/sums"
    (cd "$work/root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initramfs"
}

# guest_boot PHASE [WORD...]: start it; its console comes through descriptor 7.
guest_boot()
{
    mkfifo "$work/console.$1"
    exec 7<>"$work/console.$1"
    timeout --foreground -k 5 "$limit" "${machine[@]}" -accel "${KVFS_GUEST_ACCEL:-tcg}" -m 384 -smp 1 \
        -nodefaults -no-user-config -no-reboot -display none -serial stdio \
        -netdev user,id=net -device virtio-net-pci,netdev=net,romfile= \
        -kernel "$kernel/vmlinuz" -initrd "$work/initramfs" \
        -append "console=$console quiet panic=-1 kvfs.port=$port kvfs.phase=${1%-*} ${*:2}" \
        </dev/null >&7 2>&1 7<&- &
    qemu_pid=$!
}

# guest_await PATTERN: read the console until a line of the guest's that matches; it is in $line.
guest_await()
{
    while IFS= read -r -t "$limit" -u 7 line; do
        line=${line%$'\r'}
        printf '  %s\n' "$line"
        case $line in
        *'guest: FAILED'* | *'Kernel panic'*)
            timeout 5 cat <&7 | sed 's/^/  /' || true
            die "in the guest: $line"
            ;;
        esac
        # shellcheck disable=SC2053
        if [[ $line == *"guest: "$1 ]]; then
            return
        fi
    done
    die "the guest said no '$1' within $limit s"
}

# guest_end [TERM]: as when the plug is pulled, or wait until it has switched itself off.  (The
# signal goes to `timeout`, which passes TERM on, but could not pass KILL on.)
guest_end()
{
    local pid=$qemu_pid
    qemu_pid=''
    [[ $# -eq 0 ]] || kill -s "$1" "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || [[ $# -ne 0 ]] || die "QEMU ended with status $?"
    exec 7<&-
}

guest_cleanup() { [[ -z $qemu_pid ]] || guest_end TERM; }

# A port that was free a moment ago: the kernel's choice for a socket that is closed again.
port_choose()
{
    local tries
    for ((tries = 0; tries < 20; tries++)); do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 40000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            return
        fi
    done
    die "no free port found"
}

guest_serve() { serve_start $size_bytes -i 127.0.0.1 -p "$port" --filter=log; }

# The kernel's own view of the disk, then what arrived at the plugin.
check_attached()
{
    [[ $line == *"size=$size_bytes "* ]] || die "the guest sees another size: $line"
    [[ $line == *"cache='write back'"* ]] || die "the guest sees no write cache: $line"
    [[ $line == *"fua=1"* ]] || die "the guest sees no FUA: $line"
    [[ $line != *"discard=0 "* ]] || die "the guest cannot trim: $line"
}

# The recording of the crash simulator: FUA and flushes of nbd.ko on several connections.
check_recording()
{
    local fua flushes connections
    fua=$(grep -c '^S .* fua=1 ' "$1" || true)
    flushes=$(grep -c '^F ' "$1" || true)
    connections=$(sed -n 's/^S .* conn=\([0-9]*\) .*/\1/p' "$1" | sort -u | wc -l)
    say "recorded $fua changes with FUA, $flushes flushes, changes of $connections connections"
    ((fua > 0 && flushes > 0)) || die "flush or FUA did not arrive"
}

check_log()
{
    local connections flushes fua trims
    connections=$(grep -c ' Connect ' "$server_log")
    flushes=$(grep -c ' Flush ' "$server_log" || true)
    fua=$(grep -cE ' (Write|Zero|Trim) .*fua=1' "$server_log" || true)
    trims=$(grep -cE ' (Trim|Zero) ' "$server_log" || true)
    say "the plugin saw $connections connections, $flushes flushes, $fua writes with FUA," \
        "$trims trims and zeros"
    ((connections >= 4)) || die "fewer connections than asked for"
    ((flushes > 0 && fua > 0 && trims > 0)) || die "flush, FUA or trim did not arrive"
}

serve_init
machine_choose
kernel=${KVFS_BINARY_DIR:-$work}/guest
[[ ! -w $here/../../build ]] || kernel=$(cd "$here/../../build" && pwd)/guest
kernel=${KVFS_GUEST_DIR:-$kernel}
bash "$here/fetch-kernel.sh" "$kernel" || skip "no kernel: fetch-kernel.sh failed"
version=$(basename "$kernel"/lib/modules/*)
say "kernel $version"
on_exit guest_cleanup
initramfs_make
port_choose
server_log=$work/requests

say "boot 1: make a file system, copy a tree"
large=''
if [[ ${KVFS_TEST_SERVER:-kvfs} == kvfs ]]; then
    serve_plugin $size_bytes
    "$KVFS_BIN" create "$volume" large --size=1T
    large=kvfs.large=yes
fi
guest_serve
guest_boot make $large
guest_await 'attached *'
check_attached
[[ -z $large ]] || guest_await 'large 1099511627776 bytes*'
guest_await 'done'
guest_end
serve_stop
check_log

say "boot 2: the server is killed after $kills synced files"
guest_serve
guest_boot crash
guest_await "synced $kills"
serve_kill
synced=$kills
guest_end TERM

say "boot 3: the $synced files must be there"
guest_serve
guest_boot verify "kvfs.synced=$synced"
guest_await "found $synced"
guest_await 'done'
guest_end
serve_stop
say "boot 4: over the crash simulator's disk"
export KVFS_TEST_SERVER=file
volume=$work/crashsim server_log=''
server_params=("crashsim-control=$work/control" "crashsim-record=$work/recording")
serve_start $size_bytes -i 127.0.0.1 -p "$port" --filter="${KVFS_CRASHSIM_FILTER:?}"
guest_boot make-crashsim kvfs.export=default
guest_await 'attached *'
check_attached
guest_await 'done'
"${KVFS_CRASHSIMCTL:?}" "$work/control" cut --survive=drop-all | tr '\n' ' '
guest_end
serve_stop
check_recording "$work/recording.side"
e2fsck -fn "$volume/disk0" >"$work/fsck" 2>&1 || { cat "$work/fsck" && die "fsck found something"; }
say "ok"
