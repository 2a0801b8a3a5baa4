/* SPDX-License-Identifier: BSD-3-Clause
 *
 * campaign.c - see campaign.h.
 *
 * Which instants and which choices are tried follows from the seed; of the workload itself only
 * what it does, not when (docs/CRASHSIM.md): so a finding is kept with its recording.
 */
#include "campaign.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "again.h"
#include "random.h"
#include "round.h"
#include "serve.h"
#include "tool.h"
#include "writeback.h"

#define TROUBLES_MAX  8 /* states that could not be judged, until it gives up */

const char *const campaign_kind_names[CAMPAIGN_KINDS] = {
    "drop-all", "keep-all", "prefix", "leave-one-out", "only-one", "random",
};

/* --- the volume as it is before --- */

static void
template_child(struct campaign *c, const char *mnt, int out)
{
    struct kvfs_format_options options = {.engine = c->subject.engine};
    struct kvfs_volume_options open = {.engine_params = c->subject.engine_params};
    char volume[PLACE_NAME_MAX + 16];
    struct kvfs_error err = {0};
    struct kvfs_volume *v = NULL;
    int r;

    (void)snprintf(volume, sizeof(volume), "%s/" STATE_VOLUME, mnt);
    r = kvfs_format(volume, &options, &err);
    if (r == 0)
        r = kvfs_volume_open(volume, &open, &v, &err);
    if (r == 0) {
        if (c->scenario->prepare != NULL)
            r = c->scenario->prepare(v, &err);
        else if (c->scenario->prepare_in != NULL)
            r = c->scenario->prepare_in(v, c->place, &err);
        (void)kvfs_volume_close(v, NULL);
    }
    if (r < 0)
        (void)!write(out, err.msg, strlen(err.msg));
    _exit(-r); /* the errno */
}

int
round_template(struct campaign *c, const char *mnt, struct kvfs_error *err)
{
    char text[256] = "";
    int pipes[2], status;
    pid_t pid;

    if (pipe2(pipes, O_CLOEXEC) < 0)
        return kvfs_error_set(err, -errno, "pipe: %s", strerrordesc_np(errno));
    (void)fflush(NULL);
    pid = fork();
    if (pid == 0)
        template_child(c, mnt, pipes[1]);
    (void)close(pipes[1]);
    (void)tool_wait(pid, WORK_MS, &status);
    if (status != 0)
        (void)!read(pipes[0], text, sizeof(text) - 1);
    (void)close(pipes[0]);
    return status == 0
               ? 0
               : kvfs_error_set(err, WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO,
                                "%s: no volume: %s", c->subject.engine, text);
}

/* A file system with a new volume, at PATH. */
static int
template_make(struct campaign *c, const char *path, struct kvfs_error *err)
{
    char mnt[PLACE_NAME_MAX];
    struct loop loop = {.fd = -1};
    int r;

    r = disks_make(c->place, path, c->disk_bytes, err);
    if (r == 0)
        r = loop_attach(path, &loop, err);
    if (r < 0)
        return r;
    (void)place_name(c->place, "template.mnt", mnt);
    if (mkdir(mnt, 0700) < 0 && errno != EEXIST)
        r = kvfs_error_set(err, -errno, "%s: %s", mnt, strerrordesc_np(errno));
    if (r == 0)
        r = disks_mount(c->place, &loop, mnt, NULL, err);
    if (r == 0) {
        r = round_template(c, mnt, err);
        disks_umount(mnt);
    }
    loop_detach(&loop);
    return r;
}

/* --- what was judged --- */

static enum campaign_kind
campaign_kind(const struct crashsim_choice *c)
{
    switch (c->survive) {
    case CRASHSIM_DROP_ALL:
        return CAMPAIGN_DROP;
    case CRASHSIM_PREFIX:
        return c->indexed ? CAMPAIGN_KEEP : CAMPAIGN_PREFIX;
    case CRASHSIM_LEAVE_ONE_OUT:
        return CAMPAIGN_LEAVE;
    case CRASHSIM_ONLY_ONE:
        return CAMPAIGN_ONLY;
    default:
        return CAMPAIGN_RANDOM;
    }
}

