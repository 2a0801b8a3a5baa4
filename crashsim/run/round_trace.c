/* SPDX-License-Identifier: BSD-3-Clause
 *
 * round_trace.c - a round without a disk, and without root; see round.h.
 *
 * The worker runs under cmd/tracer.h, in a folder.  What it tells the journal is a mark of the
 * trace besides, so each operation and each acknowledgement has a line; when the worker is done
 * these lines become the journal's times, and a cut behind line N is one at time N + 1.
 *
 * The cut of a second trace, of a recovery, is at the line of that trace and as many more as the
 * first one has, so that times of both are in order.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/source.h"
#include "cmd/tracer.h"
#include "random.h"
#include "round.h"
#include "tool.h"

struct traced {
    struct round *rd;
    const char *folder, *record;
    const struct bench_job *judge; /* NULL: the workload; else judge what is in FOLDER */
    char marks[PLACE_NAME_MAX];
};

/* In the process that works. */
static int
traced_work(struct traced *t)
{
    struct round *rd = t->rd;
    char volume[PLACE_NAME_MAX + 16];
    struct kvfs_error failed = {0};

    tool_quiet(rd->c->place);
    (void)snprintf(volume, sizeof(volume), "%s/" STATE_VOLUME, t->folder);
    if (t->judge != NULL) {
        struct judge j = {.s = &rd->c->subject,
                          .j = rd->journal,
                          .t_ns = rd->t_ns_max,
                          .instant_ns = rd->t_ns_max,
                          .note = &rd->journal->recovery,
                          .volume = volume,
                          .verdict = rd->live};

        judge_all(rd->c->scenario, &j);
        return 0;
    }
    journal_end(rd->journal, rd->c->scenario->work(&rd->c->subject, volume, rd->journal, &failed),
                &failed);
    return 0;
}

static int
traced_call(void *arg)
{
    struct traced *t = arg;

    return journal_mark_to(t->marks) < 0 ? 1 : traced_work(t);
}

/* In a process of its own, because a tracer waits for every child that it has. */
static int
traced_record(struct traced *t)
{
    struct calls calls = {.record = NULL};
    const char *unseen;
    int status = 0, r, fd = open(t->marks, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || fstat(fd, &calls.marks) < 0)
        return -errno;
    (void)close(fd);
    (void)unlink(t->record);
    r = trace_record_open(t->record, t->folder, &calls.record);
    if (r < 0)
        return r;
    r = tracer_call(&calls, traced_call, t, &status);
    trace_record_look(calls.record);
    unseen = trace_record_what_unseen(calls.record);
    if (unseen != NULL) {
        (void)cmd_error("the workload did what a trace does not know: %s", unseen);
        r = r < 0 ? r : -ENOTSUP;
    }
    if (r == 0 && status != 0)
        r = -EIO;
    status = trace_record_close(calls.record);
    return r < 0 ? r : status;
}

static int
traced_run(struct traced *t, struct kvfs_error *err)
{
    pid_t self = getpid(), pid;
    int status = 0;

    (void)place_name(t->rd->c->place, "marks", t->marks);
    (void)fflush(NULL);
    pid = fork();
    if (pid < 0)
        return kvfs_error_set(err, -errno, "fork: %s", strerrordesc_np(errno));
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(getppid() == self ? -traced_record(t) : 0);
    }
    if (!tool_wait(pid, 2 * WORK_MS, &status))
        return kvfs_error_set(err, -ETIMEDOUT, "the traced workload took too long");
    if (WIFEXITED(status) && WEXITSTATUS(status) == EIO)
        return round_failed(t->rd, status, err);
    if (status != 0)
        return kvfs_error_set(err, WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO, "the workload cannot be traced: %s",
                              WIFEXITED(status) ? strerrordesc_np(WEXITSTATUS(status))
                                                : "the tracer died");
    return 0;
}

/* Lines become times, from FIRST on. */
static void
traced_times(struct journal *j, const struct source *s, uint64_t first)
{
    for (size_t i = 0; i < s->marks_count; i++)
        (void)journal_marked(j, s->marks[i].name, first + s->marks[i].line);
}

