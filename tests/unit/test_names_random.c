/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Threads, then processes, that change a small tree at random, all in each
 * other's way; some processes are killed.  In the end every record of names must
 * agree with every other (world_judge).
 *
 * Seeded: KVFS_SEED.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../aside.h"
#include "../chosen.h"
#include "names_world.h"

#define ACTORS 4

/* --- one actor --- */

struct actor {
    struct kvfs_volume *v;
    unsigned seed, changes; /* changes: steps that did something */
    struct kvfs_file *held;
    bool leases; /* others may hold leases: -EBUSY is an answer */
    int rc;
    char what[320];
};

static unsigned
pick(struct actor *a, unsigned below)
{
    return (unsigned)rand_r(&a->seed) % below;
}

/* A folder somewhere: from the root down at random. */
static uint64_t
pick_folder(struct actor *a)
{
    uint64_t dir = KVFS_ROOT_INO;
    struct kvfs_attr attr;
    char name[3] = "d";

    while (pick(a, 3) != 0) {
        name[1] = (char)('0' + pick(a, 4));
        if (kvfs_lookup(a->v, dir, name, &attr, NULL) != 0 || !S_ISDIR(attr.mode))
            break;
        dir = attr.ino;
    }
    return dir;
}

/* "d0".."d3" are mostly folders, "f0".."f3" mostly files. */
static void
pick_name(struct actor *a, char name[3])
{
    name[0] = pick(a, 2) == 0 ? 'd' : 'f';
    name[1] = (char)('0' + pick(a, 4));
    name[2] = '\0';
}

static int
act_create(struct actor *a, uint64_t dir, const char *name, struct kvfs_error *err)
{
    static const uint32_t others[] = {S_IFIFO, S_IFLNK};
    struct kvfs_create create = {.mode = name[0] == 'd' ? S_IFDIR | 0755 : S_IFREG | 0644,
                                 .target = "d0/f0"};

    if (pick(a, 6) == 0)
        create.mode = others[pick(a, 2)] | 0600;
    return kvfs_create(a->v, dir, name, &create, NULL, err);
}

static int
act_hold(struct actor *a, uint64_t ino, struct kvfs_error *err)
{
    int rc = 0;

    if (a->held != NULL) {
        kvfs_file_close(a->held);
        a->held = NULL;
    } else {
        rc = kvfs_file_open(a->v, ino, KVFS_OPEN_WRITE, &a->held, err);
    }
    return rc == -EBUSY ? 0 : rc; /* written elsewhere, or just being removed */
}

static int
count_one(void *arg, const struct kvfs_dirent *e)
{
    (void)e;
    return ++*(unsigned *)arg > 1000 ? -EIO : 0;
}

static int
act(struct actor *a, struct kvfs_error *err)
{
    uint64_t dir = pick_folder(a), to = pick_folder(a);
    struct kvfs_attr attr = {0};
    char name[3], other[3];
    unsigned count = 0;

    pick_name(a, name);
    pick_name(a, other);
    switch (pick(a, 12)) {
    case 0:
    case 1:
    case 2:
        return act_create(a, dir, name, err);
    case 3:
        return kvfs_unlink(a->v, dir, name, err);
    case 4:
        return kvfs_rmdir(a->v, dir, name, err);
    case 5:
    case 6:
    case 7:
        return kvfs_rename(a->v, dir, name, to, other, pick(a, 3), err); /* no flag, or one */
    case 8:
        if (kvfs_lookup(a->v, dir, name, &attr, err) != 0)
            return -ENOENT;
        return kvfs_link(a->v, attr.ino, to, other, err);
    case 9:
        if (kvfs_lookup(a->v, dir, name, &attr, err) != 0)
            return -ENOENT;
        return kvfs_xattr_set(a->v, attr.ino, "user.a", &attr, pick(a, sizeof(attr)), 0, err);
    case 10:
        if (kvfs_lookup(a->v, dir, name, &attr, err) != 0 || !S_ISREG(attr.mode))
            return -ENOENT;
        return act_hold(a, attr.ino, err);
    default:
        return kvfs_readdir(a->v, dir, 0, count_one, &count, err);
    }
}

/* What POSIX answers to those who come too late or want nonsense. */
static bool
answer_expected(const struct actor *a, int rc)
{
    switch (rc) {
    case 0:
    case -ENOENT:
    case -EEXIST:
    case -ENOTDIR:
    case -EISDIR:
    case -ENOTEMPTY:
    case -EINVAL:
    case -EPERM:
        return true;
    case -EBUSY:
        return a->leases;
    default:
        return false;
    }
}

/* PROGRESS: a byte is written there after each step; negative: nowhere. */
static void
actor_run(struct actor *a, unsigned steps, int progress)
{
    struct kvfs_error err = {0};

    for (unsigned i = 0; i < steps && a->rc == 0; i++) {
        int rc = act(a, &err);

        a->changes += rc == 0;
        if (!answer_expected(a, rc)) {
            a->rc = rc;
            (void)snprintf(a->what, sizeof(a->what), "step %u: %d %s", i, rc, err.msg);
        }
        if (progress >= 0 && write(progress, "", 1) != 1)
            a->rc = -EPIPE;
    }
    if (a->held != NULL)
        kvfs_file_close(a->held);
}

