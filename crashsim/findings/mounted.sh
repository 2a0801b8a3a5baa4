#!/usr/bin/env bash
# mounted.sh COMMAND... DISK: mount the DISK and run COMMAND with the folder as its last argument; for
# crashsim explore, whose states are disks.  A file system that does not mount is a violation.
set -euo pipefail

disk=${*: -1}
mnt=$(mktemp -d "$disk.XXXXXX")
trap 'umount -q "$mnt" || true; rmdir "$mnt"' EXIT
mount -o loop,noatime "$disk" "$mnt"
"${@:1:$#-1}" "$mnt"
