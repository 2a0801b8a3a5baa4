/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scenario_kvfs.c - files and names through libkvfs: creates, renames, unlinks, links, folders,
 * writes, zeros, sizes, and now and then a sync.
 *
 * What is demanded.  The worker is one thread, so its operations are one sequence.  Names go to
 * the engine at once, contents in commits: so the recovered names must be those after the first I
 * operations on names, and the contents those after the first D on data, with
 *   1. I and D at least what was durably acknowledged: a sync covers all before it, a flush and a
 *      write with FUA what was written before it and the names that this stands on, a new size
 * itself;   2. I and D at most what had been issued;
 *   3. I holds the names that had been acknowledged before the last operation of D was issued (no
 *      hole in the order: what was applied later implies what was applied before).
 * An engine that promises order and no durability is asked for 2 and 3; one that promises nothing
 * is judged the same way, and what is found is told as something it never promised.
 *
 * Every file carries the number of its creation as its owner's number, and every 512 bytes name
 * the operation that wrote them, so a recovered file says for itself where it comes from.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "random.h"
#include "scenario.h"

#define DIRS      6u /* the root is number 0 */
#define NAMES     16u
#define CELL      512u
#define CELLS_MAX 512u /* of a file: 256 KiB */
#define FILES_MAX 4096u
#define OPS       600u
#define NONE      UINT32_MAX

enum op_kind { /* op.a: folder or file, as told */
    OP_CREATE, /* a: slot, b: file */
    OP_UNLINK, /* a: slot */
    OP_RENAME, /* a: slot from, b: slot to, which may be taken */
    OP_LINK,   /* a: slot from, b: slot to */
    OP_MKDIR,  /* a: folder */
    OP_RMDIR,  /* a: folder */
    OP_WRITE,  /* a: slot, b: file; c: flags */
    OP_ZERO,   /* the same */
    OP_SIZE,   /* the same; count: the size */
    OP_FLUSH,  /* a: slot, b: file */
    OP_SYNC,
};

/* A slot is a name in a folder: folder * NAMES + name. */
#define SLOTS (DIRS * NAMES)

struct names {
    uint32_t slot[SLOTS]; /* the file; NONE */
    uint8_t dir[DIRS];    /* exists? */
};

struct contents {
    uint32_t cells;         /* size in cells */
    uint32_t by[CELLS_MAX]; /* operation + 1; 0: zeros */
};

struct model {
    struct names names;
    struct contents *files[FILES_MAX];
};

/* --- the model --- */

static bool
op_is_name(uint32_t kind)
{
    return kind <= OP_RMDIR;
}

static bool
op_is_data(uint32_t kind)
{
    return kind >= OP_WRITE && kind <= OP_SIZE;
}

static void
names_init(struct names *n)
{
    memset(n, 0, sizeof(*n));
    memset(n->slot, 0xff, sizeof(n->slot));
    n->dir[0] = 1;
}

static bool
names_same(const struct names *a, const struct names *b)
{
    return memcmp(a->slot, b->slot, sizeof(a->slot)) == 0 &&
           memcmp(a->dir, b->dir, sizeof(a->dir)) == 0;
}

static void
names_apply(struct names *n, const struct journal_op *op)
{
    switch (op->kind) {
    case OP_CREATE:
        n->slot[op->a] = op->b;
        break;
    case OP_UNLINK:
        n->slot[op->a] = NONE;
        break;
    case OP_LINK:
        n->slot[op->b] = n->slot[op->a];
        break;
    case OP_MKDIR:
        n->dir[op->a] = 1;
        break;
    case OP_RMDIR:
        n->dir[op->a] = 0;
        break;
    case OP_RENAME:
        if (n->slot[op->a] == n->slot[op->b])
            break; /* two links of one file: rename(2) does nothing */
        n->slot[op->b] = n->slot[op->a];
        n->slot[op->a] = NONE;
        break;
    default:
        break;
    }
}

static struct contents *
model_file(struct model *m, uint32_t file)
{
    if (file >= FILES_MAX)
        return NULL;
    if (m->files[file] == NULL)
        m->files[file] = calloc(1, sizeof(struct contents));
    return m->files[file];
}

