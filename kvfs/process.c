/* SPDX-License-Identifier: BSD-3-Clause
 *
 * process.c - one copy of the library a volume, in each process.
 *
 * Tables like volume.c's are of one copy of this library, and a process may have several: a
 * program that is linked with it loads a plugin that is, too.  Engines know of no second opener
 * in their process: LMDB "must not be opened twice in the same process", where it loses locks
 * and commits.  So the copy that comes first locks a byte of the volume's lock file that stands
 * for the process, and others are refused.
 *
 * 1. The byte is a hash of what is the same for all copies and no other process has: pid, its
 *    namespace, when it began.
 * 2. Its lock has an open file description of its own, counted: a check has the volume
 *    open beside its lock.  It is unlocked before it is closed, for a child that is just
 *    beginning has a copy; the child closes that (volume.c's handlers).
 * 3. Who cannot write the file locks the byte shared, and then looks for others.
 */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define PROCESS_BYTE ((off_t)1 << 61) /* and as many behind it; lease.c has the others */

struct kvfs_process_hold {
    int fd; /* -1: the parent's */
    unsigned users;
    dev_t dev;
    ino_t ino;
    struct kvfs_process_hold *next;
};

static pthread_mutex_t process_lock = PTHREAD_MUTEX_INITIALIZER; /* innermost */
static struct kvfs_process_hold *process_holds;

/* When this process began, in clock ticks since the boot; 0: not known. */
static uint64_t
process_start(void)
{
    char text[1024], *at;
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0)
        (void)close(fd);
    text[n > 0 ? n : 0] = '\0';
    at = strrchr(text, ')'); /* field 2 is any text, ours is number 22 */
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at != NULL ? strtoull(at, NULL, 10) : 0;
}

static off_t
process_byte(void)
{
    struct stat st;
    uint64_t who[4] = {0};

    if (stat("/proc/self/ns/pid", &st) == 0) {
        who[0] = st.st_dev;
        who[1] = st.st_ino;
    }
    who[2] = (uint64_t)getpid();
    who[3] = process_start();
    return PROCESS_BYTE + (off_t)(XXH3_64bits(who, sizeof(who)) % (uint64_t)PROCESS_BYTE);
}

static int
process_lock_byte(int fd)
{
    bool writable = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
    struct flock fl = {.l_type = writable ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET,
                       .l_start = process_byte(), .l_len = 1};

    if (fcntl(fd, F_OFD_SETLK, &fl) != 0)
        return errno == EACCES ? -EAGAIN : -errno;
    fl.l_type = F_WRLCK;
    return !writable && fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK ? -EAGAIN : 0;
}

static void
process_close(int fd)
{
    const struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    (void)fcntl(fd, F_OFD_SETLK, &all);
    (void)close(fd);
}

/* The first hold of the file ST; process_lock held. */
static int
process_hold_new(const char *path, int fd, const struct stat *st,
                 struct kvfs_process_hold **holdp, struct kvfs_error *err)
{
    struct kvfs_process_hold *hold = malloc(sizeof(*hold));
    int rc = hold == NULL ? -ENOMEM : process_lock_byte(fd);

    if (rc != 0) {
        free(hold);
        process_close(fd);
        if (rc == -EAGAIN)
            return kvfs_error_set(err, -EBUSY, "%s: the volume is already open in this process, "
                                  "through another copy of the library", path);
        return kvfs_error_set(err, rc, "%s/lock: cannot be locked: errno %d", path, -rc);
    }
    *hold = (struct kvfs_process_hold){.fd = fd, .users = 1, .dev = st->st_dev, .ino = st->st_ino,
                                       .next = process_holds};
    process_holds = hold;
    *holdp = hold;
    return 0;
}

int
kvfs_process_hold(const char *path, int fd, struct kvfs_process_hold **holdp,
                  struct kvfs_error *err)
{
    struct kvfs_process_hold *hold;
    struct stat st;
    int rc = 0;

    if (fstat(fd, &st) != 0) {
        rc = kvfs_error_set(err, -errno, "%s/lock: errno %d", path, errno);
        (void)close(fd);
        return rc;
    }
    (void)pthread_mutex_lock(&process_lock);
    for (hold = process_holds; hold != NULL; hold = hold->next)
        if (hold->dev == st.st_dev && hold->ino == st.st_ino)
            break;
    if (hold == NULL) {
        rc = process_hold_new(path, fd, &st, holdp, err);
    } else {
        (void)close(fd);
        hold->users++;
        *holdp = hold;
    }
    (void)pthread_mutex_unlock(&process_lock);
    return rc;
}

void
kvfs_process_drop(struct kvfs_process_hold *hold)
{
    struct kvfs_process_hold **at = &process_holds;

    if (hold == NULL)
        return;
    (void)pthread_mutex_lock(&process_lock);
    if (--hold->users == 0) {
        while (*at != NULL && *at != hold)
            at = &(*at)->next;
        if (*at == hold)
            *at = hold->next;
        if (hold->fd >= 0)
            process_close(hold->fd);
        free(hold);
    }
    (void)pthread_mutex_unlock(&process_lock);
}

void
kvfs_process_fork_prepare(void)
{
    (void)pthread_mutex_lock(&process_lock);
}

void
kvfs_process_fork_parent(void)
{
    (void)pthread_mutex_unlock(&process_lock);
}

void
kvfs_process_fork_child(void)
{
    for (struct kvfs_process_hold *hold = process_holds; hold != NULL; hold = hold->next) {
        (void)close(hold->fd);
        hold->fd = -1;
    }
    process_holds = NULL;
    (void)pthread_mutex_unlock(&process_lock);
}