static void
assert_judged(struct world *w)
{
    char why[256] = "";

    if (world_judge(w->v, why, sizeof(why)) != 0)
        fail_msg("the names do not agree: %s", why);
}

/* --- threads --- */

static void *
thread_main(void *arg)
{
    actor_run(arg, 1500 * world_scale(), -1);
    return NULL;
}

static void
threads__at_random__leave_names_that_agree(void **state)
{
    struct actor actors[ACTORS] = {0};
    unsigned seed = world_seed();
    pthread_t threads[ACTORS];
    struct world world = {0};

    (void)state;
    world_begin(&world, world_engine_at(0));
    for (unsigned i = 0; i < ACTORS; i++) {
        actors[i] = (struct actor){.v = world.v, .seed = seed + i};
        assert_int_equal(pthread_create(&threads[i], NULL, thread_main, &actors[i]), 0);
    }
    for (unsigned i = 0; i < ACTORS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        if (actors[i].rc != 0)
            fail_msg("actor %u: %s", i, actors[i].what);
        assert_true(actors[i].changes > 100);
    }
    assert_judged(&world);
    world_end(&world);
}

/* --- processes --- */

static void
child_main(const struct world *world, unsigned seed, unsigned steps, int progress)
{
    struct actor a = {.seed = seed, .leases = true};
    struct kvfs_error err = {0};

    if (kvfs_volume_open(world->path, NULL, &a.v, &err) != 0) {
        (void)fprintf(stderr, "child: open: %s\n", err.msg);
        _exit(2);
    }
    actor_run(&a, steps, progress);
    if (a.rc != 0)
        (void)fprintf(stderr, "child with seed %u: %s\n", seed, a.what);
    if (kvfs_volume_close(a.v, &err) != 0) {
        (void)fprintf(stderr, "child: close: %s\n", err.msg);
        _exit(3);
    }
    _exit(a.rc != 0 || a.changes == 0 ? 1 : 0);
}

static pid_t
child_start(const struct world *world, unsigned seed, unsigned steps, int progress[2])
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close(progress[0]);
        child_main(world, seed, steps, progress[1]);
    }
    return pid;
}

static void
close_volume(struct world *world)
{
    assert_int_equal(kvfs_volume_close(world->v, NULL), 0); /* it must not cross fork */
    world->v = NULL;
}

static void
make_world(void *world)
{
    world_begin(world, chosen_engine());
    close_volume(world);
}

static void
judge_world(void *world)
{
    world_reopen(world);
    assert_judged(world);
    close_volume(world);
}

static void
end_world(void *world)
{
    world_reopen(world);
    world_end(world);
}

/* ROUNDS times: as many processes as the engine allows, up to ACTORS, at once, of
 * which KILLED are killed on the way. */
static void
processes_run(unsigned rounds, unsigned steps, unsigned killed)
{
    unsigned actors = chosen_has(KVFS_CAP_MULTIPROCESS) ? ACTORS : 1;
    unsigned seed = world_seed();
    struct world *world = aside_shared(sizeof(*world));

    aside(make_world, world);
    for (unsigned round = 0; round < rounds; round++) {
        pid_t pids[ACTORS];
        int progress[2], status;
        unsigned kill_after = killed > 0 ? (unsigned)rand_r(&seed) % (steps * 2) : 0;
        char byte;

        assert_int_equal(pipe(progress), 0);
        for (unsigned i = 0; i < actors; i++)
            pids[i] = child_start(world, (unsigned)rand_r(&seed), steps, progress);
        (void)close(progress[1]);
        for (unsigned n = 0; read(progress[0], &byte, 1) == 1; n++) {
            for (unsigned i = 0; n == kill_after && i < killed && i < actors; i++)
                (void)kill(pids[i], SIGKILL);
        }
        (void)close(progress[0]);
        for (unsigned i = 0; i < actors; i++) {
            assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
            if (i >= killed)
                assert_int_equal(status, 0);
        }
        aside(judge_world, world);
    }
    aside(end_world, world);
}

static void
processes__at_random__leave_names_that_agree(void **state)
{
    (void)state;
    if (!chosen_is_there())
        skip();
    processes_run(2 * world_scale(), 400, 0);
}

static void
processes__killed_at_random__leave_names_that_agree(void **state)
{
    (void)state;
    if (!chosen_is_there())
        skip();
    processes_run(8 * world_scale(), 60, 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes__at_random__leave_names_that_agree),
        cmocka_unit_test(processes__killed_at_random__leave_names_that_agree),
        /* last: it opens the volume in this process (../aside.h) */
        cmocka_unit_test(threads__at_random__leave_names_that_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
