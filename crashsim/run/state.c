/* SPDX-License-Identifier: BSD-3-Clause
 *
 * state.c - see state.h.
 *
 * 1. The judge of a state may hang, crash or be killed by what it opens: it is a process of its
 *    own with a time limit, and its end is a verdict.  A machine that is slow or short of something
 *    is none: a judge that takes too long is run again on the same state while no other runs and
 *    with more time, and one that the kernel killed, or that had no room left, has judged nothing.
 * 2. Engines are opened in judges only, so the processes that fork have none of their threads.
 */
#include "state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <xxhash.h>

#include "cmd/source.h"
#include "tool.h"

#define ALONE_MS       300000u /* at least, for a judge that is run again */
#define ALONE_FACTOR   5u
#define SLOTS_MAX      64
#define SEEN_MAX       ((size_t)1 << 20) /* power of two */

struct slot {
    pid_t pid; /* 0: free */
    int pidfd, fd;
    struct loop loop;
    char image[PLACE_NAME_MAX], mnt[PLACE_NAME_MAX], name[16];
    struct verdict *verdict; /* shared */
    struct state state;
    const struct bench_job *job;
};

struct shared {
    _Atomic uint64_t distinct;
    _Atomic uint64_t seen[SEEN_MAX];
    struct verdict verdicts[SLOTS_MAX];
};

struct bench {
    const struct place *place;
    struct shared *shared;
    unsigned count;
    struct slot slots[SLOTS_MAX];
};

/* --- names of states --- */

const char *
state_text(const struct state *s, char buf[STATE_TEXT])
{
    char index[24] = "";

    if (s->choice.indexed)
        (void)snprintf(index, sizeof(index), ":%" PRIu64, s->choice.index);
    (void)snprintf(buf, STATE_TEXT, "%zu,%s%s,%s,%" PRIu64, s->at,
                   crashsim_choice_survive_name(s->choice.survive), index,
                   crashsim_choice_tear_name(s->choice.tear), s->choice.seed);
    return buf;
}

bool
state_parse(const char *text, struct state *s)
{
    char copy[STATE_TEXT], *rest = copy, *at, *survive, *tear;
    size_t len = strcspn(text, ",");
    uint64_t n;

    *s = (struct state){0};
    if (len < 24 && (strncmp(text + len, ",keep:", 6) == 0 || strncmp(text + len, ",drop:", 6) == 0)) {
        (void)snprintf(copy, sizeof(copy), "%.*s", (int)len, text);
        s->pick = text + len + 1;
        if (!crashsim_parse_number(copy, &n))
            return false;
        s->at = (size_t)n;
        return true;
    }
    if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
        return false;
    copy[strcspn(copy, "\n")] = '\0';
    at = strsep(&rest, ",");
    survive = strsep(&rest, ",");
    tear = strsep(&rest, ",");
    if (rest == NULL || !crashsim_parse_number(at, &n) ||
        !crashsim_choice_parse_survive(survive, &s->choice) ||
        !crashsim_choice_parse_tear(tear, &s->choice.tear) ||
        !crashsim_parse_number(rest, &s->choice.seed))
        return false;
    s->at = (size_t)n;
    return true;
}

/* --- which bytes were seen --- */

/* Put KEY into the set; true: it is new. */
static bool
seen_add(struct shared *sh, uint64_t key)
{
    key |= 1; /* 0 is an empty place */
    for (size_t i = 0; i < SEEN_MAX; i++) {
        uint64_t old = 0;
        _Atomic uint64_t *place = &sh->seen[(key + i * 0x9e3779b1u) >> 1 & (SEEN_MAX - 1)];

        if (atomic_compare_exchange_strong(place, &old, key))
            return true;
        if (old == key)
            return false;
    }
    return true;
}

struct hash {
    uint64_t all, stored; /* all: but for what engines tell people; stored: nor what is for locks */
};

