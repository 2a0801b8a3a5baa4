/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lease.c - one writer a file, across processes.
 *
 * The lock file of a volume (`lock`) is locked in single bytes, far beyond its
 * contents, with open-file-description locks, so a process that dies frees
 * what it held:
 *
 *   LEASE_VOLUME        shared by everyone who has the volume open,
 *                       exclusive for compact and repair
 *   LEASE_JANITOR       exclusive by who deletes what belongs to no file
 *   LEASE_FILE + ino    exclusive by the one process that writes file INO
 *   LEASE_SLOT + n      exclusive by the one whose name stands in slot n
 *   from 1 << 61 on     see process.c
 *
 * Its contents are slots: OFD locks tell no pid, so a holder writes pid,
 * command and time into a slot, and keeps the slot's byte locked as long as
 * what stands in it is true.  Slots only inform; no decision depends on them.
 * Snapshots and the leases of short transactions come and go too fast for four
 * system calls each, so they are only noted in memory (`names`), and the
 * background writes down those that last (kvfs_lease_announce).
 *
 * Two users of one open file description never conflict.  So within a process
 * the owner table is node.c's (leases) and `names` here (slots).  A lock
 * also lives on in a forked child's copy of the descriptor: the fork handler
 * of volume.c closes it there (kvfs_lease_table_forget), and what is closed is
 * unlocked before, for a child that is just beginning.
 *
 * Source: fcntl(2), "Open file description locks".
 */
#include "lease.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "process.h"
#include "volume_priv.h"

#define LEASE_VOLUME  ((off_t)1 << 40)
#define LEASE_JANITOR (LEASE_VOLUME + 1)
#define LEASE_SLOT    ((off_t)1 << 41)
#define LEASE_FILE    ((off_t)1 << 62)

#define LEASE_SLOTS     4096
#define LEASE_SLOT_LEN  64
#define LEASE_COMMAND   24 /* offset of the command in a slot; 32 bytes */

/* What this process holds and tells others of, in a slot if it has lasted. */
struct lease_name {
    uint64_t ino;
    uint32_t since_s;
    int slot; /* -1: not told yet */
    uint8_t kind;
    bool used;
    bool seen; /* by the last announcement: told at the next */
};

struct kvfs_lease_table {
    int fd; /* -1: there is none, on a read-only medium */
    struct kvfs_process_hold *process;
    bool readonly;  /* no leases */
    bool slots;     /* the file can be written: names may be left in it */
    char command[32]; /* of this process: a snapshot is taken too often to look it up each time */
    int open_name;
    pthread_mutex_t lock; /* all below */
    bool lazy; /* somebody calls kvfs_lease_announce() */
    int names_end; /* behind the last that is used */
    struct lease_name names[LEASE_SLOTS];
    bool slots_used[LEASE_SLOTS];
};

static int
lease_lock(int fd, short type, off_t at)
{
    struct flock fl = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

    return fcntl(fd, F_OFD_SETLK, &fl) < 0 ? -errno : 0;
}

/* Is the byte locked by another open file description? */
static bool
lease_is_locked(int fd, off_t at)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

    return fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}

static void
lease_command(char command[32])
{
    int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, command, 31);

    if (fd >= 0)
        (void)close(fd);
    if (n <= 0)
        n = snprintf(command, 32, "?");
    command[n] = '\0';
    command[strcspn(command, "\n")] = '\0';
}

/* Find a slot and write NAME into it; table's lock held. */
static void
lease_slot_take(struct kvfs_lease_table *t, struct lease_name *name)
{
    uint8_t slot[LEASE_SLOT_LEN] = {0};
    int found = -1;

    for (int i = 0; i < LEASE_SLOTS && found < 0 && t->slots; i++) {
        if (!t->slots_used[i] && lease_lock(t->fd, F_WRLCK, LEASE_SLOT + i) == 0)
            found = i;
    }
    if (found < 0)
        return;
    t->slots_used[found] = true;
    name->slot = found;
    slot[0] = (uint8_t)(name->kind + 1);
    kvfs_be64_put(slot + 8, name->ino);
    kvfs_be32_put(slot + 16, (uint32_t)getpid());
    kvfs_be32_put(slot + 20, name->since_s);
    memcpy(slot + LEASE_COMMAND, t->command, sizeof(t->command));
    if (pwrite(t->fd, slot, sizeof(slot), (off_t)found * LEASE_SLOT_LEN) != sizeof(slot)) {
        /* A full disk: the lock holds, only the name is missing. */
        return;
    }
}