static void
model_apply_data(struct model *m, const struct journal_op *op, uint32_t number)
{
    struct contents *c = model_file(m, op->b);
    uint32_t first = (uint32_t)(op->offset / CELL), end = first + (uint32_t)(op->count / CELL);

    if (c == NULL)
        return;
    if (op->kind == OP_SIZE) {
        for (uint32_t i = end; i < c->cells; i++)
            c->by[i] = 0;
        c->cells = end;
        return;
    }
    for (uint32_t i = first; i < end && i < CELLS_MAX; i++)
        c->by[i] = op->kind == OP_WRITE ? number + 1 : 0;
    if (end > c->cells)
        c->cells = end;
}

static void
model_free(struct model *m)
{
    for (uint32_t i = 0; i < FILES_MAX; i++)
        free(m->files[i]);
    free(m);
}

/* --- bytes --- */

static void
cell_fill(uint8_t *buf, uint32_t op, uint64_t cell)
{
    for (uint32_t i = 0; i < CELL / 8; i++) {
        uint64_t word = ((uint64_t)(op + 1) << 32) | (uint32_t)crashsim_hash2(op, cell * 64 + i);

        memcpy(buf + (size_t)i * 8, &word, 8);
    }
}

/* Who wrote it: operation + 1, 0 of zeros, NONE of neither. */
static uint32_t
cell_writer(const uint8_t *buf, uint64_t cell)
{
    uint8_t want[CELL] = {0};
    uint64_t word;

    memcpy(&word, buf, 8);
    if (word >> 32 != 0)
        cell_fill(want, (uint32_t)(word >> 32) - 1, cell);
    return memcmp(buf, want, CELL) == 0 ? (uint32_t)(word >> 32) : NONE;
}

/* --- the worker --- */

struct worker {
    struct journal *j;
    struct kvfs_volume *v;
    uint64_t seed;
    struct model *m;
    uint64_t dirs[DIRS]; /* inode numbers */
    uint64_t inos[FILES_MAX];
    struct kvfs_file *open[8]; /* some stay open, so that unlinks make orphans */
    uint32_t files;
    uint32_t burst; /* so many whole files are written one after the other: the cache fills */
    uint64_t store_first, log_last, log_appended;
    struct kvfs_volume_stat last; /* as last looked at */
    bool asked;                   /* since then something was made durable */
    unsigned interval_ms;
    struct kvfs_error *err;
};

/* Look at the volume as others may. */
static void
worker_look(struct worker *w)
{
    struct journal_seen *seen = &w->j->seen;
    struct kvfs_volume_stat st;

    if (kvfs_volume_stat(w->v, &st, NULL) < 0)
        return;
    if (w->store_first == 0)
        w->store_first = st.engine.store_bytes;
    seen->commits = st.commits;
    seen->commits_durable = st.commits_durable;
    seen->full += st.dirty_bytes > st.cache_bytes / 2;
    /* With a long interval only a cache that is full starts a commit by itself. */
    seen->pressure += w->last.dirty_bytes > st.cache_bytes / 2 && !w->asked &&
                      w->interval_ms >= 5000 && st.commits > w->last.commits;
    w->last = st;
    w->asked = false;
    seen->deleting += st.forks_deleting > 0;
    seen->holes += st.holes_pending > 0;
    if (st.engine.store_bytes > w->store_first)
        seen->growth = st.engine.store_bytes - w->store_first;
    if (st.engine.log_used_bytes < w->log_last)
        seen->folds++;
    else
        w->log_appended += st.engine.log_used_bytes - w->log_last;
    w->log_last = st.engine.log_used_bytes;
    if (st.engine.log_bytes > 0)
        seen->wraps = w->log_appended / st.engine.log_bytes;
}

static uint32_t
worker_random(struct worker *w, uint32_t n)
{
    return (uint32_t)(crashsim_random(&w->seed) % n);
}

static const char *
slot_name(uint32_t slot, char buf[16])
{
    (void)snprintf(buf, 16, "n%u", slot % NAMES);
    return buf;
}

/* A slot of an existing folder that is taken, or is not; NONE: not found quickly. */
static uint32_t
worker_slot(struct worker *w, bool taken)
{
    for (int i = 0; i < 200; i++) {
        uint32_t slot = worker_random(w, SLOTS);

        if (w->m->names.dir[slot / NAMES] && (w->m->names.slot[slot] != NONE) == taken)
            return slot;
    }
    return NONE;
}

