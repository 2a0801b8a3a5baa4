/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_vfs_large.c - a transaction that is larger than the memory it may take: VACUUM of a
 * database, in a process that is killed before or after the record that commits it.
 *
 * KVFS_LARGE_MIB says how large the database is (128; nightly: 2048).  The process that makes
 * the change has a thread which looks at its anonymous memory: that of the map of a store's file
 * is the kernel's.
 */
#include "vfs_world.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <time.h>

#include "../core/fault_engine.h"

#define CACHE_BYTES ((size_t)8 << 20)
#define MORE_BYTES  ((size_t)64 << 20)
#define LOG_BYTES   ((size_t)80 << 20) /* its own, engines/log/README.md */
#define ROW_BYTES   20000

static struct fault_hooks *hooks;
static int kill_before, kill_after; /* the commit record */
static bool kill_met;

static unsigned
large_mib(void)
{
    const char *given = getenv("KVFS_LARGE_MIB"); // NOLINT(concurrency-mt-unsafe)

    return given != NULL ? (unsigned)strtoul(given, NULL, 10) : 128;
}

/* "Fork T over F": the record that makes a large transaction visible. */
static int
large_apply(const struct kvfs_batch *batch, enum kvfs_durability durability)
{
    (void)durability;
    kill_met = false;
    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];

        if (op->type == KVFS_OP_PUT && op->keyspace == KVFS_META &&
            *(const unsigned char *)op->key == 'V')
            kill_met = true;
    }
    if (kill_met && kill_before)
        (void)kill(getpid(), SIGKILL);
    return 0;
}

static int
large_applied(int rc)
{
    if (kill_met && kill_after)
        (void)kill(getpid(), SIGKILL);
    return rc;
}

/* --- memory --------------------------------------------------------------------------- */

static atomic_size_t memory_most;
static atomic_bool memory_stop;

static size_t
memory_now(void)
{
    FILE *f = fopen("/proc/self/status", "re");
    char line[200];
    size_t kib = 0;

    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "RssAnon:", 8) == 0)
            kib = strtoul(line + 8, NULL, 10);
    }
    (void)fclose(f);
    return kib << 10;
}

static void *
memory_watch(void *arg)
{
    const struct timespec pause = {.tv_nsec = 5000000};

    (void)arg;
    while (!atomic_load(&memory_stop)) {
        size_t now = memory_now();

        if (now > atomic_load(&memory_most))
            atomic_store(&memory_most, now);
        (void)nanosleep(&pause, NULL);
    }
    return NULL;
}

/* --- the database ---------------------------------------------------------------------- */

static struct kvfs_volume *
large_volume(struct world *w)
{
    struct kvfs_volume_options options = {.cache_bytes = CACHE_BYTES};
    struct kvfs_volume *v = NULL;
    struct kvfs_error err = {0};

    if (kvfs_volume_open(w->volume, &options, &v, &err) < 0)
        fail_msg("%s", err.msg);
    return v;
}

static void
large_make(struct world *w)
{
    struct kvfs_volume *v = large_volume(w);
    sqlite3 *db = world_open(w, "a.db", "");
    char sql[300];

    (void)snprintf(sql, sizeof(sql),
                   "CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE TABLE gone(x);"
                   "INSERT INTO gone VALUES(zeroblob(3000000));"
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%u) "
                   "INSERT INTO t SELECT i, randomblob(%d) FROM n; DROP TABLE gone",
                   large_mib() * (1u << 20) / ROW_BYTES, ROW_BYTES);
    world_sql(db, sql);
    world_close(db);
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
}