static void
hash_file(int dir, const char *name, struct hash *h)
{
    static const char *const aside[] = {"lock", "lock.mdb", "log.lock", "holder", "LOCK"};
    static uint8_t buf[1 << 18];
    uint64_t one = XXH3_64bits(name, strlen(name)), at = 0;
    bool stored = true;
    ssize_t n;
    int fd;

    if (strcmp(name, "LOG") == 0 || strncmp(name, "LOG.old", 7) == 0) /* of RocksDB */
        return;
    fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    while (fd >= 0 && (n = read(fd, buf, sizeof(buf))) > 0) {
        one = XXH3_64bits_withSeed(buf, (size_t)n, one);
        at += (uint64_t)n;
    }
    if (fd >= 0)
        (void)close(fd);
    one ^= at * 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < sizeof(aside) / sizeof(aside[0]); i++)
        stored = stored && strcmp(name, aside[i]) != 0;
    h->all += one; /* whatever order the folder tells them in */
    if (stored)
        h->stored += one;
}

static void
hash_folder(int dir, struct hash *h, int depth)
{
    DIR *d = fdopendir(dir);
    struct dirent *e;

    if (d == NULL) {
        (void)close(dir);
        return;
    }
    while ((e = readdir(d)) != NULL) { // NOLINT(concurrency-mt-unsafe): a stream of our own
        struct stat st;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISDIR(st.st_mode) && depth < 8) {
            int sub = openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

            if (sub >= 0)
                hash_folder(sub, h, depth + 1);
        } else if (S_ISREG(st.st_mode)) {
            hash_file(dir, e->d_name, h);
        }
    }
    (void)closedir(d);
}

/* --- in the processes of a state --- */

/* In a child: never back. */
static void
judge_child(const struct bench_job *job, const char *mnt, uint64_t t_ns, struct verdict *v)
{
    char volume[PLACE_NAME_MAX + 16];
    struct judge j = {.s = job->subject,
                      .j = job->journal,
                      .t_ns = t_ns < job->t_ns_max ? t_ns : job->t_ns_max,
                      .instant_ns = t_ns,
                      .note = job->note,
                      .volume = volume,
                      .verdict = v};

    (void)snprintf(volume, sizeof(volume), "%s/" STATE_VOLUME, mnt);
    tool_quiet(job->subject->place);
    judge_all(job->scenario, &j);
    _exit(0);
}

/* false: it took longer than so many milliseconds, and V says so. */
static bool
judge_within(const struct bench_job *job, const char *mnt, uint64_t t_ns, unsigned ms,
             struct verdict *v)
{
    pid_t self = getpid(), pid;
    bool ended;
    int status;

    v->status = VERDICT_NONE;
    v->text[0] = '\0';
    (void)fflush(NULL);
    pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == self)
            judge_child(job, mnt, t_ns, v);
        _exit(0);
    }
    if (pid < 0) {
        v->status = VERDICT_TROUBLE;
        (void)snprintf(v->text, sizeof(v->text), "fork: %s", strerrordesc_np(errno));
        return true;
    }
    ended = tool_wait(pid, ms, &status);
    if (ended && status == 0 && v->status != VERDICT_NONE)
        return true;
    if (ended && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
        v->status = VERDICT_TROUBLE;
        (void)snprintf(v->text, sizeof(v->text), "%s: the judge was killed (no memory?)", v->phase);
        return true;
    }
    if (ended && WIFEXITED(status) && WEXITSTATUS(status) != 0) { /* as the oracle does */
        v->status = VERDICT_TROUBLE;
        (void)snprintf(v->text, sizeof(v->text), "%s: the judge gave up (no memory?)", v->phase);
        return true;
    }
    v->status = VERDICT_VIOLATION;
    if (!ended)
        (void)snprintf(v->text, sizeof(v->text), "%s: hangs (%u ms)", v->phase, ms);
    else
        (void)snprintf(v->text, sizeof(v->text), "%s: the process died (status 0x%x)", v->phase,
                       (unsigned)status);
    return ended;
}

void
state_room(const struct place *p, struct verdict *v)
{
    if (v->status != VERDICT_VIOLATION || !place_is_full(p))
        return;
    v->status = VERDICT_TROUBLE;
    (void)snprintf(v->text, sizeof(v->text), "%s is full", p->path);
}

static unsigned
judge_alone_ms(const struct bench_job *job)
{
    return job->judge_ms > ALONE_MS / ALONE_FACTOR ? job->judge_ms * ALONE_FACTOR : ALONE_MS;
}