static int
worker_do_name(struct worker *w, const struct journal_op *op)
{
    struct kvfs_create create = {.mode = S_IFREG | 0644, .uid = op->b};
    uint64_t *d = w->dirs;
    char from[16], to[16];
    struct kvfs_attr attr = {0};
    int r;

    (void)slot_name(op->a, from);
    switch (op->kind) {
    case OP_CREATE:
        r = kvfs_create(w->v, d[op->a / NAMES], from, &create, &attr, w->err);
        w->inos[op->b] = attr.ino;
        return r;
    case OP_UNLINK:
        return kvfs_unlink(w->v, d[op->a / NAMES], from, w->err);
    case OP_RENAME:
        return kvfs_rename(w->v, d[op->a / NAMES], from, d[op->b / NAMES], slot_name(op->b, to), 0,
                           w->err);
    case OP_LINK:
        return kvfs_link(w->v, w->inos[w->m->names.slot[op->a]], d[op->b / NAMES],
                         slot_name(op->b, to), w->err);
    case OP_MKDIR:
        create = (struct kvfs_create){.mode = S_IFDIR | 0755, .uid = op->a};
        (void)snprintf(from, sizeof(from), "d%u", op->a);
        r = kvfs_create(w->v, KVFS_ROOT_INO, from, &create, &attr, w->err);
        d[op->a] = attr.ino;
        return r;
    default:
        (void)snprintf(from, sizeof(from), "d%u", op->a);
        return kvfs_rmdir(w->v, KVFS_ROOT_INO, from, w->err);
    }
}

static int
worker_do_data(struct worker *w, const struct journal_op *op, uint32_t number)
{
    static uint8_t buf[CELLS_MAX * CELL];
    struct kvfs_file *f = NULL;
    int r = kvfs_file_open(w->v, w->inos[op->b], KVFS_OPEN_WRITE, &f, w->err);
    uint32_t keep = worker_random(w, 24);

    if (r < 0)
        return r;
    for (uint32_t i = 0; op->kind == OP_WRITE && i < op->count / CELL; i++)
        cell_fill(buf + (size_t)i * CELL, number, op->offset / CELL + i);
    switch (op->kind) {
    case OP_WRITE:
        r = kvfs_file_pwrite(f, buf, op->count, op->offset, KVFS_EXTEND | op->c, w->err);
        break;
    case OP_ZERO:
        r = kvfs_file_zero(f, op->count, op->offset, op->c, w->err);
        break;
    case OP_SIZE:
        r = kvfs_file_resize(f, op->count, w->err);
        break;
    default:
        r = kvfs_file_flush(f, w->err);
        break;
    }
    if (keep < 8) {
        if (w->open[keep] != NULL)
            kvfs_file_close(w->open[keep]);
        w->open[keep] = f;
    } else {
        kvfs_file_close(f);
    }
    return r;
}

static bool
worker_dir_is_empty(const struct names *n, uint32_t dir)
{
    for (uint32_t i = 0; i < NAMES; i++) {
        if (n->slot[dir * NAMES + i] != NONE)
            return false;
    }
    return true;
}

static bool
worker_pick_name(struct worker *w, struct journal_op *op)
{
    uint32_t dice = worker_random(w, 100);
    const struct names *n = &w->m->names;

    op->b = NONE;
    if (dice < 50) {
        op->kind = OP_CREATE;
        op->a = worker_slot(w, false);
        op->b = w->files;
        return op->a != NONE && w->files < FILES_MAX;
    }
    if (dice < 85) {
        op->kind = dice < 65 ? OP_UNLINK : dice < 78 ? OP_RENAME : OP_LINK;
        op->a = worker_slot(w, true);
        if (op->kind != OP_UNLINK)
            op->b = worker_slot(w, op->kind == OP_RENAME && dice < 72);
        return op->a != NONE && (op->kind == OP_UNLINK || op->b != NONE) && op->a != op->b;
    }
    op->a = 1 + worker_random(w, DIRS - 1);
    op->kind = n->dir[op->a] ? OP_RMDIR : OP_MKDIR;
    return op->kind == OP_MKDIR || worker_dir_is_empty(n, op->a);
}