/* Empty a name's slot, if it has one; table's lock held. */
static void
lease_slot_drop(struct kvfs_lease_table *t, struct lease_name *name)
{
    static const uint8_t empty[LEASE_SLOT_LEN];

    if (name->slot < 0)
        return;
    if (pwrite(t->fd, empty, sizeof(empty), (off_t)name->slot * LEASE_SLOT_LEN) < 0) {
        /* Stale names are told from live ones by the slot's lock. */
    }
    (void)lease_lock(t->fd, F_UNLCK, LEASE_SLOT + name->slot);
    t->slots_used[name->slot] = false;
    name->slot = -1;
}

/* Note what is held; where it is not LASTING, others may be told later.  -1: no room. */
static int
lease_name_take(struct kvfs_lease_table *t, int kind, uint64_t ino, bool lasting)
{
    int i = 0;

    if (!t->slots)
        return -1;
    (void)pthread_mutex_lock(&t->lock);
    while (i < LEASE_SLOTS && t->names[i].used)
        i++;
    if (i < LEASE_SLOTS) {
        t->names[i] = (struct lease_name){.ino = ino, .since_s = (uint32_t)time(NULL), .slot = -1,
                                          .kind = (uint8_t)kind, .used = true};
        if (i >= t->names_end)
            t->names_end = i + 1;
        if (lasting || !t->lazy)
            lease_slot_take(t, &t->names[i]);
    }
    (void)pthread_mutex_unlock(&t->lock);
    return i < LEASE_SLOTS ? i : -1;
}

/* Table's lock held. */
static void
lease_name_drop_locked(struct kvfs_lease_table *t, int i)
{
    lease_slot_drop(t, &t->names[i]);
    t->names[i].used = false;
    while (t->names_end > 0 && !t->names[t->names_end - 1].used)
        t->names_end--;
}

static void
lease_name_drop(struct kvfs_lease_table *t, int i)
{
    if (i < 0)
        return;
    (void)pthread_mutex_lock(&t->lock);
    lease_name_drop_locked(t, i);
    (void)pthread_mutex_unlock(&t->lock);
}

void
kvfs_lease_announce(struct kvfs_lease_table *t)
{
    if (t->fd < 0)
        return;
    (void)pthread_mutex_lock(&t->lock);
    t->lazy = true;
    for (int i = 0; i < t->names_end; i++) {
        struct lease_name *name = &t->names[i];

        if (name->used && name->slot < 0 && name->seen)
            lease_slot_take(t, name);
        name->seen = true;
    }
    (void)pthread_mutex_unlock(&t->lock);
}

/* Call FN for each live slot in the lock file FD. */
static int
lease_each(int fd, int (*fn)(void *arg, const struct kvfs_holder *holder), void *arg)
{
    uint8_t slot[LEASE_SLOT_LEN];

    for (int i = 0; i < LEASE_SLOTS; i++) {
        struct kvfs_holder h = {0};
        int rc;

        if (pread(fd, slot, sizeof(slot), (off_t)i * LEASE_SLOT_LEN) != sizeof(slot))
            return 0; /* the end of the file */
        if (slot[0] == 0 || slot[0] > KVFS_HOLDER_OPEN + 1 || !lease_is_locked(fd, LEASE_SLOT + i))
            continue;
        h.kind = slot[0] - 1;
        h.ino = kvfs_be64_get(slot + 8);
        h.pid = kvfs_be32_get(slot + 16);
        h.since_s = kvfs_be32_get(slot + 20);
        memcpy(h.command, slot + LEASE_COMMAND, sizeof(h.command) - 1);
        rc = fn(arg, &h);
        if (rc != 0)
            return rc;
    }
    return 0;
}