void
state_judge(const struct bench_job *job, const char *mnt, uint64_t t_ns, struct verdict *v)
{
    (void)judge_within(job, mnt, t_ns, judge_alone_ms(job), v);
    state_room(job->subject->place, v);
}

/* Names what had been acknowledged at T_NS.  Cuts go forward, so what is demanded of the same bytes
 * does not grow unless this does. */
static uint64_t
state_acked(const struct bench_job *job, uint64_t t_ns)
{
    const struct journal_recovery *first = &job->journal->recovery;
    uint64_t t = t_ns < job->t_ns_max ? t_ns : job->t_ns_max, acked = 0;

    if (job->scenario->durable != NULL)
        acked = job->scenario->durable(job->journal, t);
    for (uint32_t i = 0; job->scenario->durable == NULL && i < atomic_load(&job->journal->count); i++)
        acked += journal_acked_at(job->journal, i, t);
    return acked + ((uint64_t)(first->acked_ns != 0 && t_ns > first->acked_ns) << 32);
}

/* What is in the engine's files, so that the same bytes are not judged twice for the same
 * acknowledgements. */
static bool
state_is_new(struct shared *sh, const struct bench_job *job, const char *mnt, uint64_t t_ns,
             struct verdict *v)
{
    char volume[PLACE_NAME_MAX + 16];
    struct hash h = {0};
    int fd;

    (void)snprintf(volume, sizeof(volume), "%s/" STATE_VOLUME, mnt);
    fd = open(volume, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        hash_folder(fd, &h, 0);
    v->hash = h.stored;
    if (seen_add(sh, XXH3_64bits(&h.stored, sizeof(h.stored))))
        (void)atomic_fetch_add(&sh->distinct, 1);
    h.stored = state_acked(job, t_ns) + (uint64_t)job->journal->seed * 1000003u;
    return seen_add(sh, XXH3_64bits(&h, sizeof(h)));
}

static void
state_trouble(struct verdict *v, const struct kvfs_error *err)
{
    v->status = VERDICT_TROUBLE;
    (void)snprintf(v->text, sizeof(v->text), "%s", err->msg);
}

/* The state, in the folder of the slot; the disk was cut before. */
static int
state_up(struct bench *b, struct slot *s, struct replay *r, struct kvfs_error *err)
{
    struct verdict *v = s->verdict;
    uint64_t begin = journal_now(), now;
    int rc;

    if (s->job->source != NULL) {
        struct source *source = s->job->source;

        rc = source->ops->build(source, s->mnt); /* it was prepared before the fork */
        v->build_ns += journal_now() - begin;
        return rc < 0 ? kvfs_error_set(err, rc, "%s: %s", s->mnt, strerrordesc_np(-rc)) : 0;
    }
    rc = replay_write(r, s->fd, err);
    if (rc == 0)
        rc = loop_forget(&s->loop, err);
    now = journal_now();
    v->build_ns += now - begin;
    if (rc == 0)
        rc = disks_mount(b->place, &s->loop, s->mnt, &v->repaired, err);
    v->mount_ns += journal_now() - now;
    return rc;
}

static void
state_down(struct slot *s, struct replay *r)
{
    uint64_t begin = journal_now();

    if (r != NULL)
        disks_umount(s->mnt);
    s->verdict->umount_ns += journal_now() - begin;
}

static int
state_parse_pick(const char *text, size_t count, crashsim_pick_shape_fn shape, const void *opaque,
                 struct crashsim_pick *pick, struct kvfs_error *err)
{
    int r = crashsim_pick_parse(pick, text, count, shape, opaque);