static bool
worker_pick_data(struct worker *w, struct journal_op *op)
{
    uint32_t dice = worker_random(w, 100);
    const struct contents *c;
    uint32_t first, count;

    op->a = worker_slot(w, true);
    if (op->a == NONE)
        return false;
    op->b = w->m->names.slot[op->a];
    if (w->burst == 0 && worker_random(w, 100) == 0)
        w->burst = 10;
    if (w->burst > 0) {
        w->burst--;
        op->kind = OP_WRITE;
        op->count = (uint64_t)CELLS_MAX * CELL;
        return true;
    }
    c = model_file(w->m, op->b);
    op->c = worker_random(w, 12) == 0 ? KVFS_FUA : 0;
    count = 1 + worker_random(w, (uint32_t)1 << (1 + worker_random(w, 8)));
    first = worker_random(w, c->cells + 16);
    op->kind = dice < 78 ? OP_WRITE : dice < 86 ? OP_ZERO : dice < 93 ? OP_SIZE : OP_FLUSH;
    if (op->kind == OP_SIZE) {
        count = worker_random(w, 3) * worker_random(w, c->cells + 8);
        op->count = (uint64_t)(count > CELLS_MAX ? CELLS_MAX : count) * CELL;
        return true;
    }
    if (op->kind == OP_ZERO && c->cells == 0)
        return false;
    if (op->kind == OP_ZERO) {
        first %= c->cells;
        count = count > c->cells - first ? c->cells - first : count;
    }
    if (first >= CELLS_MAX)
        return false;
    count = count > CELLS_MAX - first ? CELLS_MAX - first : count;
    op->offset = (uint64_t)first * CELL;
    op->count = op->kind == OP_FLUSH ? 0 : (uint64_t)count * CELL;
    return true;
}

static int
worker_step(struct worker *w)
{
    uint32_t dice = worker_random(w, 100);
    struct journal_op op = {0};
    int number, r;

    if (dice < 4 && w->burst == 0)
        op.kind = OP_SYNC;
    else if (dice < 40 && w->burst == 0 ? !worker_pick_name(w, &op) : !worker_pick_data(w, &op))
        return 0;
    number = journal_issue(w->j, &op);
    if (number < 0)
        return kvfs_error_set(w->err, number, "the journal is full");
    if (op.kind == OP_SYNC)
        r = kvfs_volume_sync(w->v, w->err);
    else if (op_is_name(op.kind))
        r = worker_do_name(w, &op);
    else
        r = worker_do_data(w, &op, (uint32_t)number);
    if (r < 0)
        return r;
    journal_ack(w->j, number);
    w->asked = w->asked || op.kind >= OP_SIZE || op.c != 0;
    if (op_is_name(op.kind))
        names_apply(&w->m->names, &op);
    else if (op_is_data(op.kind))
        model_apply_data(w->m, &op, (uint32_t)number);
    w->files += op.kind == OP_CREATE;
    return 0;
}

static int
kvfs_work(const struct subject *s, const char *volume, struct journal *j, struct kvfs_error *err)
{
    struct worker *w = calloc(1, sizeof(*w));
    struct kvfs_volume_options options;
    char params[SUBJECT_PARAMS_MAX];
    int r = -ENOMEM;

    if (w != NULL)
        w->m = calloc(1, sizeof(*w->m));
    if (w == NULL || w->m == NULL) {
        free(w);
        return kvfs_error_set(err, -ENOMEM, "no memory");
    }
    w->j = j;
    w->seed = j->seed;
    w->err = err;
    names_init(&w->m->names);
    w->dirs[0] = KVFS_ROOT_INO;
    subject_options(s, j->seed, params, &options);
    w->interval_ms = options.commit_interval_ms;
    r = kvfs_volume_open(volume, &options, &w->v, err);
    for (uint32_t i = 0; r == 0 && i < OPS; i++) {
        r = worker_step(w);
        if (i % 4 == 0 || w->burst > 0)
            worker_look(w);
    }
    /* The process ends without closing: so an end in order is no different from a cut. */
    return r;
}

/* --- the oracle --- */

struct found {
    struct judge *j;
    struct model *m; /* what was recovered */
    uint8_t seen[FILES_MAX];
    uint32_t dir; /* being read */
    struct kvfs_error *err;
    int rc;
};