static int
folder_copy(const struct place *p, const char *from, const char *to, struct kvfs_error *err)
{
    const char *const away[] = {"rm", "-rf", to, NULL};
    const char *const copy[] = {"cp", "-a", "--sparse=always", from, to, NULL};
    int r = tool_run(p, away, err);

    return r < 0 ? r : tool_run(p, copy, err);
}

int
round_trace_template(struct campaign *c, const char *folder, struct kvfs_error *err)
{
    const char *const away[] = {"rm", "-rf", folder, NULL};
    int r = tool_run(c->place, away, err);

    if (r == 0 && mkdir(folder, 0700) < 0)
        r = kvfs_error_set(err, -errno, "%s: %s", folder, strerrordesc_np(errno));
    return r < 0 ? r : round_template(c, folder, err);
}

/* --- states --- */

static int
line_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* Half of the cuts fall where most is open: in front of what makes something durable. */
static void
trace_cuts(const struct source *s, uint32_t first, uint64_t seed, uint32_t cuts[CUTS_A_ROUND])
{
    for (size_t i = 0; i < CUTS_A_ROUND; i++) {
        uint64_t r = crashsim_random(&seed);

        cuts[i] = first + (uint32_t)(r % (s->lines - first + 1));
        if (i % 2 == 0 && s->cuts_count > 0) {
            uint32_t at = s->cuts[r / 7 % s->cuts_count];

            cuts[i] = at > first ? at : cuts[i];
        }
    }
    qsort(cuts, CUTS_A_ROUND, sizeof(cuts[0]), line_compare);
}

static int
trace_states_at(struct round *rd, const struct bench_job *job, uint32_t at, uint64_t t,
                struct kvfs_error *err)
{
    struct source *source = job->source;
    struct round_seen seen = {.seed = crashsim_hash2(rd->seed, at)};
    struct state s = {.at = at};
    int rc = source->ops->seek(source, at);

    if (rc < 0)
        return kvfs_error_set(err, rc, "line %u of the trace: %s", at, strerrordesc_np(-rc));
    rd->stats->cuts++;
    round_count_second(rd, t);
    rd->stale = 0;
    while (rc == 0 && rd->stale < STALE_MAX && !round_enough(rd) &&
           round_next(&seen, source->ops->open_count(source), &s.choice))
        rc = bench_begin(rd->bench, job, NULL, &s, t, err);
    return rc;
}

/* States of SOURCE from line FIRST on, whose lines are times from BEGIN on. */
static int
trace_states(struct round *rd, struct source *source, uint32_t first, uint64_t begin,
             struct kvfs_error *err)
{
    struct bench_job job = {.scenario = rd->c->scenario,
                            .subject = &rd->c->subject,
                            .journal = rd->journal,
                            .source = source,
                            .judge_ms = rd->c->judge_ms,
                            .t_ns_max = rd->t_ns_max,
                            .judged = round_judged,
                            .judged_arg = rd};
    uint32_t cuts[CUTS_A_ROUND];
    uint64_t since = journal_now();
    int rc = 0;

    rd->journal->trace_begin = begin;
    trace_cuts(source, first, crashsim_hash2(rd->seed, 0x63757473), cuts);
    for (size_t i = 0; rc == 0 && i < CUTS_A_ROUND && !round_enough(rd); i++) {
        if (i == 0 || cuts[i] != cuts[i - 1])
            rc = trace_states_at(rd, &job, cuts[i], begin + cuts[i] + 1, err);
    }
    bench_wait(rd->bench);
    rd->stats->states_ns += journal_now() - since;
    return rc;
}

/* The first line that is not of the folder as it was before. */
static uint32_t
trace_first(const struct source *s)
{
    return s->marks_count > 0 ? s->marks[0].line : 0;
}

/* --- a recovery that is traced, from one state of the first trace --- */