static void
round_keep(struct round *rd, const struct state *s, const char *why)
{
    struct campaign_stats *stats = rd->stats;
    struct finding f = {.trace = rd->c->trace,
                        .base = rd->base,
                        .record = rd->record,
                        .journal = rd->journal,
                        .t_ns_max = rd->t_ns_max,
                        .promise = rd->c->promise,
                        .why = why};
    struct kvfs_error err = {0};
    char dir[FINDING_DIR_MAX], text[STATE_TEXT];

    f.state = state_text(s, text);
    if (stats->first[0] == '\0')
        (void)snprintf(stats->first, sizeof(stats->first), "%s", why);
    if (stats->violations > FINDINGS_KEPT || stats->kept == FINDINGS_KEPT || rd->c->plain || rd->c->findings == NULL)
        return;
    (void)snprintf(dir, sizeof(dir), "%s", rd->c->findings);
    if (finding_save(&f, dir, sizeof(dir), &err) < 0)
        (void)fprintf(stderr, "crashsim: the finding is not kept: %s\n", err.msg);
    else {
        if (stats->kept == 0)
            (void)snprintf(rd->finding, sizeof(rd->finding), "%s", dir);
        finding_command(&f, dir, stats->commands[stats->kept], FINDING_COMMAND_MAX);
        stats->kept++;
    }
}

void
round_judged(void *arg, const struct state *s, const struct verdict *v)
{
    struct round *rd = arg;
    struct campaign_stats *stats = rd->stats;

    if (v->status != VERDICT_GOOD && v->status != VERDICT_VIOLATION) {
        if (stats->troubles++ == 0)
            (void)snprintf(stats->trouble, sizeof(stats->trouble), "%s", v->text);
        return;
    }
    stats->states++;
    stats->late += v->late;
    stats->duplicates += v->duplicate;
    rd->stale = v->duplicate ? rd->stale + 1 : 0;
    stats->undecided += v->undecided;
    stats->repaired += v->repaired;
    stats->kinds[campaign_kind(&s->choice)]++;
    stats->build_ns += v->build_ns;
    stats->mount_ns += v->mount_ns;
    stats->open_ns += v->open_ns;
    stats->judge_ns += v->judge_ns;
    stats->check_ns += v->check_ns;
    stats->umount_ns += v->umount_ns;
    if (v->status == VERDICT_VIOLATION) {
        stats->violations++;
        round_keep(rd, s, v->text);
    }
    stats->distinct = bench_distinct(rd->bench);
    if (rd->c->tell != NULL)
        rd->c->tell(rd->c, stats);
}

bool
round_enough(const struct round *rd)
{
    const struct campaign *c = rd->c;

    return rd->stats->states >= c->states_max || rd->stats->troubles >= TROUBLES_MAX || (c->end_ns != 0 && journal_now() > c->end_ns) ||
           (c->stop != NULL && c->stop()) || (c->first && rd->stats->violations > 0);
}

/* --- states of a recording --- */

/* Of twenty states: drop all and keep all once each, prefixes 4, one left out 4, one only 3,
 * random 7. */
void
round_choice(uint64_t r, size_t open, struct crashsim_choice *c)
{
    static const enum crashsim_tear tears[] = {CRASHSIM_TEAR_NONE, CRASHSIM_TEAR_512,
                                               CRASHSIM_TEAR_4096};
    unsigned dice = (unsigned)(r % 20);

    *c = (struct crashsim_choice){.tear = tears[r / 20 % 3], .seed = r >> 8};
    c->survive = dice < 1    ? CRASHSIM_DROP_ALL
                 : dice < 6  ? CRASHSIM_PREFIX
                 : dice < 10 ? CRASHSIM_LEAVE_ONE_OUT
                 : dice < 13 ? CRASHSIM_ONLY_ONE
                             : CRASHSIM_RANDOM;
    if (dice == 1) {
        c->indexed = true;
        c->index = open;
    }
}

/* Names what C keeps of OPEN changes. */
static uint64_t
round_kept(const struct crashsim_choice *c, size_t open)
{
    uint64_t hash = open;
    bool torn = false;

    for (size_t i = 0; i < open; i++) {
        enum crashsim_fate fate = crashsim_choice_fate(c, i, open);

        torn = torn || fate == CRASHSIM_TORN;
        hash = crashsim_hash2(hash, fate);
    }
    return torn ? crashsim_hash2(hash, c->seed + c->tear) : hash;
}