static void
found_file(struct found *f, const struct kvfs_attr *attr)
{
    static uint8_t buf[CELLS_MAX * CELL];
    struct contents *c = model_file(f->m, attr->uid);
    struct kvfs_file *file = NULL;

    if (c == NULL || f->seen[attr->uid])
        return;
    f->seen[attr->uid] = 1;
    if (attr->size_bytes > sizeof(buf) || attr->size_bytes % CELL != 0) {
        judge_bad(f->j, "file %u has %llu bytes, which nobody made it", attr->uid,
                  (unsigned long long)attr->size_bytes);
        return;
    }
    f->rc = kvfs_file_open(f->j->v, attr->ino, KVFS_OPEN_READ, &file, f->err);
    if (f->rc < 0)
        return;
    if (attr->size_bytes > 0)
        f->rc = kvfs_file_pread(file, buf, attr->size_bytes, 0, f->err);
    kvfs_file_close(file);
    c->cells = f->rc < 0 ? 0 : (uint32_t)(attr->size_bytes / CELL);
    for (uint32_t i = 0; i < c->cells; i++) {
        c->by[i] = cell_writer(buf + (size_t)i * CELL, i);
        if (c->by[i] == NONE)
            judge_bad(f->j, "file %u has a torn or strange sector at byte %u", attr->uid, i * CELL);
        f->j->digest = crashsim_hash2(f->j->digest, c->by[i]);
    }
    f->j->digest = crashsim_hash2(f->j->digest, attr->uid + ((uint64_t)attr->nlink << 32));
}

static int
found_entry(void *arg, const struct kvfs_dirent *e)
{
    struct found *f = arg;
    struct kvfs_attr attr = {0};
    unsigned number;
    char *end;

    if (strcmp(e->name, JUDGE_AFTER) == 0)
        return 0;
    number = (unsigned)strtoul(e->name + 1, &end, 10);
    f->rc = kvfs_getattr(f->j->v, e->ino, &attr, f->err);
    if (f->rc < 0)
        return f->rc;
    if (e->name[0] == 'd' && f->dir == 0 && number > 0 && number < DIRS && S_ISDIR(attr.mode)) {
        f->m->names.dir[number] = 1;
        return 0;
    }
    if (e->name[0] != 'n' || number >= NAMES || *end != '\0' || !S_ISREG(attr.mode)) {
        judge_bad(f->j, "there is a name that nobody made: %.40s", e->name);
        return 0;
    }
    f->m->names.slot[f->dir * NAMES + number] = attr.uid;
    f->j->digest = crashsim_hash2(f->j->digest,
                                  ((uint64_t)f->dir << 40) + ((uint64_t)number << 32) + attr.uid);
    found_file(f, &attr);
    return f->rc;
}

static int
found_read(struct found *f)
{
    int r = kvfs_readdir(f->j->v, KVFS_ROOT_INO, 0, found_entry, f, f->err);

    for (uint32_t d = 1; r == 0 && d < DIRS; d++) {
        struct kvfs_attr attr = {0};
        char name[16];

        if (!f->m->names.dir[d])
            continue;
        (void)snprintf(name, sizeof(name), "d%u", d);
        r = kvfs_lookup(f->j->v, KVFS_ROOT_INO, name, &attr, f->err);
        f->dir = d;
        if (r == 0)
            r = kvfs_readdir(f->j->v, attr.ino, 0, found_entry, f, f->err);
    }
    return r;
}

/* What was acknowledged as durable at the cut: all operations on names below *NAMES and on data
 * below *DATA. */
static void
oracle_durable(const struct journal *j, uint64_t t_ns, uint32_t *names, uint32_t *data)
{
    uint32_t issued = journal_issued_at(j, t_ns);
    /* By file: the last operation on its data that nothing made durable yet. */
    static uint32_t dirty[FILES_MAX];

    *names = *data = 0;
    memset(dirty, 0, sizeof(dirty));
    for (uint32_t i = 0; i < issued; i++) {
        const struct journal_op *op = &j->ops[i];
        uint32_t upto = 0;

        if (op_is_data(op->kind))
            dirty[op->b] = i + 1;
        if (!journal_acked_at(j, i, t_ns))
            continue;
        if (op->kind == OP_FLUSH)
            upto = dirty[op->b];
        else if (op->kind == OP_SYNC || op->kind == OP_SIZE ||
                 (op_is_data(op->kind) && op->c == KVFS_FUA))
            upto = i + 1;
        *names = upto > *names ? upto : *names;
        *data = upto > *data ? upto : *data;
    }
}

