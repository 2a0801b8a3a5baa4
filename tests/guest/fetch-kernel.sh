#!/usr/bin/env bash
# fetch-kernel.sh DIR: put Debian's cloud kernel and its modules below DIR, as DIR/vmlinuz and
# DIR/lib/modules/VERSION, without installing it: the machine's own boot files stay as they are.
#
# Needs apt's lists and the network, but not root.  Does nothing when DIR is complete.
# KVFS_GUEST_KERNEL_PACKAGE names another package than the one for this machine.
set -euo pipefail

dir=${1:?usage: fetch-kernel.sh DIR}
mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9
[[ ! -e $dir/complete ]] || exit 0

meta=${KVFS_GUEST_KERNEL_PACKAGE:-linux-image-cloud-$(dpkg --print-architecture)}
fresh=$(mktemp -d "$dir/fresh.XXXXXX")
trap 'rm -rf "$fresh"' EXIT

# The meta package says which version is the present one.
download()
{
    local package
    package=$(apt-cache depends "$meta" |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    [[ -n $package ]] && (cd "$fresh" && apt-get -qq -o APT::Sandbox::User= download "$package")
}
# Old lists name files that the mirrors have dropped.
download || { [[ $(id -u) -eq 0 ]] && apt-get -qq update && download; } ||
    { echo "fetch-kernel.sh: cannot get $meta" >&2; exit 1; }
dpkg -x "$fresh"/*.deb "$fresh/tree"

version=$(basename "$fresh"/tree/boot/vmlinuz-* | sed 's/^vmlinuz-//')
modules=lib/modules/$version
[[ -d $fresh/tree/$modules ]] || modules=usr/$modules
# Only what the guest can need, unpacked; then the order in which modules need each other.
rm -rf "$dir/vmlinuz" "${dir:?}/lib"
mkdir -p "$dir/lib/modules/$version"
for folder in kernel/crypto kernel/lib kernel/fs kernel/net/core kernel/drivers/block \
    kernel/drivers/net kernel/drivers/virtio kernel/arch modules.builtin modules.order; do
    if [[ -e $fresh/tree/$modules/$folder ]]; then
        (cd "$fresh/tree/$modules" && cp -r --parents "$folder" "$dir/lib/modules/$version")
    fi
done
find "$dir/lib" -name '*.ko.xz' -exec xz -d {} +
busybox depmod -b "$dir" "$version"
mv "$fresh/tree/boot/vmlinuz-$version" "$dir/vmlinuz"
touch "$dir/complete"