/* A child: VACUUM, with a limit to what it takes, or killed in it. */
static int
large_vacuum(struct world *w, int before, int after)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct kvfs_volume *v = large_volume(w);
        sqlite3 *db = world_open(w, "a.db", "");
        size_t begun = memory_now();
        size_t bound = begun + CACHE_BYTES + MORE_BYTES;
        pthread_t watch;

        if (strncmp(world_engine(), "log:", 4) == 0)
            bound += LOG_BYTES;
        kill_before = before;
        kill_after = after;
        (void)pthread_create(&watch, NULL, memory_watch, NULL);
        world_sql(db, "PRAGMA temp_store=FILE; VACUUM");
        atomic_store(&memory_stop, true);
        (void)pthread_join(watch, NULL);
        print_message("VACUUM of %u MiB over %s: %zu MiB at most, %zu MiB before; bound %zu MiB\n",
                      large_mib(), world_engine(), atomic_load(&memory_most) >> 20, begun >> 20,
                      bound >> 20);
        if (getenv("KVFS_SANITIZE") == NULL || *getenv("KVFS_SANITIZE") == '\0') // NOLINT
            assert_true(atomic_load(&memory_most) < bound);
        world_close(db);
        assert_int_equal(kvfs_volume_close(v, NULL), 0);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* Blocks in the store, once nothing is left to be worked off. */
static uint64_t
large_records(struct world *w)
{
    struct kvfs_volume *v = large_volume(w);
    struct kvfs_volume_stat st;

    do {
        assert_true(kvfs_volume_work(v, 100, NULL) >= 0);
        assert_int_equal(kvfs_volume_stat(v, &st, NULL), 0);
    } while (st.forks_deleting > 0);
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
    return st.engine.data_records;
}

/* A small transaction; open until the fork that lies over the file's is worked off, and as many
 * blocks are left as RECORDS says. */
static void
large_touch(struct world *w, uint64_t records)
{
    struct kvfs_volume *v = large_volume(w);
    sqlite3 *db = world_open(w, "a.db", "");
    struct kvfs_volume_stat st;

    world_sql(db, "PRAGMA user_version=1");
    do {
        assert_true(kvfs_volume_work(v, 100, NULL) >= 0);
        assert_int_equal(kvfs_volume_stat(v, &st, NULL), 0);
        world_sql(db, "SELECT count(*) FROM t");
    } while (st.engine.data_records > records + records / 16);
    world_close(db);
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
}

struct seen {
    long pages, count, sum;
};

static struct seen
large_look(struct world *w)
{
    sqlite3 *db = world_open(w, "a.db", "");
    struct seen seen = {
        .pages = strtol(world_text(db, "PRAGMA page_count"), NULL, 10),
        .count = strtol(world_text(db, "SELECT count(*) FROM t"), NULL, 10),
        .sum = strtol(world_text(db, "SELECT sum(unicode(hex(x))*id) FROM t"), NULL, 10),
    };

    assert_string_equal(world_text(db, "PRAGMA integrity_check"), "ok");
    world_close(db);
    return seen;
}

static void
vacuum__killed_before_and_after_the_record__is_old_or_new(void **state)
{
    struct world *w = *state;
    struct seen old, now;
    uint64_t records;
    int status;

    large_make(w);
    old = large_look(w);
    records = large_records(w);

    status = large_vacuum(w, 1, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    now = large_look(w);
    assert_memory_equal(&now, &old, sizeof(now));
    assert_in_range(large_records(w), records / 2, records + records / 16); /* T is collected */

    status = large_vacuum(w, 0, 1);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    now = large_look(w); /* honoured at once, before it is worked off */
    assert_true(now.pages < old.pages);
    assert_true(now.count == old.count && now.sum == old.sum);
    large_touch(w, records); /* who writes next finds it, and the background goes on from there */
    assert_in_range(large_records(w), records / 2, records + records / 16);
    old = now;

    status = large_vacuum(w, 0, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    (void)large_records(w);
    now = large_look(w);
    assert_memory_equal(&now, &old, sizeof(now));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(vacuum__killed_before_and_after_the_record__is_old_or_new,
                                        world_setup, world_teardown),
    };
    void *dl = dlopen(KVFS_FAULT_ENGINE, RTLD_NOW | RTLD_LOCAL);

    if (dl == NULL || (hooks = dlsym(dl, "kvfs_fault_hooks")) == NULL) {
        print_error("%s: %s\n", KVFS_FAULT_ENGINE, dlerror()); // NOLINT(concurrency-mt-unsafe)
        return 1;
    }
    world_engine_path = KVFS_FAULT_ENGINE;
    hooks->apply = large_apply;
    hooks->applied = large_applied;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