bool
round_next(struct round_seen *seen, size_t open, struct crashsim_choice *c)
{
    while (seen->count < STATES_A_CUT && seen->tried < UINT64_C(4) * STATES_A_CUT) {
        bool known = false;
        uint64_t kept;

        round_choice(crashsim_hash2(seen->seed, seen->tried++), open, c);
        kept = round_kept(c, open);
        for (unsigned i = 0; i < seen->count; i++)
            known = known || seen->kept[i] == kept;
        if (!known) {
            seen->kept[seen->count++] = kept;
            return true;
        }
    }
    return false;
}

/* The first event that the workload can have caused. */
static size_t
round_first(const struct trace *t, const struct journal *j)
{
    size_t i = 0;

    if (atomic_load(&j->count) == 0) /* cut while the volume was being opened */
        return 0;
    while (i < t->count && t->events[i].t < j->ops[0].issued_ns && i < t->count / 2)
        i++;
    return i;
}

/* A cut at T_NS fell while the volume recovered: into what? */
void
round_count_second(struct round *rd, uint64_t t_ns)
{
    const struct journal_recovery *y = &rd->journal->recovery;
    int phase = -1;

    for (int i = 0; i < RECOVERY_PHASES; i++) {
        if (y->begin_ns[i] != 0 && t_ns >= y->begin_ns[i])
            phase = i;
    }
    if (phase < 0)
        return;
    rd->stats->second[phase]++;
    if (t_ns >= y->begin_ns[RECOVERY_ENGINE]) {
        rd->stats->second_orphans += t_ns <= y->orphans_ns;
        rd->stats->second_folds += t_ns <= y->folded_ns;
    }
}

static int
round_states_at(struct round *rd, const struct bench_job *job, struct replay *r, size_t at,
                uint64_t t_ns, struct kvfs_error *err)
{
    struct round_seen seen = {.seed = crashsim_hash2(rd->seed, at)};
    struct state s = {.at = at};
    int rc = 0;

    rd->stats->cuts++;
    round_count_second(rd, t_ns);
    rd->stale = 0;
    while (rc == 0 && rd->stale < (rd->sparse ? 1 : STALE_MAX) && !round_enough(rd) && round_next(&seen, replay_open_count(r), &s.choice))
        rc = bench_begin(rd->bench, job, r, &s, t_ns, err);
    return rc;
}

/* Of a recovery most changes are made when it is over: half of the cuts fall in front of that. */
static size_t
round_recovered(const struct round *rd, const struct trace *t)
{
    const struct journal_recovery *y = &rd->journal->recovery;
    uint64_t t_ns = y->begin_ns[RECOVERY_WRITE];
    size_t i = 0;

    t_ns = y->orphans_ns > t_ns ? y->orphans_ns : t_ns;
    t_ns = y->folded_ns > t_ns ? y->folded_ns : t_ns;
    while (i < t->count && t->events[i].t < t_ns)
        i++;
    return i == 0 ? t->count : i;
}

/* An engine that only appends has one state, or two, from one commit of the file system to the
 * next, whatever else survives: the more cuts it needs. */
static bool
round_is_sparse(const struct campaign_stats *s)
{
    return s->cuts >= CUTS_A_ROUND / 2 && s->distinct < 2 * s->cuts;
}

static int
round_states(struct round *rd, const struct trace *t, size_t first, struct kvfs_error *err)
{
    struct bench_job job = {.scenario = rd->c->scenario,
                            .subject = &rd->c->subject,
                            .journal = rd->journal,
                            .t_ns_max = rd->t_ns_max,
                            .judge_ms = rd->c->judge_ms,
                            .judged = round_judged,
                            .judged_arg = rd};
    size_t cuts[CUTS_MAX], before = rd->c->twice ? round_recovered(rd, t) : t->count, count;
    uint64_t seed = crashsim_hash2(rd->seed, 0x63757473), begin = journal_now();
    struct replay *r = NULL;
    int rc = replay_new(t, rd->base, &r, err);

    rd->sparse = round_is_sparse(rd->stats);
    count = rd->sparse ? cuts_at_flushes(t, first, seed, cuts)
                       : cuts_at_random(t, first, before, seed, cuts);
    for (size_t i = 0; rc == 0 && i < count && !round_enough(rd); i++) {
        if (i > 0 && cuts[i] == cuts[i - 1])
            continue;
        rc = replay_go(r, cuts[i], err);
        if (rc == 0)
            rc = round_states_at(rd, &job, r, cuts[i], trace_time(t, cuts[i]), err);
    }
    bench_wait(rd->bench);
    replay_free(r);
    rd->stats->states_ns += journal_now() - begin;
    return rc;
}

