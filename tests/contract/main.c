/* SPDX-License-Identifier: BSD-3-Clause
 *
 * main.c - the runner of the engine contract's suite.
 *
 *   test_contract [--engine=NAME|PATH] [--params=TEXT] [--case=PATTERN]
 *                 [--seed=NUMBER] [--list]
 *
 * Without --engine every built-in engine is tested.  The seed comes from --seed,
 * KVFS_SEED or chance, and is printed.  Each case runs in a child process.
 */
#include <fnmatch.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "contract.h"

#define CASES_MAX 128

static const struct contract_case *const main_tables[] = {
    contract_cases_basic,   contract_cases_values, contract_cases_random, contract_cases_threads,
    contract_cases_process, contract_cases_crash,  contract_cases_space,  contract_cases_upkeep,
};

static struct contract main_contract; /* of the engine at hand; children fill in the rest */
static const char *main_pattern = "*";

static int
main_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

/* In the child. */
static void
main_run_child(const struct contract_case *test, const char *folder)
{
    static const int signals[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGSYS};
    struct contract *c = &main_contract;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a: a case's numbers do not hang on its place */

    /* cmocka's handlers would jump back into its loop, in the wrong process. */
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        (void)signal(signals[i], SIG_DFL);
    for (const char *p = test->name; *p != '\0'; p++)
        hash = (hash ^ (uint8_t)*p) * 0x100000001b3u;
    c->case_name = test->name;
    c->folder = folder;
    c->random = c->seed ^ hash;
    (void)snprintf(c->store, sizeof(c->store), "%s/store", folder);
    for (int i = 0; i < 2; i++)
        c->builders[i] = kvfs_batch_new();
    c->builder = c->builders[0];
    CHECK(c, c->builders[0] != NULL && c->builders[1] != NULL, "no memory");
    CHECK(c, mkdir(c->store, 0777) == 0, "cannot make %s", c->store);
    test->run(c);
    CHECK(c, c->db == NULL, "the case left its store open");
    kvfs_batch_free(c->builders[0]);
    kvfs_batch_free(c->builders[1]);
    exit(0); // NOLINT(concurrency-mt-unsafe): not _exit, as a leak sanitizer looks now
}

static void
main_run(void **state)
{
    const struct contract_case *test = *state;
    const char *tmp = getenv("TMPDIR"); // NOLINT(concurrency-mt-unsafe): there is one thread
    char folder[200];
    int status = -1;
    pid_t pid;

    (void)snprintf(folder, sizeof(folder), "%s/kvfs-contract-XXXXXX", tmp != NULL ? tmp : "/tmp");
    assert_non_null(mkdtemp(folder));
    pid = contract_fork(&main_contract);
    if (pid == 0)
        main_run_child(test, folder);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    // NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread
    (void)nftw(folder, main_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (WIFSIGNALED(status))
        fail_msg("KVFS_SEED=%llu: the case was ended by signal %d",
                 (unsigned long long)main_contract.seed, WTERMSIG(status));
    if (WIFEXITED(status) && WEXITSTATUS(status) == CONTRACT_SKIPPED)
        skip();
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("KVFS_SEED=%llu: the case failed, wait status 0x%x",
                 (unsigned long long)main_contract.seed, (unsigned)status);
}

/* The number of cases that failed. */
static int
main_test_engine(const struct kvfs_engine *engine)
{
    struct CMUnitTest tests[CASES_MAX];
    size_t count = 0;

    main_contract.engine = engine;
    main_contract.case_name = "runner";
    for (size_t t = 0; t < sizeof(main_tables) / sizeof(main_tables[0]); t++) {
        for (const struct contract_case *test = main_tables[t]; test->name != NULL; test++) {
            if (fnmatch(main_pattern, test->name, 0) != 0)
                continue;
            if ((engine->caps & test->caps) != test->caps) {
                (void)printf("engine %s: %s does not apply\n", engine->name, test->name);
                continue;
            }
            assert_true(count < CASES_MAX);
            /* cmocka's state has no const; nobody writes it. */
            tests[count++] = (struct CMUnitTest){
                .name = test->name,
                .test_func = main_run,
                .initial_state = (void *)(uintptr_t)test,
            };
        }
    }
    if (count == 0) {
        (void)fprintf(stderr, "no case matches %s\n", main_pattern);
        return 1;
    }
    (void)printf("engine %s (%s), KVFS_SEED=%llu\n", engine->name, engine->version(engine),
                 (unsigned long long)main_contract.seed);
    return _cmocka_run_group_tests(engine->name, tests, count, NULL, NULL);
}

static uint64_t
main_seed(const char *text)
{
    uint64_t seed = 0;

    if (text != NULL)
        return strtoull(text, NULL, 10);
    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        seed = (uint64_t)getpid();
    return seed >> 32; /* short enough to type */
}

static void
main_list(void)
{
    for (size_t t = 0; t < sizeof(main_tables) / sizeof(main_tables[0]); t++)
        for (const struct contract_case *test = main_tables[t]; test->name != NULL; test++)
            (void)printf("%s\n", test->name);
}

int
main(int argc, char **argv)
{
    const char *name = NULL, *seed = getenv("KVFS_SEED"); // NOLINT(concurrency-mt-unsafe)
    const struct kvfs_engine *engine;
    struct kvfs_error err;
    int failed = 0;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--engine=", 9) == 0) {
            name = argv[i] + 9;
        } else if (strncmp(argv[i], "--params=", 9) == 0) {
            main_contract.params = argv[i] + 9;
        } else if (strncmp(argv[i], "--case=", 7) == 0) {
            main_pattern = argv[i] + 7;
        } else if (strncmp(argv[i], "--seed=", 7) == 0) {
            seed = argv[i] + 7;
        } else if (strcmp(argv[i], "--list") == 0) {
            main_list();
            return 0;
        } else {
            (void)fprintf(stderr, "%s: what is '%s'?\n", argv[0], argv[i]);
            return 2;
        }
    }
    main_contract.seed = main_seed(seed);
    if (name != NULL) {
        if (kvfs_engine_find(name, &engine, &err) != 0) {
            (void)fprintf(stderr, "%s\n", err.msg);
            return 2;
        }
        return main_test_engine(engine) != 0;
    }
    for (size_t i = 0; (engine = kvfs_engine_at(i)) != NULL; i++)
        if (engine->caps != 0) /* else a wrapper without what it stands on */
            failed += main_test_engine(engine);
    return failed != 0;
}