/* Find the numbers of operations after which the names are as found. */
static bool
oracle_names(const struct judge *j, const struct names *found, uint32_t lo, uint32_t hi,
             uint32_t *last)
{
    struct names n;
    bool good = false;

    names_init(&n);
    for (uint32_t i = 0; i <= hi; i++) {
        if (i >= lo && names_same(&n, found)) {
            *last = i;
            good = true;
        }
        if (i < hi && op_is_name(j->j->ops[i].kind))
            names_apply(&n, &j->j->ops[i]);
    }
    return good;
}

static bool
oracle_same(const struct found *f, struct model *m)
{
    for (uint32_t i = 0; i < FILES_MAX; i++) {
        const struct contents *a = f->m->files[i], *b;

        if (a == NULL)
            continue;
        b = model_file(m, i);
        if (b == NULL || a->cells != b->cells ||
            memcmp(a->by, b->by, a->cells * sizeof(a->by[0])) != 0)
            return false;
    }
    return true;
}

/* The same of contents; the smallest. */
static bool
oracle_data(const struct found *f, uint32_t lo, uint32_t hi, uint32_t *first)
{
    struct model *m = calloc(1, sizeof(*m));
    bool good = false, changed = true;

    for (uint32_t i = 0; m != NULL && i <= hi && !good; i++) {
        if (i >= lo && changed) {
            good = oracle_same(f, m);
            *first = i;
            changed = false;
        }
        if (i < hi && op_is_data(f->j->j->ops[i].kind)) {
            model_apply_data(m, &f->j->j->ops[i], i);
            changed = true;
        }
    }
    if (m != NULL)
        model_free(m);
    return good;
}

static void
oracle_judge(const struct found *f)
{
    struct judge *j = f->j;
    uint32_t issued = journal_issued_at(j->j, j->t_ns), names_lo, data_lo, names = 0, data = 0;
    uint32_t must = 0;

    oracle_durable(j->j, j->t_ns, &names_lo, &data_lo);
    if (!judge_expects_durable(j))
        names_lo = data_lo = 0;
    if (!oracle_names(j, &f->m->names, names_lo, issued, &names)) {
        bool older = oracle_names(j, &f->m->names, 0, issued, &names);

        judge_bad(j,
                  older ? "names of %u operations are there, %u were durable"
                        : "the names are those of no prefix of the operations (%u, %u durable)",
                  older ? names : issued, names_lo);
        return;
    }
    if (!oracle_data(f, data_lo, issued, &data)) {
        bool older = oracle_data(f, 0, issued, &data);

        judge_bad(j,
                  older ? "contents of %u operations are there, %u were durable"
                        : "the contents are those of no prefix of the operations (%u, %u durable)",
                  older ? data : issued, data_lo);
        return;
    }
    for (uint32_t i = 0; data > 0 && i < data; i++) {
        if (op_is_name(j->j->ops[i].kind) &&
            journal_acked_at(j->j, i, j->j->ops[data - 1].issued_ns))
            must = i + 1;
    }
    if (names < must)
        judge_bad(j, "the contents hold operation %u, the names lack one before it: they hold %u",
                  data - 1, names);
    j->verdict->lost = issued - (data < names ? data : names);
}

static uint64_t
kvfs_durable(const struct journal *j, uint64_t t_ns)
{
    uint32_t names, data;

    oracle_durable(j, t_ns, &names, &data);
    return ((uint64_t)names << 16) + data; /* both at most OPS */
}

static int
kvfs_judge(struct judge *j, struct kvfs_error *err)
{
    struct found *f = calloc(1, sizeof(*f));
    int r = -ENOMEM;

    if (f != NULL)
        f->m = calloc(1, sizeof(*f->m));
    if (f == NULL || f->m == NULL) {
        free(f);
        return kvfs_error_set(err, -ENOMEM, "no memory");
    }
    f->j = j;
    f->err = err;
    j->digest = 0;
    names_init(&f->m->names);
    r = found_read(f);
    if (r == 0)
        r = f->rc;
    if (r == 0 && j->verdict->status != VERDICT_VIOLATION)
        oracle_judge(f);
    model_free(f->m);
    free(f);
    return r;
}

const struct scenario scenario_kvfs = {
    .name = "kvfs",
    .summary = "creates, renames, unlinks, links, writes and sizes through libkvfs",
    .work = kvfs_work,
    .judge = kvfs_judge,
    .durable = kvfs_durable,
};
