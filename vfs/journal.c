/* SPDX-License-Identifier: BSD-3-Clause
 *
 * journal.c - the journals that the pager insists on.
 *
 * A rollback journal serves to roll back while the process lives; a crash needs none, since
 * nothing has reached the volume.  So it is a stage over nothing, which its handle owns, and
 * to everybody else it does not exist.
 *
 * A super-journal (…-mj…) has a name: the pager asks for it when it rolls a member back, and
 * would skip that if it were gone.  What is written into it are the names of its members'
 * journals, so its members are the files that hold the lease under these names; main, after
 * which it is called, need not be one.  It stays visible, also after a rollback has deleted
 * it, until each of them has unlocked or, with locking_mode=EXCLUSIVE, is a member of the
 * next.  Only the commit removes it at once.
 *
 * A journal that is kept open from one transaction to the next (PERSIST, EXCLUSIVE) holds
 * nothing of the one before: the pager takes a header that it finds behind its own records for
 * its own, as no commit of the stock VFS can fail where one of ours does.
 *
 * If an ordinary database is among the members, its own journal on the disk names the
 * super-journal, and must find it after a crash: then it is a real file of the default VFS,
 * from the first name in it that is none of ours.
 */
#include <string.h>

#include "vfs_priv.h"

#define JOURNAL_UNIT   16384u
#define JOURNAL_HEADER 28 /* so many bytes at 0, or more, begin a journal, or end it with zeros */
#define SUPER_FILES    128

struct vfs_super {
    struct vfs_super *next;
    char *name;
    struct vfs_stage stage;
    unsigned opens;
    bool deleted;
    bool real; /* lies on the disk as well */
    const struct vfs_file *waits[SUPER_FILES];
    size_t waits_count;
};

struct vfs_journal {
    sqlite3_file base;
    struct vfs_stage own;
    struct vfs_stage *stage; /* its own, or the super-journal's */
    struct vfs_super *super;
    sqlite3_file *real;
};

static struct vfs_super *supers; /* under vfs_lock */

int
vfs_journal_size(void)
{
    return (int)sizeof(struct vfs_journal);
}

static int
journal_base(void *arg, void *buf, size_t n, uint64_t offset)
{
    (void)arg;
    (void)offset;
    memset(buf, 0, n);
    return SQLITE_OK;
}

/* --- super-journals ------------------------------------------------------------ */

static struct vfs_super *
super_find_locked(const char *name)
{
    struct vfs_super *s = supers;

    while (s != NULL && strcmp(s->name, name) != 0)
        s = s->next;
    return s;
}

/* Take S out of the list if nobody needs it any more; the caller frees it without the lock. */
static struct vfs_super *
super_settle_locked(struct vfs_super *s)
{
    struct vfs_super **place = &supers;

    if (s->opens > 0 || s->waits_count > 0 || !s->deleted)
        return NULL;
    while (*place != s)
        place = &(*place)->next;
    *place = s->next;
    return s;
}

static void
super_free(struct vfs_super *s)
{
    if (s == NULL)
        return;
    vfs_stage_drop(&s->stage);
    sqlite3_free(s->name);
    sqlite3_free(s);
}

static struct vfs_super *
super_new(const char *name)
{
    struct vfs_super *s = sqlite3_malloc(sizeof(*s));

    if (s == NULL)
        return NULL;
    memset(s, 0, sizeof(*s));
    s->name = sqlite3_mprintf("%s", name);
    if (s->name == NULL) {
        sqlite3_free(s);
        return NULL;
    }
    vfs_stage_init(&s->stage, 4096, journal_base, NULL);
    vfs_stage_begin(&s->stage, 0);
    return s;
}

/* S no longer waits for F.  True: that was the last one. */
static bool
super_leave_locked(struct vfs_super *s, const struct vfs_file *f)
{
    bool was = false;

    for (size_t i = 0; i < s->waits_count; i++) {
        if (s->waits[i] == f) {
            s->waits[i] = s->waits[--s->waits_count];
            was = true;
        }
    }
    if (was && s->waits_count == 0)
        s->deleted = true; /* nobody asks here again; a real one is on the disk still */
    return was && s->waits_count == 0;
}

/* F leaves all super-journals but KEEP, NULL: all; a list of those that are to be freed. */
static struct vfs_super *
super_leave_all_locked(const struct vfs_file *f, const struct vfs_super *keep)
{
    struct vfs_super *gone = NULL;

    for (struct vfs_super *s = supers, *next; s != NULL; s = next) {
        next = s->next;
        if (s != keep && super_leave_locked(s, f) && super_settle_locked(s) != NULL) {
            s->next = gone;
            gone = s;
        }
    }
    return gone;
}

static void
super_free_list(struct vfs_super *s)
{
    while (s != NULL) {
        struct vfs_super *next = s->next;

        super_free(s);
        s = next;
    }
}