/* --- the real disk --- */

/* An operation that fails with the power on, or a worker that crashes, is a violation as well. */
int
round_failed(struct round *rd, int status, struct kvfs_error *err)
{
    struct campaign_stats *stats = rd->stats;

    if (rd->journal->ended_error == -ENOSPC || place_is_full(rd->c->place))
        return kvfs_error_set(err, -ENOSPC, "no room in %s for the workload: %s", rd->c->place->path,
                              rd->journal->ended);
    if (stats->violations++ == 0)
        (void)snprintf(stats->first, sizeof(stats->first),
                       "the workload failed before the cut (status 0x%x): %s", (unsigned)status,
                       rd->journal->ended);
    return 0;
}

static int
round_work(struct round *rd, struct kvfs_error *err)
{
    char volume[PLACE_NAME_MAX + 16], command[64];
    uint64_t r = crashsim_hash2(rd->seed, 0x776f726b);
    pid_t self = getpid(), pid, writeback;
    int status, rc;

    (void)snprintf(command, sizeof(command), "cut seed=%" PRIu64 " within=%" PRIu64, r >> 20,
                   r % 5 == 0 && rd->stats->rounds > 1 ? 20 + (r >> 8) % 400
                                                       : 1000 + (r >> 8) % 4000);
    rc = rd->c->plain ? 0 : stack_tell(&rd->stack, command, NULL, 0, err);
    if (rc < 0)
        return rc;
    (void)snprintf(volume, sizeof(volume), "%s/" STATE_VOLUME, rd->stack.mnt);
    (void)fflush(NULL);
    pid = fork();
    if (pid == 0) {
        struct kvfs_error failed = {0};

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        tool_quiet(rd->c->place);
        if (getppid() == self)
            rc = rd->c->scenario->work(&rd->c->subject, volume, rd->journal, &failed);
        journal_end(rd->journal, rc, &failed);
        _exit(0); /* never in order */
    }
    if (pid < 0)
        return kvfs_error_set(err, -errno, "fork: %s", strerrordesc_np(errno));
    writeback = r % 4 != 0 ? writeback_start(volume, r) : 0;
    (void)tool_wait(pid, WORK_MS, &status);
    (void)tool_end(writeback, SIGKILL);
    (void)snprintf(command, sizeof(command), "cut seed=%" PRIu64, r >> 20);
    /* Refused if it has fallen already; then the worker may have ended any way. */
    rc = rd->c->plain ? 0 : stack_tell(&rd->stack, command, NULL, 0, NULL);
    stack_detach(&rd->stack);
    return rc == 0 && (status != 0 || rd->journal->ended[0] != '\0') ? round_failed(rd, status, err) : 0;
}

/* Power on, and judge what the disk itself kept. */
static int
round_recover(struct round *rd, const struct trace *t, struct kvfs_error *err)
{
    struct bench_job job = {.scenario = rd->c->scenario,
                            .subject = &rd->c->subject,
                            .journal = rd->journal,
                            .judge_ms = rd->c->judge_ms,
                            .note = &rd->journal->recovery,
                            .t_ns_max = t->cut_ns};
    struct verdict *v = rd->live;
    struct state s = {.at = t->count - 1, .choice = t->cut};
    int rc = stack_tell(&rd->stack, "power-on", NULL, 0, err);

    rd->journal->recovery.begin_ns[RECOVERY_MOUNT] = journal_now();
    if (rc == 0)
        rc = stack_attach(&rd->stack, err);
    if (rc == 0)
        rc = stack_mount(&rd->stack, err);
    if (rc < 0)
        return rc;
    *v = (struct verdict){0};
    bench_note(rd->bench, &job, rd->stack.mnt, t->cut_ns, v);
    state_judge(&job, rd->stack.mnt, t->cut_ns, v);
    rd->stats->live += v->status == VERDICT_GOOD || v->status == VERDICT_VIOLATION;
    rd->stats->cuts++;
    round_judged(rd, &s, v);
    stack_detach(&rd->stack);
    return 0;
}

