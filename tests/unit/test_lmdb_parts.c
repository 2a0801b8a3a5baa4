/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The lmdb engine's parts that need no store: layout, order, errors, the guard.
 */
#include "lmdb_world.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- layout -------------------------------------------------------------------- */

static size_t
layout_bytes(const struct kvfs_lmdb_layout *l, size_t len)
{
    size_t keep = kvfs_lmdb_layout_keep(l, len);
    size_t key = KVFS_LMDB_DATA_HEAD + len - keep;

    assert_true(keep <= len && key <= l->key_max);
    return kvfs_lmdb_layout_overflow(l, key, keep) * l->psize +
           kvfs_lmdb_layout_leaf(l, key, keep);
}

static void
layout_keep__kvfs_blocks__no_page_wasted(void **state)
{
    struct kvfs_lmdb_layout l;

    (void)state;
    for (size_t psize = 4096; psize <= 65536; psize *= 2) {
        kvfs_lmdb_layout_init(&l, psize, 511);
        for (size_t block = psize; block <= 65536; block *= 2) {
            size_t len = block + WORLD_TRAILER;

            assert_int_equal(kvfs_lmdb_layout_keep(&l, len), block - 16);
            assert_true(layout_bytes(&l, len) * 100 <= len * 102);
        }
    }
}

static void
layout_keep__every_length__never_more_pages_than_whole(void **state)
{
    struct kvfs_lmdb_layout l;

    (void)state;
    for (size_t psize = 4096; psize <= 16384; psize *= 4) {
        kvfs_lmdb_layout_init(&l, psize, 511);
        for (size_t len = 0; len < 5 * psize; len++) {
            size_t keep = kvfs_lmdb_layout_keep(&l, len);

            assert_true(layout_bytes(&l, len) <=
                        kvfs_lmdb_layout_overflow(&l, KVFS_LMDB_DATA_HEAD, len) * psize +
                            kvfs_lmdb_layout_leaf(&l, KVFS_LMDB_DATA_HEAD, len));
            if (8 + KVFS_LMDB_DATA_HEAD + len <= l.node_max)
                assert_int_equal(keep, len);
            if (keep < len)
                assert_int_equal((keep + 16) % psize, 0);
        }
    }
}

/* --- order ------------------------------------------------------------------------ */

static void
order__random_ops__last_of_each_key_sorted(void **state)
{
    struct world *w = *state;

    for (unsigned round = 0; round < 200; round++) {
        struct kvfs_op ops[40];
        uint8_t keys[40] = {0};
        size_t n = world_random(w) % 40, count;
        uint32_t *order;
        int last[2][8];

        memset(ops, 0, sizeof(ops));
        memset(last, -1, sizeof(last));
        for (size_t i = 0; i < n; i++) {
            keys[i] = (uint8_t)(world_random(w) % 8);
            ops[i].type = world_random(w) % 2 ? KVFS_OP_PUT : KVFS_OP_DEL;
            ops[i].keyspace = (uint8_t)(world_random(w) % 2);
            ops[i].key = &keys[i];
            ops[i].key_len = 1;
            last[ops[i].keyspace][keys[i]] = (int)i;
        }
        assert_true(kvfs_lmdb_order(ops, 0, n, &order, &count));
        for (size_t i = 0; i < count; i++) {
            size_t at = order != NULL ? order[i] : i;
            size_t before = i == 0 ? 0 : order != NULL ? order[i - 1] : i - 1;

            assert_int_equal(last[ops[at].keyspace][keys[at]], at);
            last[ops[at].keyspace][keys[at]] = -1;
            if (i > 0)
                assert_true(ops[before].keyspace < ops[at].keyspace ||
                            (ops[before].keyspace == ops[at].keyspace && keys[before] < keys[at]));
        }
        for (int i = 0; i < 16; i++)
            assert_int_equal(last[i / 8][i % 8], -1);
        free(order);
    }
}

/* --- errors ------------------------------------------------------------------------- */

static void
error__every_code__negative_errno_and_one_line(void **state)
{
    struct kvfs_error err;

    (void)state;
    for (int rc = -31100; rc < 140; rc++) {
        int code;

        if (rc == 0 || (rc > MDB_LAST_ERRCODE + 20 && rc < 0))
            continue;
        code = kvfs_lmdb_error(&err, rc, "/the/path", "doing it");
        assert_true(code < 0 && code > -4096);
        assert_int_equal(code, err.code);
        assert_int_not_equal(code, -EAGAIN); /* would mean a failed expectation */
        assert_null(strchr(err.msg, '\n'));
        assert_int_equal(strncmp(err.msg, "/the/path: doing it: ", 21), 0);
    }
    assert_int_equal(kvfs_lmdb_error(NULL, MDB_MAP_FULL, "p", "w"), -ENOSPC);
    assert_int_equal(kvfs_lmdb_error(NULL, ENOSPC, "p", "w"), -ENOSPC);
    assert_int_equal(kvfs_lmdb_error(NULL, EDQUOT, "p", "w"), -ENOSPC);
    assert_int_equal(kvfs_lmdb_error(NULL, MDB_READERS_FULL, "p", "w"), -EBUSY);
    assert_int_equal(kvfs_lmdb_error(NULL, MDB_TXN_FULL, "p", "w"), -E2BIG);
    assert_int_equal(kvfs_lmdb_error(NULL, MDB_CORRUPTED, "p", "w"), -EIO);
    assert_int_equal(kvfs_lmdb_error(NULL, EROFS, "p", "w"), -EROFS);
}