/* F is a member of S: whatever it was a member of before, it has rolled back. */
static struct vfs_super *
super_join_locked(struct vfs_super *s, const struct vfs_file *f)
{
    size_t i = 0;

    while (i < s->waits_count && s->waits[i] != f)
        i++;
    if (i == s->waits_count && i < SUPER_FILES)
        s->waits[s->waits_count++] = f;
    return super_leave_all_locked(f, s);
}

/* The name of a journal is written into S, LEN bytes: its database is a member.  Of those that
 * are open under that name one has the lease. */
static void
super_member(struct vfs_super *s, const char *name, size_t len)
{
    static const char tail[] = "-journal";
    struct vfs_super *gone = NULL;
    const struct vfs_file *f;

    if (len < sizeof(tail) || memcmp(name + len - (sizeof(tail) - 1), tail, sizeof(tail) - 1) != 0)
        return;
    len -= sizeof(tail) - 1;
    vfs_lock();
    f = vfs_file_first();
    while (f != NULL &&
           (!f->wait_holds || strncmp(f->path, name, len) != 0 || f->path[len] != '\0'))
        f = f->next;
    if (f != NULL)
        gone = super_join_locked(s, f);
    vfs_unlock();
    super_free_list(gone);
}

/* Find or make NAME; counted as open. */
static struct vfs_super *
super_open(const char *name, bool create)
{
    struct vfs_super *fresh = create ? super_new(name) : NULL;
    struct vfs_super *s;

    vfs_lock();
    s = super_find_locked(name);
    if (s == NULL && fresh != NULL) {
        s = fresh;
        fresh = NULL;
        s->next = supers;
        supers = s;
    }
    if (s != NULL)
        s->opens++;
    vfs_unlock();
    super_free(fresh);
    return s;
}

static void
super_close(struct vfs_super *s)
{
    vfs_lock();
    s->opens--;
    if (s->opens == 0 && s->waits_count == 0)
        s->deleted = true; /* no member is ours: what is on the disk is all that is needed */
    s = super_settle_locked(s);
    vfs_unlock();
    super_free(s);
}

bool
vfs_journal_exists(const char *name)
{
    bool exists;

    vfs_lock();
    exists = super_find_locked(name) != NULL;
    vfs_unlock();
    return exists;
}

bool
vfs_journal_delete(const char *name, bool committed)
{
    struct vfs_super *gone = NULL;
    struct vfs_super *s;
    bool real = false;

    vfs_lock();
    s = super_find_locked(name);
    if (s != NULL) {
        s->deleted = true;
        real = s->real;
        if (committed)
            s->waits_count = 0;
        gone = super_settle_locked(s);
    }
    vfs_unlock();
    super_free(gone);
    if (real && committed) /* in a rollback the ordinary member asks for it still, and removes it */
        (void)vfs_default()->xDelete(vfs_default(), name, 1);
    return s != NULL;
}

void
vfs_journal_join(const char *name, const struct vfs_file *f)
{
    struct vfs_super *gone = NULL;
    struct vfs_super *s;

    vfs_lock();
    s = super_find_locked(name);
    if (s != NULL)
        gone = super_join_locked(s, f);
    vfs_unlock();
    super_free_list(gone);
}

void
vfs_journal_leave(const struct vfs_file *f)
{
    struct vfs_super *gone;

    vfs_lock();
    gone = super_leave_all_locked(f, NULL);
    vfs_unlock();
    super_free_list(gone);
}

bool
vfs_journal_is_ours(const char *name, size_t len, const char *tail)
{
    size_t tail_len = strlen(tail);
    bool ours = false;

    if (len <= tail_len || memcmp(name + len - tail_len, tail, tail_len) != 0)
        return false;
    len -= tail_len;
    vfs_lock();
    for (const struct vfs_file *f = vfs_file_first(); f != NULL && !ours; f = f->next)
        ours = strncmp(f->path, name, len) == 0 && f->path[len] == '\0';
    vfs_unlock();
    return ours;
}

/* Put what there is on the disk, where the members outside find it. */
static int
super_make_real(struct vfs_journal *j)
{
    sqlite3_vfs *vfs = vfs_default();
    int flags = SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
                SQLITE_OPEN_EXCLUSIVE;
    uint8_t bytes[4096];
    int rc;

    j->real = sqlite3_malloc(vfs->szOsFile);
    if (j->real == NULL)
        return SQLITE_IOERR_NOMEM;
    memset(j->real, 0, (size_t)vfs->szOsFile);
    rc = vfs->xOpen(vfs, j->super->name, j->real, flags, &flags);
    for (uint64_t at = 0; rc == SQLITE_OK && at < j->stage->size; at += sizeof(bytes)) {
        size_t n = j->stage->size - at < sizeof(bytes) ? (size_t)(j->stage->size - at)
                                                       : sizeof(bytes);

        rc = vfs_stage_read(j->stage, bytes, n, at);
        if (rc == SQLITE_OK)
            rc = j->real->pMethods->xWrite(j->real, bytes, (int)n, (sqlite3_int64)at);
    }
    if (rc != SQLITE_OK) {
        if (j->real->pMethods != NULL) {
            (void)j->real->pMethods->xClose(j->real);
            (void)vfs->xDelete(vfs, j->super->name, 0);
        }
        sqlite3_free(j->real);
        j->real = NULL;
        return vfs_refuse(rc, "%s: the super-journal cannot be made beside the volume, which an "
                              "ordinary database in the transaction needs", j->super->name);
    }
    j->super->real = true;
    return SQLITE_OK;
}