/* The recording must say of the disk what is true: its state at the cut is the disk's. */
static int
round_compare_disk(struct round *rd, const struct trace *t, struct kvfs_error *err)
{
    struct replay *r = NULL;
    struct crashsim_cut cut;
    int rc = replay_new(t, rd->base, &r, err);

    if (rc == 0)
        rc = replay_go(r, t->count, err);
    if (rc == 0)
        rc = replay_cut(r, &t->cut, &cut, err);
    if (rc == 0)
        rc = replay_compare(r, rd->stack.file, err);
    replay_free(r);
    return rc;
}

void
round_count(struct round *rd, uint64_t events, uint64_t t_ns)
{
    const struct journal_seen *seen = &rd->journal->seen;
    uint32_t n = journal_issued_at(rd->journal, UINT64_MAX);

    rd->stats->operations += n;
    rd->stats->seen.commits += seen->commits;
    rd->stats->seen.commits_durable += seen->commits_durable;
    rd->stats->seen.full += seen->full;
    rd->stats->seen.pressure += seen->pressure;
    rd->stats->seen.deleting += seen->deleting;
    rd->stats->seen.holes += seen->holes;
    rd->stats->seen.growth += seen->growth;
    rd->stats->seen.folds += seen->folds;
    rd->stats->seen.wraps += seen->wraps;
    rd->stats->events += events;
    for (uint32_t i = 0; i < n; i++)
        rd->stats->acknowledged += journal_acked_at(rd->journal, i, t_ns);
}

/* Without a cut everything that was acknowledged before the end counts. */
static int
round_plain(struct round *rd, struct kvfs_error *err)
{
    struct bench_job job = {.scenario = rd->c->scenario,
                            .subject = &rd->c->subject,
                            .journal = rd->journal,
                            .judge_ms = rd->c->judge_ms,
                            .t_ns_max = journal_now()};
    struct state s = {0};
    int rc = stack_attach(&rd->stack, err);

    if (rc == 0)
        rc = stack_mount(&rd->stack, err);
    if (rc < 0)
        return rc;
    *rd->live = (struct verdict){0};
    bench_note(rd->bench, &job, rd->stack.mnt, job.t_ns_max, rd->live);
    state_judge(&job, rd->stack.mnt, job.t_ns_max, rd->live);
    rd->stats->live++;
    round_judged(rd, &s, rd->live);
    stack_detach(&rd->stack);
    return 0;
}

/* The workload, the cut and the recovery; *T is the recording of the first. */
static int
round_live(struct round *rd, struct trace *t, struct kvfs_error *err)
{
    char again[PLACE_NAME_MAX];
    int rc = stack_attach(&rd->stack, err);

    if (rc == 0)
        rc = stack_mount(&rd->stack, err);
    if (rc == 0)
        rc = round_work(rd, err);
    if (rc == 0 && rd->c->plain)
        return round_plain(rd, err);
    if (rc == 0)
        rc = trace_open(rd->stack.record, t, err);
    if (rc < 0)
        return rc;
    if (t->cut_ns == UINT64_MAX)
        rc = kvfs_error_set(err, -EIO, "the recording has no cut");
    if (rc == 0)
        rc = round_compare_disk(rd, t, err);
    if (rc == 0 && rd->c->twice)
        rc = disks_copy(rd->stack.file, place_name(rd->c->place, "again.img", again), err);
    rd->t_ns_max = t->cut_ns;
    if (rc == 0)
        rc = round_recover(rd, t, err);
    if (rc < 0)
        trace_close(t);
    return rc;
}