struct lease_who {
    int kind; /* -1: any */
    uint64_t ino;
    struct kvfs_holder found;
};

static int
lease_who_match(void *arg, const struct kvfs_holder *holder)
{
    struct lease_who *who = arg;

    if ((who->kind >= 0 && (int)holder->kind != who->kind) ||
        (who->kind == KVFS_HOLDER_LEASE && holder->ino != who->ino))
        return 0;
    who->found = *holder;
    return 1;
}

/* Describe who holds what could not be had, for an error message. */
static void
lease_holder(const struct kvfs_lease_table *t, int kind, uint64_t ino, char text[96])
{
    struct lease_who who = {.kind = kind, .ino = ino};

    if (lease_each(t->fd, lease_who_match, &who) == 1)
        (void)snprintf(text, 96, "process %lld (%s)", (long long)who.found.pid,
                       who.found.command);
    else
        (void)snprintf(text, 96, "another process");
}

static int
lease_open_file(const char *path, bool readonly, struct kvfs_error *err)
{
    char name[4096];
    int fd;

    if (snprintf(name, sizeof(name), "%s/lock", path) >= (int)sizeof(name))
        return kvfs_error_set(err, -ENAMETOOLONG, "%.128s...: the path is too long", path);
    fd = open(name, O_RDWR | O_CLOEXEC | (readonly ? 0 : O_CREAT), 0666);
    if (fd < 0 && readonly)
        fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return kvfs_error_set(err, -errno, "%s: cannot be opened: %s", name,
                              strerror(errno)); // NOLINT(concurrency-mt-unsafe): glibc's is safe
    return fd;
}

static void
lease_close_file(int fd)
{
    const struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

    (void)fcntl(fd, F_OFD_SETLK, &all);
    (void)close(fd);
}

/* Open the lock file and lock the volume.  A format may remove the file in between: what is
 * locked is then no volume's any more. */
static int
lease_table_lock(struct kvfs_lease_table *t, const char *path, bool exclusive,
                 struct kvfs_error *err)
{
    int rc;

    do {
        if (t->fd >= 0)
            lease_close_file(t->fd);
        t->fd = lease_open_file(path, t->readonly, err);
        if (t->fd < 0)
            return t->fd;
        rc = lease_lock(t->fd, exclusive ? F_WRLCK : F_RDLCK, LEASE_VOLUME);
    } while (rc == 0 && kvfs_lease_table_gone(t));
    if (rc == -EAGAIN || rc == -EACCES) {
        char who[96];

        lease_holder(t, -1, 0, who);
        return kvfs_error_set(err, -EBUSY, "%s: the volume is in use by %s", path, who);
    }
    if (rc < 0)
        return kvfs_error_set(err, rc, "%s/lock: cannot be locked: errno %d", path, -rc);
    rc = lease_open_file(path, t->readonly, err); /* a description of its own */
    return rc < 0 ? rc : kvfs_process_hold(path, rc, &t->process, err);
}

int
kvfs_lease_table_open(const char *path, bool readonly, bool exclusive,
                      struct kvfs_lease_table **tablep, struct kvfs_error *err)
{
    struct kvfs_lease_table *t = calloc(1, sizeof(*t));
    int rc;