/* --- methods --------------------------------------------------------------------- */

static int
journal_close(sqlite3_file *file)
{
    struct vfs_journal *j = (struct vfs_journal *)file;

    if (j->real != NULL) {
        (void)j->real->pMethods->xClose(j->real);
        sqlite3_free(j->real);
    }
    if (j->super != NULL)
        super_close(j->super);
    vfs_stage_drop(&j->own);
    file->pMethods = NULL;
    return SQLITE_OK;
}

static int
journal_read(sqlite3_file *file, void *buf, int n, sqlite3_int64 offset)
{
    struct vfs_journal *j = (struct vfs_journal *)file;

    return vfs_stage_read(j->stage, buf, (size_t)n, (uint64_t)offset);
}

static int
journal_write(sqlite3_file *file, const void *buf, int n, sqlite3_int64 offset)
{
    struct vfs_journal *j = (struct vfs_journal *)file;
    int rc = SQLITE_OK;

    if (j->super == NULL && offset == 0 && n >= JOURNAL_HEADER)
        rc = vfs_stage_truncate(j->stage, 0);
    if (rc == SQLITE_OK)
        rc = vfs_stage_write(j->stage, buf, (size_t)n, (uint64_t)offset);
    if (rc != SQLITE_OK || j->super == NULL)
        return rc;
    super_member(j->super, buf, strnlen(buf, (size_t)n));
    if (j->real != NULL)
        return j->real->pMethods->xWrite(j->real, buf, n, offset);
    if (n > 1 && !vfs_journal_is_ours(buf, strnlen(buf, (size_t)n), "-journal"))
        return super_make_real(j);
    return SQLITE_OK;
}

static int
journal_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct vfs_journal *j = (struct vfs_journal *)file;

    return vfs_stage_truncate(j->stage, (uint64_t)size);
}

static int
journal_sync(sqlite3_file *file, int flags)
{
    struct vfs_journal *j = (struct vfs_journal *)file;

    return j->real != NULL ? j->real->pMethods->xSync(j->real, flags) : SQLITE_OK;
}

static int
journal_file_size(sqlite3_file *file, sqlite3_int64 *size)
{
    *size = (sqlite3_int64)((struct vfs_journal *)file)->stage->size;
    return SQLITE_OK;
}

static int
journal_lock(sqlite3_file *file, int level)
{
    (void)file;
    (void)level;
    return SQLITE_OK;
}

static int
journal_reserved(sqlite3_file *file, int *out)
{
    (void)file;
    *out = 0;
    return SQLITE_OK;
}

static int
journal_control(sqlite3_file *file, int op, void *arg)
{
    (void)file;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int
journal_sector_size(sqlite3_file *file)
{
    (void)file;
    return 512;
}

static int
journal_characteristics(sqlite3_file *file)
{
    const struct vfs_journal *j = (const struct vfs_journal *)file;

    /* Nothing of it survives, so no order is needed; a real one is synced. */
    return j->super != NULL ? 0 : SQLITE_IOCAP_SEQUENTIAL | SQLITE_IOCAP_SAFE_APPEND;
}

static const sqlite3_io_methods journal_methods = {
    .iVersion = 1,
    .xClose = journal_close,
    .xRead = journal_read,
    .xWrite = journal_write,
    .xTruncate = journal_truncate,
    .xSync = journal_sync,
    .xFileSize = journal_file_size,
    .xLock = journal_lock,
    .xUnlock = journal_lock,
    .xCheckReservedLock = journal_reserved,
    .xFileControl = journal_control,
    .xSectorSize = journal_sector_size,
    .xDeviceCharacteristics = journal_characteristics,
};

int
vfs_journal_open(const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    struct vfs_journal *j = (struct vfs_journal *)file;

    memset(j, 0, sizeof(*j));
    vfs_stage_init(&j->own, JOURNAL_UNIT, journal_base, NULL);
    vfs_stage_begin(&j->own, 0);
    j->stage = &j->own;
    if ((flags & SQLITE_OPEN_SUPER_JOURNAL) != 0) {
        j->super = super_open(name, (flags & SQLITE_OPEN_CREATE) != 0);
        if (j->super == NULL)
            return SQLITE_CANTOPEN;
        j->stage = &j->super->stage;
    }
    if (out_flags != NULL)
        *out_flags = flags;
    file->pMethods = &journal_methods;
    return SQLITE_OK;
}