/* One round; the files of the last are gone. */
static int
round_run(struct round *rd, const char *template, struct kvfs_error *err)
{
    char file[PLACE_NAME_MAX], name[32];
    uint64_t begin = journal_now();
    struct trace t = {0}, second = {0};
    int rc;

    (void)snprintf(name, sizeof(name), "r%" PRIu64, rd->stats->rounds++);
    (void)place_name(rd->c->place, "live.img", file);
    (void)place_name(rd->c->place, "base.img", rd->base);
    rc = disks_copy(template, file, err);
    if (rc == 0)
        rc = disks_copy(template, rd->base, err);
    if (rc == 0)
        rc = stack_start(&rd->stack, rd->c->place, name, file, rd->c->plain ? STACK_PLAIN : NULL,
                         err);
    if (rc < 0)
        return rc;
    (void)snprintf(rd->record, sizeof(rd->record), "%s", rd->stack.record);
    rc = round_live(rd, &t, err);
    if (rc < 0 && place_is_full(rd->c->place)) /* whatever that looked like */
        rc = kvfs_error_set(err, -ENOSPC, "%s is full", rd->c->place->path);
    stack_stop(&rd->stack);
    if (rc == 0 && !rd->c->plain) {
        round_count(rd, t.count, t.cut_ns);
        rd->stats->work_ns += journal_now() - begin;
        if (!rd->c->twice) {
            rc = round_states(rd, &t, round_first(&t, rd->journal), err);
        } else {
            (void)snprintf(rd->record, sizeof(rd->record), "%s.1", rd->stack.record);
            (void)place_name(rd->c->place, "again.img", rd->base);
            rc = trace_open(rd->record, &second, err);
            if (rc == 0 && second.count > 1)
                rc = round_states(rd, &second, 0, err);
            if (rc == 0)
                trace_close(&second);
        }
        trace_close(&t);
    }
    stack_remove(&rd->stack);
    return rc;
}

/* What is found of an engine that promises nothing is no violation, and not worth the minute. */
static bool
campaign_promises(const struct campaign *c)
{
    return (c->subject.caps & (KVFS_CAP_DURABLE | KVFS_CAP_ORDERED)) != 0;
}

int
campaign_check(const struct campaign *c, struct kvfs_error *err)
{
    static const char *const disk[] = {"mkfs.ext4", "e2fsck", "nbdkit", "nbdfuse", NULL};
    int r = c->trace ? 0 : tool_look(disk, err);

    if (r == 0 && c->scenario->tools != NULL)
        r = tool_look(c->scenario->tools, err);
    return r == 0 && c->scenario->serves ? serve_look(c->place, err) : r;
}

int
campaign_run(struct campaign *c, struct campaign_stats *stats, struct kvfs_error *err)
{
    struct round rd = {.c = c, .stats = stats};
    char template[PLACE_NAME_MAX];
    int rc;

    *stats = (struct campaign_stats){0};
    rd.journal = journal_new();
    rd.live =
        mmap(NULL, sizeof(*rd.live), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (rd.journal == NULL || rd.live == MAP_FAILED)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    (void)place_name(c->place, c->trace ? "template" : "template.img", template);
    rc = c->trace ? round_trace_template(c, template, err) : template_make(c, template, err);
    if (rc == 0)
        rc = bench_new(c->place, c->slots, c->trace ? 0 : c->disk_bytes, &rd.bench, err);
    while (rc == 0 && !round_enough(&rd)) {
        rd.seed = crashsim_hash2(c->seed, stats->rounds);
        memset(rd.journal, 0, offsetof(struct journal, ops));
        rd.journal->seed = rd.seed;
        (void)snprintf(rd.journal->scenario, sizeof(rd.journal->scenario), "%s", c->scenario->name);
        (void)snprintf(rd.journal->engine, sizeof(rd.journal->engine), "%s", c->subject.engine);
        (void)snprintf(rd.journal->params, sizeof(rd.journal->params), "%s",
                       c->subject.engine_params != NULL ? c->subject.engine_params : "");
        rc = c->trace ? round_trace(&rd, template, err) : round_run(&rd, template, err);
    }
    if (rc < 0 && place_is_full(c->place))
        rc = kvfs_error_set(err, -ENOSPC, "%s is full", c->place->path);
    bench_free(rd.bench); /* shrinking has one of its own */
    if (rc == 0 && rd.finding[0] != '\0' && campaign_promises(c) && c->shrink > 0)
        rc = again_shrink(c, rd.finding, &stats->shrunk, err);
    journal_free(rd.journal);
    (void)munmap(rd.live, sizeof(*rd.live));
    return rc;
}
