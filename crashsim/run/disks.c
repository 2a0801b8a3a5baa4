/* SPDX-License-Identifier: BSD-3-Clause
 *
 * disks.c - see disks.h.
 */
#include "disks.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

#define LOOP_TRIES 100 /* another process may take the free one before us */

int
loop_attach(const char *path, struct loop *l, struct kvfs_error *err)
{
    struct loop_config config = {.info.lo_flags = LO_FLAGS_AUTOCLEAR};
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int fd = open(path, O_RDWR | O_CLOEXEC), number = -1, r = -1;

    l->fd = -1;
    if (control < 0 || fd < 0) {
        r = kvfs_error_set(err, -errno, "%s: %s", control < 0 ? "/dev/loop-control" : path,
                           strerrordesc_np(errno));
        goto out;
    }
    config.fd = (uint32_t)fd;
    for (int i = 0; i < LOOP_TRIES && r < 0; i++) {
        number = ioctl(control, LOOP_CTL_GET_FREE);
        (void)snprintf(l->name, sizeof(l->name), "/dev/loop%d", number);
        l->fd = number < 0 ? -1 : open(l->name, O_RDWR | O_CLOEXEC);
        r = l->fd < 0 ? -1 : ioctl(l->fd, LOOP_CONFIGURE, &config);
        if (r < 0 && l->fd >= 0) {
            int error = errno;

            (void)close(l->fd);
            l->fd = -1;
            errno = error;
            if (error != EBUSY)
                break;
        }
    }
    if (r < 0)
        r = kvfs_error_set(err, -errno, "no loop device over %s: %s", path, strerrordesc_np(errno));
    else
        r = 0;
out:
    if (control >= 0)
        (void)close(control);
    if (fd >= 0)
        (void)close(fd);
    return r;
}

int
loop_forget(const struct loop *l, struct kvfs_error *err)
{
    if (ioctl(l->fd, BLKFLSBUF, 0) < 0)
        return kvfs_error_set(err, -errno, "%s: %s", l->name, strerrordesc_np(errno));
    return 0;
}

void
loop_detach(struct loop *l)
{
    if (l->fd >= 0)
        (void)close(l->fd);
    l->fd = -1;
}

int
disks_make(const struct place *p, const char *path, uint64_t size_bytes, struct kvfs_error *err)
{
    static const char features[] =
        "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
        "huge_file,dir_nlink,extra_isize,metadata_csum";
    static const char extended[] = "lazy_itable_init=0,lazy_journal_init=0,nodiscard,"
                                   "hash_seed=63726173-6873-696d-2064-69736b000002";
    static const char uuid[] = "63726173-6873-696d-2064-69736b000001";
    /* clang-format off */
    const char *const argv[] = {
        "mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-N", "1024", "-m", "0", "-J", "size=4",
        "-O", features, "-U", uuid, "-E", extended, "-L", "crashsim", path, NULL};
    /* clang-format on */
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || ftruncate(fd, (off_t)size_bytes) < 0)
        return kvfs_error_set(err, -errno, "%s: %s", path, strerrordesc_np(errno));
    (void)close(fd);
    return tool_run(p, argv, err);
}

int
disks_mount(const struct place *p, const struct loop *l, const char *mnt, bool *repaired,
            struct kvfs_error *err)
{
    const char *const argv[] = {"e2fsck", "-fy", l->name, NULL};

    if (repaired != NULL)
        *repaired = false;
    if (mount(l->name, mnt, "ext4", MS_NOATIME, "") == 0)
        return 0;
    if (errno == EBADMSG || errno == EUCLEAN) {
        (void)tool_run(p, argv, NULL); /* its status tells what it did; the mount decides */
        if (repaired != NULL)
            *repaired = true;
        if (mount(l->name, mnt, "ext4", MS_NOATIME, "") == 0)
            return 0;
    }
    return kvfs_error_set(err, -errno, "mounting %s: %s", l->name, strerrordesc_np(errno));
}

void
disks_umount(const char *mnt)
{
    if (umount2(mnt, 0) < 0 && errno == EBUSY)
        (void)umount2(mnt, MNT_DETACH);
}

static int
disks_write(int fd, const uint8_t *buf, size_t count, off_t at)
{
    while (count > 0) {
        ssize_t n = pwrite(fd, buf, count, at);

        if (n == 0)
            errno = ENOSPC;
        if (n <= 0)
            return -1;
        buf += n;
        count -= (size_t)n;
        at += n;
    }
    return 0;
}

static int
disks_copy_data(int in, int out, off_t size)
{
    static uint8_t buf[1 << 18];
    off_t at = 0, end;

    while ((at = lseek(in, at, SEEK_DATA)) >= 0 && at < size) {
        end = lseek(in, at, SEEK_HOLE);
        if (end < 0)
            return -1;
        while (at < end) {
            size_t want = (size_t)(end - at) < sizeof(buf) ? (size_t)(end - at) : sizeof(buf);
            ssize_t n = pread(in, buf, want, at);

            if (n == 0)
                errno = EIO; /* cut short meanwhile */
            if (n <= 0 || disks_write(out, buf, (size_t)n, at) < 0)
                return -1;
            at += n;
        }
    }
    return at < 0 && errno != ENXIO ? -1 : 0;
}

int
disks_copy(const char *from, const char *to, struct kvfs_error *err)
{
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), r = 0;
    struct stat st;

    if (in < 0 || out < 0 || fstat(in, &st) < 0 || ftruncate(out, st.st_size) < 0 ||
        disks_copy_data(in, out, st.st_size) < 0)
        r = kvfs_error_set(err, -errno, "copying %s to %s: %s", from, to, strerrordesc_np(errno));
    if (in >= 0)
        (void)close(in);
    if (out >= 0 && close(out) < 0 && r == 0)
        r = kvfs_error_set(err, -errno, "%s: %s", to, strerrordesc_np(errno));
    return r;
}