    if (t == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    (void)pthread_mutex_init(&t->lock, NULL);
    kvfs_volume_fork_handlers();
    t->readonly = readonly;
    t->open_name = -1;
    t->fd = -1;
    lease_command(t->command);
    rc = lease_table_lock(t, path, exclusive, err);
    if (t->fd < 0 && readonly && (rc == -EROFS || rc == -ENOENT || rc == -EACCES)) {
        *tablep = t; /* a medium that nobody can write */
        t->fd = -1;
        return 0;
    }
    if (rc < 0)
        goto fail;
    t->slots = (fcntl(t->fd, F_GETFL) & O_ACCMODE) == O_RDWR;
    t->open_name = lease_name_take(t, KVFS_HOLDER_OPEN, 0, true);
    *tablep = t;
    return 0;
fail:
    if (t->fd >= 0)
        lease_close_file(t->fd);
    (void)pthread_mutex_destroy(&t->lock);
    free(t);
    return rc;
}

void
kvfs_lease_table_close(struct kvfs_lease_table *t)
{
    if (t == NULL)
        return;
    lease_name_drop(t, t->open_name);
    kvfs_process_drop(t->process);
    if (t->fd >= 0)
        lease_close_file(t->fd);
    (void)pthread_mutex_destroy(&t->lock);
    free(t);
}

bool
kvfs_lease_table_gone(const struct kvfs_lease_table *t)
{
    struct stat st;

    return t->fd >= 0 && fstat(t->fd, &st) == 0 && st.st_nlink == 0;
}

bool
kvfs_lease_table_alone(const struct kvfs_lease_table *t)
{
    return t->fd < 0 || !lease_is_locked(t->fd, LEASE_VOLUME);
}

void
kvfs_lease_table_forget(struct kvfs_lease_table *t)
{
    if (t->fd >= 0)
        (void)close(t->fd);
    t->fd = -1;
}

int
kvfs_lease_take(struct kvfs_lease_table *t, uint64_t ino, bool lasting, struct kvfs_error *err)
{
    char who[96];
    int rc;

    if (t->fd < 0 || t->readonly)
        return kvfs_error_set(err, -EROFS, "the volume is open for reading only");
    rc = lease_lock(t->fd, F_WRLCK, LEASE_FILE + (off_t)ino);
    if (rc == -EAGAIN || rc == -EACCES) {
        lease_holder(t, KVFS_HOLDER_LEASE, ino, who);
        return kvfs_error_set(err, -EBUSY, "the file is being written by %s", who);
    }
    if (rc < 0)
        return kvfs_error_set(err, rc, "the lease cannot be taken: errno %d", -rc);
    (void)lease_name_take(t, KVFS_HOLDER_LEASE, ino, lasting);
    return 0;
}

void
kvfs_lease_drop(struct kvfs_lease_table *t, uint64_t ino)
{
    if (t->fd < 0)
        return;
    (void)pthread_mutex_lock(&t->lock);
    for (int i = 0; i < t->names_end; i++) {
        if (t->names[i].used && t->names[i].kind == KVFS_HOLDER_LEASE && t->names[i].ino == ino) {
            lease_name_drop_locked(t, i);
            break;
        }
    }
    (void)pthread_mutex_unlock(&t->lock);
    (void)lease_lock(t->fd, F_UNLCK, LEASE_FILE + (off_t)ino);
}

bool
kvfs_lease_janitor(struct kvfs_lease_table *t)
{
    return t->fd >= 0 && !t->readonly && lease_lock(t->fd, F_WRLCK, LEASE_JANITOR) == 0;
}

void
kvfs_lease_janitor_drop(struct kvfs_lease_table *t)
{
    if (t->fd >= 0)
        (void)lease_lock(t->fd, F_UNLCK, LEASE_JANITOR);
}

int
kvfs_lease_pin(struct kvfs_lease_table *t)
{
    return lease_name_take(t, KVFS_HOLDER_SNAPSHOT, 0, false);
}

void
kvfs_lease_unpin(struct kvfs_lease_table *t, int name)
{
    lease_name_drop(t, name);
}

int
kvfs_volume_holders(const char *path, int (*fn)(void *arg, const struct kvfs_holder *holder),
                    void *arg, struct kvfs_error *err)
{
    int fd = lease_open_file(path, true, err);
    int rc;

    if (fd == -ENOENT || fd == -ENOTDIR)
        return kvfs_error_set(err, -ENOENT, "%s: there is no volume", path);
    if (fd < 0)
        return fd;
    rc = lease_each(fd, fn, arg);
    (void)close(fd);
    return rc;
}
