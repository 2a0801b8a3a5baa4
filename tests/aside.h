/* SPDX-License-Identifier: BSD-3-Clause
 *
 * aside.h - parts of a test in processes of their own.
 *
 * sled's threads do not cross fork(): in a child of a process that has used it, it is
 * refused (engines/rust/README.md).  So a process that means to fork children which open a
 * store must not open one itself before: what it needs done, a child does.
 *
 * Include after <cmocka.h>.
 */
#ifndef KVFS_TESTS_ASIDE_H
#define KVFS_TESTS_ASIDE_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* BODY in a child; an assertion that fails there ends the child, and then fails here. */
static inline void
aside(void (*body)(void *arg), void *arg)
{
    int status = 0;
    pid_t pid;

    (void)fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)setenv("CMOCKA_TEST_ABORT", "1", 1); /* NOLINT(concurrency-mt-unsafe): one thread */
        body(arg);
        exit(0); /* NOLINT(concurrency-mt-unsafe): and a sanitizer looks for leaks */
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* Memory, all zeros, that children share; it stays until the process ends. */
static inline void *
aside_shared(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(p != MAP_FAILED);
    return p;
}

/* Each of COUNT cases in a process of its own; answers how many failed. */
static inline int
aside_run(const struct CMUnitTest *tests, size_t count)
{
    int failed = 0;

    for (size_t i = 0; i < count; i++) {
        int status = 0;
        pid_t pid;

        (void)fflush(NULL);
        pid = fork();
        if (pid == 0)
            /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
            exit(_cmocka_run_group_tests(tests[i].name, &tests[i], 1, NULL, NULL));
        failed += pid < 0 || waitpid(pid, &status, 0) != pid || status != 0;
    }
    return failed;
}

#endif /* KVFS_TESTS_ASIDE_H */