static int
trace_recover(struct round *rd, struct source *source, struct kvfs_error *err)
{
    char folder[PLACE_NAME_MAX], record[PLACE_NAME_MAX];
    struct bench_job job = {.scenario = rd->c->scenario, .journal = rd->journal};
    struct traced t = {.rd = rd,
                       .folder = place_name(rd->c->place, "again", folder),
                       .record = place_name(rd->c->place, "trace.1", record),
                       .judge = &job};
    uint32_t first = trace_first(source);
    uint64_t r = crashsim_hash2(rd->seed, 0x7477696365);
    struct crashsim_pick pick = {0};
    struct source *second = NULL;
    struct state s = {.at = first + (uint32_t)(r % (source->lines - first + 1))};
    uint64_t begin = (uint64_t)source->lines + 1, hash;
    int rc = source->ops->seek(source, (uint32_t)s.at);

    round_choice(r >> 8, source->ops->open_count(source), &s.choice);
    if (rc == 0)
        rc = source_choose(source, &s.choice, &pick);
    if (rc == 0)
        rc = source->ops->prepare(source, &pick, &hash);
    if (rc == 0)
        rc = source->ops->build(source, folder);
    crashsim_pick_free(&pick);
    if (rc < 0)
        return kvfs_error_set(err, rc, "%s: %s", folder, strerrordesc_np(-rc));
    rd->t_ns_max = s.at + 1;
    *rd->live = (struct verdict){0};
    job.t_ns_max = rd->t_ns_max;
    bench_note(rd->bench, &job, folder, rd->t_ns_max, rd->live);
    rc = traced_run(&t, err);
    if (rc < 0)
        return rc;
    rd->stats->live++;
    rd->stats->cuts++;
    state_room(rd->c->place, rd->live);
    round_judged(rd, &s, rd->live);
    if (source_open_trace(record, &second) != 0)
        return kvfs_error_set(err, -EIO, "%s: no trace", record);
    traced_times(rd->journal, second, begin);
    (void)snprintf(rd->record, sizeof(rd->record), "%s", record);
    rc = trace_states(rd, second, trace_first(second), begin, err);
    source_close(second);
    return rc;
}

/* Neither cut nor trace: the worker ends, and what it left is judged. */
static int
trace_plain(struct round *rd, struct traced *t, struct kvfs_error *err)
{
    struct bench_job job = {.scenario = rd->c->scenario,
                            .subject = &rd->c->subject,
                            .journal = rd->journal,
                            .judge_ms = rd->c->judge_ms};
    pid_t self = getpid(), pid;
    struct state s = {0};
    int status = 0, rc = 0;

    (void)fflush(NULL);
    pid = fork();
    if (pid < 0)
        return kvfs_error_set(err, -errno, "fork: %s", strerrordesc_np(errno));
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(getppid() == self ? traced_work(t) : 0);
    }
    (void)tool_wait(pid, WORK_MS, &status);
    if (status != 0 || rd->journal->ended[0] != '\0')
        rc = round_failed(rd, status, err);
    if (rc < 0)
        return rc;
    *rd->live = (struct verdict){0};
    job.t_ns_max = journal_now();
    bench_note(rd->bench, &job, t->folder, job.t_ns_max, rd->live);
    state_judge(&job, t->folder, job.t_ns_max, rd->live);
    rd->stats->live++;
    round_judged(rd, &s, rd->live);
    return 0;
}

int
round_trace(struct round *rd, const char *template, struct kvfs_error *err)
{
    char folder[PLACE_NAME_MAX], record[PLACE_NAME_MAX];
    struct traced t = {.rd = rd,
                       .folder = place_name(rd->c->place, "work", folder),
                       .record = place_name(rd->c->place, "trace", record)};
    uint64_t begin = journal_now();
    struct source *source = NULL;
    int rc = folder_copy(rd->c->place, template, folder, err);

    rd->stats->rounds++;
    (void)snprintf(rd->record, sizeof(rd->record), "%s", record);
    if (rc == 0)
        rc = rd->c->plain ? trace_plain(rd, &t, err) : traced_run(&t, err);
    if (rc < 0 || rd->c->plain)
        return rc;
    if (rd->journal->ended[0] != '\0')
        rc = round_failed(rd, 0, err);
    if (rc < 0)
        return rc;
    if (source_open_trace(record, &source) != 0)
        return kvfs_error_set(err, -EIO, "%s: no trace", record);
    traced_times(rd->journal, source, 0);
    rd->t_ns_max = (uint64_t)source->lines + 1;
    round_count(rd, source->lines, rd->t_ns_max);
    rd->stats->work_ns += journal_now() - begin;
    rc = rd->c->twice ? trace_recover(rd, source, err)
                      : trace_states(rd, source, trace_first(source), 0, err);
    source_close(source);
    return rc;
}
