/* SPDX-License-Identifier: BSD-3-Clause */
#include "lmdb_world.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern const struct kvfs_engine kvfs_engine_lmdb;

/* --- the scratch folder --------------------------------------------------------- */

static void
world_make(struct world *w, const char *base)
{
    int n = snprintf(w->folder, sizeof(w->folder), "%.40s/kvfs-lmdb-XXXXXX", base);

    assert_true(n > 0 && n < (int)sizeof(w->folder));
    assert_non_null(mkdtemp(w->folder));
    (void)snprintf(w->store, sizeof(w->store), "%s/store", w->folder);
    (void)snprintf(w->file, sizeof(w->file), "%s/data.mdb", w->store);
    assert_int_equal(mkdir(w->store, 0777), 0);
}

static int
world_setup_at(void **state, const char *base)
{
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    w->engine = &kvfs_engine_lmdb;
    w->batch = kvfs_batch_new();
    assert_non_null(w->batch);
    w->block = (uint32_t)sysconf(_SC_PAGESIZE);
    w->random = world_seed();
    world_make(w, base);
    *state = w;
    return 0;
}

int
world_setup(void **state)
{
    const char *base = getenv("TMPDIR"); // NOLINT(concurrency-mt-unsafe): one thread yet

    return world_setup_at(state, base != NULL && strlen(base) <= 40 ? base : "/tmp");
}

int
world_setup_in_memory(void **state)
{
    return access("/dev/shm", W_OK) == 0 ? world_setup_at(state, "/dev/shm") : world_setup(state);
}

static int
world_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int
world_teardown(void **state)
{
    struct world *w = *state;

    if (w->db != NULL)
        world_close(w);
    kvfs_batch_free(w->batch);
    (void)nftw(w->folder, world_remove, 8, FTW_DEPTH | FTW_PHYS);
    free(w);
    return 0;
}

uint64_t
world_seed(void)
{
    static uint64_t seed;
    const char *text = getenv("KVFS_SEED"); // NOLINT(concurrency-mt-unsafe): one thread yet
    struct timespec now;

    if (seed == 0) {
        (void)clock_gettime(CLOCK_REALTIME, &now);
        seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)now.tv_nsec * 2654435761u;
        seed |= 1;
        (void)printf("KVFS_SEED=%llu\n", (unsigned long long)seed);
    }
    return seed;
}