    return r < 0 ? kvfs_error_set(err, r, "'%.200s': %s; %zu changes are open there", text,
                                  r == -ERANGE ? "no such change or piece" : "no state", count)
                 : 0;
}

/* The disk becomes what survives. */
static int
state_cut(struct replay *r, const struct state *s, struct kvfs_error *err)
{
    struct crashsim_pick pick;
    struct crashsim_cut cut;
    int rc;

    if (s->pick == NULL)
        return replay_cut(r, &s->choice, &cut, err);
    rc = state_parse_pick(s->pick, replay_open_count(r), replay_shape, r, &pick, err);
    if (rc == 0) {
        rc = replay_cut_picked(r, &pick, err);
        crashsim_pick_free(&pick);
    }
    return rc;
}

/* Again, while no other judges. */
static void
state_alone(struct bench *b, struct slot *s, struct replay *r, uint64_t t_ns, int lock)
{
    struct kvfs_error err = {0};

    s->verdict->late = true;
    while (flock(lock, LOCK_EX) < 0 && errno == EINTR)
        ;
    if (state_up(b, s, r, &err) < 0) {
        state_trouble(s->verdict, &err);
        return;
    }
    (void)judge_within(s->job, s->mnt, t_ns, judge_alone_ms(s->job), s->verdict);
    state_down(s, r);
}

static void
state_run(struct bench *b, struct slot *s, struct replay *r, uint64_t t_ns)
{
    struct verdict *v = s->verdict;
    struct kvfs_error err = {0};
    char path[PLACE_NAME_MAX];
    int lock = open(place_name(b->place, "judging", path), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (lock < 0 || flock(lock, LOCK_SH) < 0) {
        (void)kvfs_error_set(&err, -errno, "%s: %s", path, strerrordesc_np(errno));
        state_trouble(v, &err);
        return;
    }
    if ((r != NULL && state_cut(r, &s->state, &err) < 0) ||
        state_up(b, s, r, &err) < 0) {
        state_trouble(v, &err);
        return;
    }
    if (state_is_new(b->shared, s->job, s->mnt, t_ns, v) || s->job->all) {
        bool ended = judge_within(s->job, s->mnt, t_ns, s->job->judge_ms, v);

        state_down(s, r);
        /* Where room is short the others may have taken all of it for a moment. */
        if (!ended || (v->status == VERDICT_VIOLATION && place_is_tight(b->place)))
            state_alone(b, s, r, t_ns, lock);
        state_room(b->place, v);
    } else {
        v->duplicate = true;
        v->status = VERDICT_GOOD;
        state_down(s, r);
    }
}

/* --- the slots --- */

int
bench_new(const struct place *p, unsigned slots, uint64_t disk_bytes, struct bench **bench,
          struct kvfs_error *err)
{
    struct bench *b = calloc(1, sizeof(*b));
    char name[16];
    int r = 0;

    if (b == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    b->place = p;
    b->shared = mmap(NULL, sizeof(*b->shared), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (b->shared == MAP_FAILED) {
        free(b);
        return kvfs_error_set(err, -ENOMEM, "no memory");
    }
    for (unsigned i = 0; r == 0 && i < slots && i < SLOTS_MAX; i++) {
        struct slot *s = &b->slots[i];

        s->loop.fd = s->fd = s->pidfd = -1;
        b->count = i + 1;
        s->verdict = &b->shared->verdicts[i];
        (void)snprintf(s->name, sizeof(s->name), "slot%u", i);
        (void)snprintf(name, sizeof(name), "slot%u.img", i);
        (void)place_name(p, name, s->image);
        (void)snprintf(name, sizeof(name), "slot%u.mnt", i);
        (void)place_name(p, name, s->mnt);
        if (disk_bytes == 0)
            continue;
        s->fd = open(s->image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (s->fd < 0 || ftruncate(s->fd, (off_t)disk_bytes) < 0 || (mkdir(s->mnt, 0700) < 0 && errno != EEXIST))
            r = kvfs_error_set(err, -errno, "%s: %s", s->image, strerrordesc_np(errno));
        else
            r = loop_attach(s->image, &s->loop, err);
    }
    if (r < 0)
        bench_free(b);
    else
        *bench = b;
    return r;
}

void
bench_free(struct bench *b)
{
    if (b == NULL)
        return;
    bench_wait(b);
    for (unsigned i = 0; i < b->count; i++) {
        loop_detach(&b->slots[i].loop);
        if (b->slots[i].fd >= 0)
            (void)close(b->slots[i].fd);
        (void)unlink(b->slots[i].image);
        (void)rmdir(b->slots[i].mnt); /* that of a trace goes with the run */
    }
    (void)munmap(b->shared, sizeof(*b->shared));
    free(b);
}

void
bench_note(struct bench *b, const struct bench_job *job, const char *mnt, uint64_t t_ns,
           struct verdict *v)
{
    (void)state_is_new(b->shared, job, mnt, t_ns, v);
}

uint64_t
bench_distinct(const struct bench *b)
{
    return atomic_load(&b->shared->distinct);
}

static void
bench_collect(struct slot *s)
{
    int status = tool_end(s->pid, 0);

    (void)close(s->pidfd);
    s->pid = 0;
    if (status != 0 && s->verdict->status != VERDICT_VIOLATION) {
        s->verdict->status = VERDICT_TROUBLE;
        (void)snprintf(s->verdict->text, sizeof(s->verdict->text),
                       "the process of a state ended with status 0x%x", (unsigned)status);
    }
    s->job->judged(s->job->judged_arg, &s->state, s->verdict);
}

/* Wait until one of the running states is done; false: none runs. */
static bool
bench_next(struct bench *b)
{
    struct pollfd fds[SLOTS_MAX];
    unsigned n = 0;
    int r;

    for (unsigned i = 0; i < b->count; i++) {
        fds[i] =
            (struct pollfd){.fd = b->slots[i].pid > 0 ? b->slots[i].pidfd : -1, .events = POLLIN};
        n += b->slots[i].pid > 0;
    }
    if (n == 0)
        return false;
    do
        r = poll(fds, b->count, -1);
    while (r < 0 && errno == EINTR);
    for (unsigned i = 0; i < b->count; i++) {
        if (b->slots[i].pid > 0 && (fds[i].revents & POLLIN) != 0)
            bench_collect(&b->slots[i]);
    }
    return true;
}

void
bench_wait(struct bench *b)
{
    while (bench_next(b))
        ;
}

/* Take the state of a trace up, here, so that all have the hashes of what did not change; if its
 * bytes were seen behind the same acknowledgements that was all. */
static int
bench_prepare(struct bench *b, const struct bench_job *job, const struct state *st, uint64_t t_ns,
              struct verdict *v, bool *is_new, struct kvfs_error *err)
{
    struct source *source = job->source;
    uint64_t begin = journal_now(), key[3] = {0, state_acked(job, t_ns), job->journal->seed};
    struct crashsim_pick pick = {0};
    int r = st->pick == NULL ? source_choose(source, &st->choice, &pick)
                             : state_parse_pick(st->pick, source->ops->open_count(source),
                                                source->ops->shape, source, &pick, err);

    if (r < 0 && st->pick != NULL)
        return r;
    if (r == 0)
        r = source->ops->prepare(source, &pick, &key[0]);
    crashsim_pick_free(&pick);
    if (r < 0)
        return kvfs_error_set(err, r, "a state of the trace: %s", strerrordesc_np(-r));
    v->build_ns = journal_now() - begin;
    *is_new = job->all || seen_add(b->shared, XXH3_64bits(key, sizeof(key)));
    if (!*is_new) {
        v->duplicate = true;
        v->status = VERDICT_GOOD;
        job->judged(job->judged_arg, st, v);
    }
    return 0;
}

int
bench_begin(struct bench *b, const struct bench_job *job, struct replay *r, const struct state *st,
            uint64_t t_ns, struct kvfs_error *err)
{
    struct verdict first = {0};
    struct slot *s = NULL;
    pid_t self = getpid();

    if (job->source != NULL) {
        bool is_new = true;
        int rc = bench_prepare(b, job, st, t_ns, &first, &is_new, err);

        if (rc < 0 || !is_new)
            return rc;
    }
    while (s == NULL) {
        for (unsigned i = 0; i < b->count && s == NULL; i++) {
            if (b->slots[i].pid == 0)
                s = &b->slots[i];
        }
        if (s == NULL)
            (void)bench_next(b);
    }
    s->state = *st;
    s->job = job;
    *s->verdict = first;
    (void)fflush(NULL);
    s->pid = fork();
    if (s->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() == self)
            state_run(b, s, r, t_ns);
        _exit(0);
    }
    if (s->pid < 0) {
        s->pid = 0;
        return kvfs_error_set(err, -errno, "fork: %s", strerrordesc_np(errno));
    }
    s->pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
    return 0;
}
