/* SPDX-License-Identifier: BSD-3-Clause
 *
 * holder.c - one process a store (holder.h).
 *
 * The lock is one of the open file description: it ends with the process, however that
 * ends.  The file's text informs people only.  It is never deleted, else two
 * processes could hold two files of one name.
 */
#include "holder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOLDER_NAME "/holder"

/* Who says to hold it, as a text. */
static void
holder_who(int fd, char *who, size_t len)
{
    ssize_t n = pread(fd, who, len - 1, 0);

    who[n > 0 ? n : 0] = '\0';
    who[strcspn(who, "\n")] = '\0';
    if (strncmp(who, "process ", 8) != 0)
        (void)snprintf(who, len, "another process");
}

static int
holder_lock(int fd, const char *path, struct kvfs_error *err)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1 << 20, .l_len = 1};
    char text[96];
    int n;

    if (fcntl(fd, F_OFD_SETLK, &fl) != 0) {
        if (errno != EAGAIN && errno != EACCES)
            return kvfs_error_set(err, -errno, "%s: %s", path, strerrordesc_np(errno));
        holder_who(fd, text, sizeof(text));
        return kvfs_error_set(err, -EBUSY, "%s: the store is held by %s", path, text);
    }
    n = snprintf(text, sizeof(text), "process %ld (%.48s)\n", (long)getpid(),
                 program_invocation_short_name);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return 0; /* held all the same, without a name */
    return 0;
}

int
kvfs_holder_take(const char *folder, bool readonly, int *fdp, struct kvfs_error *err)
{
    size_t len = strlen(folder) + sizeof(HOLDER_NAME);
    char *path = malloc(len);
    int fd, rc = 0;

    if (path == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", folder);
    (void)snprintf(path, len, "%s" HOLDER_NAME, folder);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0) {
        rc = holder_lock(fd, path, err);
        if (rc != 0)
            (void)close(fd);
    } else if (!readonly || errno != EROFS) {
        rc = kvfs_error_set(err, -errno, "%s: %s", path, strerrordesc_np(errno));
    }
    if (rc == 0)
        *fdp = fd;
    free(path);
    return rc;
}

void
kvfs_holder_drop(int fd)
{
    if (fd >= 0)
        (void)close(fd);
}