uint64_t
world_random(struct world *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

/* --- the store --------------------------------------------------------------------- */

int
world_try(struct world *w, const struct kvfs_engine_options *options)
{
    return w->engine->open(w->engine, w->store, options, &w->db, &w->err);
}

void
world_open(struct world *w)
{
    world_open_limit(w, 0);
}

void
world_open_limit(struct world *w, uint64_t bytes)
{
    const struct kvfs_engine_options options = {.create = true, .store_max_bytes = bytes};
    struct kvfs_engine_limits limits;
    int rc = world_try(w, &options);

    if (rc != 0)
        print_error("open: %d: %s\n", rc, w->err.msg);
    assert_int_equal(rc, 0);
    w->engine->limits(w->db, &limits);
    w->block = limits.value_best_bytes;
}

void
world_close(struct world *w)
{
    w->engine->close(w->db);
    w->db = NULL;
}

void
world_key(uint8_t key[KVFS_DATA_KEY_LEN], uint64_t fork, uint64_t index)
{
    for (int i = 0; i < 8; i++) {
        key[i] = (uint8_t)(fork >> (56 - 8 * i));
        key[8 + i] = (uint8_t)(index >> (56 - 8 * i));
    }
}

static void
world_fill(uint8_t *value, size_t len, uint64_t index, uint64_t n)
{
    uint64_t x = (index + 1) * 0x9E3779B97F4A7C15u ^ (n + 1) * 0xC2B2AE3D27D4EB4Fu;

    for (size_t i = 0; i < len; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        value[i] = (uint8_t)(x >> 32);
    }
}

void
world_put(struct world *w, uint64_t index, uint64_t n)
{
    size_t len = w->block + WORLD_TRAILER;
    uint8_t key[KVFS_DATA_KEY_LEN];
    uint8_t *value = malloc(len);

    assert_non_null(value);
    world_key(key, 1, index);
    world_fill(value, len, index, n);
    kvfs_batch_put(w->batch, KVFS_DATA, key, sizeof(key), value, len);
    free(value);
}

void
world_del(struct world *w, uint64_t index)
{
    uint8_t key[KVFS_DATA_KEY_LEN];

    world_key(key, 1, index);
    kvfs_batch_del(w->batch, KVFS_DATA, key, sizeof(key));
}

void
world_meta(struct world *w, const char *key, const void *value, size_t len)
{
    kvfs_batch_put(w->batch, KVFS_META, key, strlen(key), value, len);
}

int
world_apply(struct world *w, enum kvfs_durability durability)
{
    struct kvfs_batch batch;
    int rc;

    assert_int_equal(kvfs_batch_end(w->batch, &batch), 0);
    w->err.code = 0;
    rc = w->engine->apply(w->db, &batch, durability, &w->err);
    kvfs_batch_reset(w->batch);
    assert_int_equal(rc, w->err.code);
    return rc;
}

void
world_commit(struct world *w, enum kvfs_durability durability)
{
    int rc = world_apply(w, durability);

    if (rc != 0)
        print_error("apply: %d: %s\n", rc, w->err.msg);
    assert_int_equal(rc, 0);
}

int
world_check(struct world *w, uint64_t index, uint64_t n)
{
    size_t len = w->block + WORLD_TRAILER, got = 0;
    uint8_t key[KVFS_DATA_KEY_LEN];
    uint8_t *value = malloc(2 * len);
    struct iovec iov = {value, len};
    struct kvfs_db_snap *snap;
    int rc = w->engine->begin(w->db, &snap, &w->err);

    assert_non_null(value);
    if (rc == 0) {
        world_key(key, 1, index);
        rc = w->engine->get(snap, KVFS_DATA, key, sizeof(key), 0, &iov, 1, &got, &w->err);
        w->engine->end(snap);
    }
    world_fill(value + len, len, index, n);
    if (rc == 0 && (got != len || memcmp(value, value + len, len) != 0))
        rc = -EIO;
    free(value);
    return rc;
}

struct kvfs_engine_stat
world_stat(struct world *w)
{
    struct kvfs_engine_stat stat;

    assert_int_equal(w->engine->stat(w->db, &stat, &w->err), 0);
    return stat;
}

struct world_findings {
    unsigned count;
    char *first;
};

static void
world_finding(void *arg, const char *where, const char *what)
{
    struct world_findings *f = arg;

    assert_null(strchr(what, '\n'));
    if (f->count++ == 0)
        (void)snprintf(f->first, 256, "%s: %s", where, what);
}

unsigned
world_verify(struct world *w, char first[256])
{
    struct world_findings f = {.first = first};
    int rc = w->engine->verify(w->db, world_finding, &f, NULL, NULL, &w->err);

    first[f.count > 0 ? 255 : 0] = '\0';
    if (rc != 0)
        print_error("verify: %d: %s\n", rc, w->err.msg);
    assert_int_equal(rc, 0);
    return f.count;
}

/* --- the file ------------------------------------------------------------------------- */

void
world_file_read(struct world_file *f, uint64_t pgno, void *page)
{
    assert_int_equal(pread(f->fd, page, f->psize, (off_t)(pgno * f->psize)), f->psize);
}

void
world_file_write(struct world_file *f, uint64_t pgno, const void *page)
{
    assert_int_equal(pwrite(f->fd, page, f->psize, (off_t)(pgno * f->psize)), f->psize);
}

static void
world_file_trees(struct world_file *f)
{
    uint8_t *page = malloc(f->psize);
    struct page_node node;

    assert_non_null(page);
    f->tree[WORLD_FREE] = f->meta.page.dbs[PAGE_DB_FREE];
    f->tree[WORLD_MAIN] = f->meta.page.dbs[PAGE_DB_MAIN];
    world_file_read(f, f->tree[WORLD_MAIN].root, page);
    for (int i = 0; i < 2; i++) { /* "data", "meta" */
        assert_true(kvfs_page_node(page, f->psize, (size_t)i, &node));
        assert_int_equal(node.data_len, sizeof(f->tree[i]));
        memcpy(&f->tree[i == 0 ? WORLD_DATA : WORLD_META], node.data, node.data_len);
    }
    free(page);
}

void
world_file_open(struct world *w, struct world_file *f)
{
    f->fd = open(w->file, O_RDWR | O_CLOEXEC);
    assert_true(f->fd >= 0);
    assert_int_equal(kvfs_lmdb_meta_read(f->fd, w->file, &f->meta, &w->err), 0);
    f->psize = f->meta.psize;
    world_file_trees(f);
}

void
world_file_close(struct world_file *f)
{
    assert_int_equal(close(f->fd), 0);
}

uint64_t
world_file_find(struct world_file *f, int tree, unsigned type)
{
    uint8_t *page = malloc(f->psize);
    uint64_t pgno = f->tree[tree].root, found = 0;
    struct page_header h;
    struct page_node node;

    assert_non_null(page);
    while (found == 0 && pgno != PAGE_NONE) {
        world_file_read(f, pgno, page);
        memcpy(&h, page, sizeof(h));
        if (h.flags == type)
            found = pgno;
        if (h.flags == PAGE_LEAF)
            break;
        assert_true(kvfs_page_node(page, f->psize, page_keys(&h) / 2, &node));
        pgno = node.child;
    }
    for (size_t i = 0; type == PAGE_OVERFLOW && found == 0 && pgno != PAGE_NONE &&
                       i < page_keys(&h);
         i++) {
        assert_true(kvfs_page_node(page, f->psize, i, &node));
        if ((node.flags & NODE_BIGDATA) != 0)
            found = node.child;
    }
    free(page);
    return found;
}

/* --- processes --------------------------------------------------------------------------- */

int
world_fork(void)
{
    int parent = getpid();
    int pid;

    (void)fflush(stdout);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent))
        _exit(1);
    return pid;
}

void
world_join(int pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        print_error("the child ended with wait status 0x%x\n", (unsigned)status);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