/* --- pages ----------------------------------------------------------------------------- */

/* Whatever the bytes are, nothing outside of the page is read: it lies between
 * two pages that cannot be. */
static void
page_check__random_bytes__stays_inside(void **state)
{
    struct world *w = *state;
    size_t psize = 4096;
    uint8_t *area = mmap(NULL, 3 * psize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *page = area + psize;

    assert_ptr_not_equal(area, MAP_FAILED);
    assert_int_equal(mprotect(page, psize, PROT_READ | PROT_WRITE), 0);
    for (unsigned round = 0; round < 20000; round++) {
        struct page_header h = {.pgno = 7, .flags = round % 2 ? PAGE_LEAF : PAGE_BRANCH};
        struct page_node node;

        for (size_t i = 0; i < psize; i += 8) {
            uint64_t x = world_random(w) & (round % 3 ? UINT64_MAX : 0x0fff0fff0fff0fffu);

            memcpy(page + i, &x, sizeof(x));
        }
        h.u.room.lower = (uint16_t)(16 + 2 * (world_random(w) % 200));
        h.u.room.upper = (uint16_t)(world_random(w) % (psize + 8));
        memcpy(page, &h, sizeof(h));
        (void)kvfs_page_check(page, psize, 7, 100, (enum page_order)(round % 3), NULL);
        for (size_t i = 0; i < 2200; i += 7)
            if (kvfs_page_node(page, psize, i, &node))
                assert_true(node.key >= page && node.key + node.key_len <= page + psize &&
                            (node.data == NULL || node.data + node.data_len <= page + psize));
    }
    assert_int_equal(munmap(area, 3 * psize), 0);
}

/* --- the guard ---------------------------------------------------------------------------- */

static int
guard_read(void *arg)
{
    return *(volatile const char *)arg;
}

static int
guard_assertion(void *arg)
{
    kvfs_lmdb_guard_assert(arg);
    return 0;
}

static int
guard_nested(void *arg)
{
    int inner = kvfs_lmdb_guard(guard_read, arg);

    return inner == KVFS_LMDB_FAULT ? 5 : 6;
}

static void
guard__faults__told_again_and_again(void **state)
{
    static char good[1] = {42};
    char assertion[] = "1 == 2";
    char *bad = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FILE *fp = tmpfile();
    char *beyond;

    (void)state;
    assert_int_equal(kvfs_lmdb_guard_init(), 0);
    assert_non_null(fp);
    beyond = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fileno(fp), 0);
    assert_ptr_not_equal(beyond, MAP_FAILED);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(kvfs_lmdb_guard(guard_read, good), 42);
        assert_int_equal(kvfs_lmdb_guard(guard_read, bad), KVFS_LMDB_FAULT);
        assert_non_null(strstr(kvfs_lmdb_guard_text(), "SIGSEGV"));
        assert_int_equal(kvfs_lmdb_guard(guard_read, beyond), KVFS_LMDB_FAULT);
        assert_non_null(strstr(kvfs_lmdb_guard_text(), "SIGBUS"));
        assert_int_equal(kvfs_lmdb_guard(guard_assertion, assertion), KVFS_LMDB_FAULT);
        assert_non_null(strstr(kvfs_lmdb_guard_text(), "1 == 2"));
        assert_int_equal(kvfs_lmdb_guard(guard_nested, bad), 5);
        assert_int_equal(kvfs_lmdb_guard(guard_read, good), 42);
    }
    (void)munmap(bad, 4096);
    (void)munmap(beyond, 4096);
    (void)fclose(fp);
}

static void
guard_exit_9(int sig)
{
    (void)sig;
    _exit(9);
}

static int
guard_raise(void *arg)
{
    (void)arg;
    return raise(SIGBUS);
}

/* How a child ends that runs FN after HANDLER was installed and then ours. */
static int
guard_child(void (*handler)(int), int (*fn)(void *), bool guarded)
{
    void *bad = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int status;
    int pid = world_fork();

    if (pid == 0) {
        (void)signal(SIGSEGV, handler);
        (void)signal(SIGBUS, handler);
        if (kvfs_lmdb_guard_init() == 0)
            _exit((guarded ? kvfs_lmdb_guard(fn, bad) : fn(bad)) & 0x3f);
        _exit(1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    (void)munmap(bad, 4096);
    return status;
}

static void
guard__fault_outside__goes_where_it_went_before(void **state)
{
    int status = guard_child(SIG_DFL, guard_read, false);

    (void)state;
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    status = guard_child(guard_exit_9, guard_read, false);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 9);
    /* Inside a guard, but sent by somebody. */
    status = guard_child(SIG_DFL, guard_raise, true);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    status = guard_child(guard_exit_9, guard_raise, true);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 9);
    status = guard_child(SIG_IGN, guard_raise, true);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    status = guard_child(SIG_DFL, guard_read, true);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == (KVFS_LMDB_FAULT & 0x3f));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_keep__kvfs_blocks__no_page_wasted),
        cmocka_unit_test(layout_keep__every_length__never_more_pages_than_whole),
        cmocka_unit_test_setup_teardown(order__random_ops__last_of_each_key_sorted, world_setup,
                                        world_teardown),
        cmocka_unit_test(error__every_code__negative_errno_and_one_line),
        cmocka_unit_test_setup_teardown(page_check__random_bytes__stays_inside, world_setup,
                                        world_teardown),
        /* Before anything else installs the handlers: children start afresh. */
        cmocka_unit_test(guard__fault_outside__goes_where_it_went_before),
        cmocka_unit_test(guard__faults__told_again_and_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
