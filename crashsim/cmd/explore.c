/* SPDX-License-Identifier: BSD-3-Clause
 *
 * explore.c - see explore.h.
 *
 * 1. The cuts are visited in passes.  A pass goes over all of them in a few sweeps, each ascending
 *    (going forward is cheap) and spread over the recording, so that a limit leaves no part of it
 *    out.  A visit takes a share of states (plan.h); passes go on until a limit is reached or
 *    nothing is new.
 * 2. A state is looked at once for each number of marks in front of it: what a check says may
 *    hang on them.  States with different bytes are counted apart.
 * 3. Given the same recording, options and answers of the check, the same states come in the same
 *    order, but for --seconds; jobs change only when each is over.
 * 4. A check that took too long is made again, alone: the machine may have been busy.
 * 5. Spoilt states (tears that no disk may make) are counted apart from all others.
 */
#include "explore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "random.h"
#include "shrink.h"

#define EXPLORE_CHANGES 8    /* of a finding, listed */
#define EXPLORE_SAME    48   /* random ones in a row that were nothing new: enough of this cut */
#define EXPLORE_CANNOT  126  /* a shell's and our word for a command that cannot be run */

struct explore_set { /* of numbers that are not 0 */
    uint64_t *slots;
    size_t used, count; /* count: a power of 2 */
};

struct explore_pending { /* what a job runs on */
    struct crashsim_pick pick;
    enum plan_kind kind;
    bool spoilt;
    uint32_t at;
    uint64_t number; /* of the state */
};

struct explore_failed {
    struct explore_pending state;
    struct check_result result;
    bool alone; /* it failed again, with no other job beside it */
};

struct explore {
    struct source *s;
    const struct explore_options *o;
    struct explore_report *report;
    struct check_job *jobs;
    struct explore_pending *pending; /* of each job */
    size_t running;
    struct explore_failed *failed; /* to be shrunk; room for those still running too */
    size_t failed_count;
    struct explore_set seen, bytes;
    struct plan_cut *cuts;
    struct cmd_progress progress;
    int64_t start_ns;
};

/* 1: N was not there yet; 0: it was. */
static int
explore_set_add(struct explore_set *set, uint64_t n)
{
    size_t i;

    n = n != 0 ? n : 1;
    if (set->used * 2 >= set->count) {
        struct explore_set more = {.count = set->count > 0 ? set->count * 2 : 1024};

        more.slots = calloc(more.count, sizeof(*more.slots));
        if (more.slots == NULL)
            return -ENOMEM;
        for (size_t k = 0; k < set->count; k++) {
            if (set->slots[k] != 0)
                (void)explore_set_add(&more, set->slots[k]);
        }
        free(set->slots);
        *set = more;
    }
    for (i = (size_t)crashsim_hash(n) & (set->count - 1); set->slots[i] != 0;
         i = (i + 1) & (set->count - 1)) {
        if (set->slots[i] == n)
            return 0;
    }
    set->slots[i] = n;
    set->used++;
    return 1;
}

static double
explore_seconds(const struct explore *e)
{
    return (double)(cmd_now_ns() - e->start_ns) / 1e9;
}

static bool
explore_is_over(const struct explore *e)
{
    return e->report->states + e->report->spoilt >= e->o->states || e->failed_count >= e->o->findings ||
           cmd_interrupted() ||
           (e->o->seconds != 0 && explore_seconds(e) >= (double)e->o->seconds);
}

static int
explore_error(const struct explore *e, int r)
{
    if (r == -EINTR)
        return cmd_error("interrupted");
    if (r == -ENOSPC)
        return cmd_error("no space for states below %s; --tmp=FOLDER names another",
                         e->jobs[0].state);
    return cmd_error("%s: %s", e->s->file, strerrordesc_np(-r));
}

/* --- jobs --- */

/* A check is over: *RESULT of it.  CMD_OK, or CMD_USAGE after a line. */
static int
explore_judge(struct explore *e, struct check_job *job, const struct check_result *result)
{
    struct explore_pending *p = &e->pending[job - e->jobs];

    e->running--;
    if (!result->timed_out && WIFEXITED(result->status) &&
        (WEXITSTATUS(result->status) == EXPLORE_CANNOT ||
         WEXITSTATUS(result->status) == EXPLORE_CANNOT + 1)) {
        size_t last = strlen(result->tail);

        while (last > 0 && result->tail[last - 1] == '\n')
            last--;
        return cmd_error("the check cannot be run: exit status %d%s%.*s", WEXITSTATUS(result->status),
                         last > 0 ? ": " : "", (int)last, result->tail);
    }
    if (!result->good) {
        e->failed[e->failed_count++] = (struct explore_failed){*p, *result, false};
    } else {
        crashsim_pick_free(&p->pick);
    }
    *p = (struct explore_pending){.at = 0};
    return CMD_OK;
}

/* Let one running job end. */
static int
explore_wait(struct explore *e)
{
    struct check_result result;
    struct check_job *done;
    int r = check_wait(e->jobs, (size_t)e->o->jobs, &done, &result);

    return r < 0 ? explore_error(e, r) : explore_judge(e, done, &result);
}

static int
explore_drain(struct explore *e)
{
    int status = CMD_OK;

    while (status == CMD_OK && e->running > 0)
        status = explore_wait(e);
    return status;
}

/* The state that was prepared last, into JOB, and its check begun. */
static int
explore_launch(struct explore *e, struct check_job *job)
{
    int r = e->s->ops->build(e->s, job->state);

    if (r == 0)
        r = source_write_marks(e->s, job->marks);
    return r < 0 ? r : check_start(&e->o->check, job, e->s->at);
}

/* Look at PICK (taken), if it is new; a job is free.  *FRESH says so. */
static int
explore_state(struct explore *e, struct crashsim_pick *pick, enum plan_kind kind, bool *fresh)
{
    uint64_t hash;
    size_t free_job = 0;
    int r = e->s->ops->prepare(e->s, pick, &hash);
    bool spoilt = crashsim_pick_is_spoilt(pick);

    *fresh = false;
    if (r == 0)
        r = explore_set_add(&e->seen, crashsim_hash2(hash, 2 * source_marks(e->s) + spoilt));
    if (r <= 0) {
        crashsim_pick_free(pick);
        e->report->repeated += r == 0;
        return r < 0 ? explore_error(e, r) : CMD_OK;
    }
    *fresh = true;
    while (e->jobs[free_job].pid != 0 && free_job + 1 < e->o->jobs)
        free_job++;
    r = spoilt ? 0 : explore_set_add(&e->bytes, hash);
    if (r > 0)
        e->report->distinct++;
    if (r >= 0)
        r = explore_launch(e, &e->jobs[free_job]);
    if (r < 0) {
        crashsim_pick_free(pick);
        return explore_error(e, r);
    }
    e->pending[free_job] = (struct explore_pending){*pick, kind, spoilt, e->s->at,
                                                    e->report->states + e->report->spoilt};
    e->running++;
    if (spoilt) {
        e->report->spoilt++;
    } else {
        e->report->states++;
        e->report->kinds[kind]++;
    }
    cmd_progress_show(&e->progress, "%llu/%llu states, %zu/%zu cuts, %zu failed, %.0f/s",
                      (unsigned long long)e->report->states + e->report->spoilt,
                      (unsigned long long)e->o->states,
                      e->report->cuts, e->s->cuts_count, e->failed_count,
                      (double)e->report->states / (explore_seconds(e) + 1e-9));
    return CMD_OK;
}

/* --- cuts --- */

/* *NEWS: a state was new. */
static int
explore_cut(struct explore *e, size_t c, uint64_t quota, bool *news)
{
    struct plan_visit visit;
    struct crashsim_choice choice;
    enum plan_kind kind;
    unsigned same = 0;
    int status = CMD_OK, r = e->s->ops->seek(e->s, e->s->cuts[c]);
    size_t open;

    if (r < 0)
        return explore_error(e, r);
    open = e->s->ops->open_count(e->s);
    if (open > e->report->open_max)
        e->report->open_max = open;
    e->report->cuts += !e->cuts[c].seen;
    plan_visit(&visit, &e->o->plan, &e->cuts[c], e->s->at, open, quota);
    for (;;) {
        struct crashsim_pick pick;
        bool fresh;

        if (e->running == e->o->jobs)
            status = explore_wait(e);
        if (status != CMD_OK || explore_is_over(e) || !plan_next(&visit, &choice, &kind))
            break;
        r = source_choose(e->s, &choice, &pick);
        if (r < 0)
            return explore_error(e, r);
        status = explore_state(e, &pick, kind, &fresh);
        same = fresh ? 0 : same + 1;
        *news |= fresh;
        if (kind == PLAN_RANDOM && same >= EXPLORE_SAME)
            break;
    }
    if (!plan_is_exhausted(&e->o->plan, &e->cuts[c], open))
        e->report->exhausted = false;
    return status;
}

static int
explore_pass(struct explore *e, bool *news)
{
    size_t n = e->s->cuts_count, sweeps = 1;
    uint64_t quota = 2 * e->o->states / n;
    int status = CMD_OK;

    if (quota < 2 * (uint64_t)PLAN_KINDS)
        quota = 2 * (uint64_t)PLAN_KINDS;
    /* So few cuts a sweep that the first comes to the recording's end within the limit. */
    while (sweeps < n && ((sweeps < 32 && n / sweeps > 64) || n / sweeps * quota > e->o->states))
        sweeps *= 2;
    e->report->exhausted = true;
    for (size_t k = 0; k < sweeps; k++) {
        for (size_t c = k * 13 % sweeps; status == CMD_OK && c < n; c += sweeps) {
            if (explore_is_over(e))
                return status;
            status = explore_cut(e, c, quota, news);
        }
    }
    return status;
}

/* --- findings --- */

struct explore_retest {
    struct explore *e;
    int status; /* CMD_OK, or what a line was printed about */
};

/* Does the state of PICK fail?  The cut is the present one, no job runs.  *RESULT, or NULL: how. */
static int
explore_retest(struct explore_retest *t, const struct crashsim_pick *pick,
               struct check_result *failed)
{
    struct explore *e = t->e;
    struct check_result result = {.good = false};
    struct check_job *done;
    uint64_t hash;
    int r = e->s->ops->prepare(e->s, pick, &hash);

    if (r == 0)
        r = explore_launch(e, &e->jobs[0]);
    if (r == 0)
        r = check_wait(e->jobs, 1, &done, &result);
    if (r < 0) {
        t->status = explore_error(e, r);
        return r;
    }
    cmd_progress_show(&e->progress, "shrinking finding %zu", e->report->findings_count + 1);
    if (failed != NULL)
        *failed = result;
    return result.good ? 0 : 1;
}

/* A shrink_test_fn. */
static int
explore_shrink_test(void *opaque, const struct crashsim_pick *pick)
{
    return explore_retest(opaque, pick, NULL);
}

/* The checks that took too long once more, alone.  *DROPPED: one was good then. */
static int
explore_retry_slow(struct explore *e, bool *dropped)
{
    struct explore_retest retest = {e, CMD_OK};
    size_t kept = 0;

    *dropped = false;
    for (size_t i = 0; i < e->failed_count; i++) {
        struct explore_failed *f = &e->failed[i];
        int r = 1;

        if (f->result.timed_out && !f->alone && retest.status == CMD_OK && !cmd_interrupted()) {
            r = e->s->ops->seek(e->s, f->state.at);
            if (r < 0)
                retest.status = explore_error(e, r);
            else
                r = explore_retest(&retest, &f->state.pick, &f->result);
            f->alone = r > 0;
        }
        if (r == 0) {
            crashsim_pick_free(&f->state.pick);
            e->report->slow++;
            *dropped = true;
        } else {
            e->failed[kept++] = *f;
        }
    }
    e->failed_count = kept;
    return retest.status;
}

static void
explore_list_changes(struct explore *e, struct explore_finding *f, const struct crashsim_pick *p)
{
    size_t counts[3], n = 0;
    char text[200];

    crashsim_pick_counts(p, counts);
    f->changes_kept = counts[CRASHSIM_KEPT] <= counts[CRASHSIM_DROPPED];
    f->changes = calloc(EXPLORE_CHANGES + 1, sizeof(char *));
    for (size_t i = 0; f->changes != NULL && i < p->count; i++) {
        if (p->fates[i].fate == (f->changes_kept ? CRASHSIM_DROPPED : CRASHSIM_KEPT))
            continue;
        f->changes_more = n == EXPLORE_CHANGES;
        if (f->changes_more)
            break;
        e->s->ops->describe(e->s, i, text, sizeof(text));
        if (asprintf(&f->changes[n], "%zu: %s%s", i, text,
                     p->fates[i].fate == CRASHSIM_TORN ? " (torn)" : "") < 0)
            f->changes[n] = NULL;
        else
            n++;
    }
}

static int
explore_compare(const void *a, const void *b)
{
    uint64_t x = ((const struct explore_failed *)a)->state.number;
    uint64_t y = ((const struct explore_failed *)b)->state.number;

    return x < y ? -1 : x > y;
}

/* Note the finding FAILED, and shrink it first if it is to be SHRUNK. */
static int
explore_finding(struct explore *e, struct explore_failed *failed, bool shrunk)
{
    struct explore_pending *p = &failed->state;
    struct explore_retest retest = {e, CMD_OK};
    struct shrink shrink = {.test = explore_shrink_test, .opaque = &retest, .shape = e->s->ops->shape,
                            .source = e->s, .tests_max = e->o->shrink};
    struct explore_finding *f = &e->report->findings[e->report->findings_count];
    int r = e->s->ops->seek(e->s, p->at);

    *f = (struct explore_finding){.at = p->at, .kind = p->kind, .result = failed->result,
                                  .open = p->pick.count, .repeated = true, .spoilt = p->spoilt};
    f->choice = crashsim_pick_text(&p->pick);
    if (r < 0)
        return explore_error(e, r);
    f->marks = source_marks(e->s);
    if (shrunk && e->o->shrink > 0) {
        r = failed->alone ? 1 : explore_retest(&retest, &p->pick, NULL);
        f->repeated = r > 0;
        if (r > 0)
            r = shrink_pick(&shrink, &p->pick);
    }
    f->tests = shrink.tests;
    f->small = crashsim_pick_text(&p->pick);
    explore_list_changes(e, f, &p->pick);
    e->report->findings_count++;
    e->report->spoilt_count += f->spoilt;
    cmd_progress_end(&e->progress);
    if (!e->o->json)
        report_finding(e->s, e->o, f, e->report->findings_count);
    return r < 0 && retest.status == CMD_OK ? explore_error(e, r) : retest.status;
}

/* --- all --- */

static int
explore_one(struct explore *e)
{
    struct crashsim_pick pick;
    bool fresh;
    int status = source_parse_choice(e->s, e->o->choice, &pick);

    if (status == CMD_OK)
        status = explore_state(e, &pick, PLAN_SUBSET, &fresh);
    return status;
}

static int
explore_begin(struct explore *e, struct rundir *dir)
{
    char name[64];

    e->jobs = calloc((size_t)e->o->jobs, sizeof(*e->jobs));
    e->pending = calloc((size_t)e->o->jobs, sizeof(*e->pending));
    e->failed = calloc((size_t)(e->o->findings + e->o->jobs), sizeof(*e->failed));
    e->report->findings = calloc((size_t)e->o->findings, sizeof(*e->report->findings));
    e->cuts = calloc(e->s->cuts_count, sizeof(*e->cuts));
    if (e->jobs == NULL || e->pending == NULL || e->failed == NULL ||
        e->report->findings == NULL || e->cuts == NULL)
        return cmd_error("no memory");
    for (size_t i = 0; i < e->o->jobs; i++) {
        (void)snprintf(name, sizeof(name), "%s-%zu", e->s->what, i);
        (void)rundir_file(dir, name, e->jobs[i].state, sizeof(e->jobs[i].state));
        (void)snprintf(name, sizeof(name), "marks-%zu", i);
        (void)rundir_file(dir, name, e->jobs[i].marks, sizeof(e->jobs[i].marks));
        (void)snprintf(name, sizeof(name), "output-%zu", i);
        (void)rundir_file(dir, name, e->jobs[i].output, sizeof(e->jobs[i].output));
    }
    return CMD_OK;
}

/* --at: that cut alone. */
static int
explore_narrow(struct explore *e)
{
    uint32_t at;
    int status, r;

    if (e->o->at == NULL)
        return CMD_OK;
    status = source_parse_at(e->s, e->o->at, &at);
    if (status != CMD_OK)
        return status;
    e->s->cuts[0] = at;
    e->s->cuts_count = 1;
    r = e->s->ops->seek(e->s, at);
    return r < 0 ? explore_error(e, r) : CMD_OK;
}

static void
explore_end(struct explore *e)
{
    if (e->jobs != NULL)
        check_kill(e->jobs, (size_t)e->o->jobs);
    for (size_t i = 0; e->pending != NULL && i < e->o->jobs; i++)
        crashsim_pick_free(&e->pending[i].pick);
    for (size_t i = 0; i < e->failed_count; i++)
        crashsim_pick_free(&e->failed[i].state.pick);
    free(e->jobs);
    free(e->pending);
    free(e->failed);
    free(e->cuts);
    free(e->seen.slots);
    free(e->bytes.slots);
    e->report->seconds = explore_seconds(e);
    cmd_progress_end(&e->progress);
}

int
explore_all(struct source *s, const struct explore_options *o, struct rundir *dir,
            struct explore_report *report)
{
    struct explore e = {.s = s, .o = o, .report = report, .start_ns = cmd_now_ns()};
    bool more = true, news;
    int status;

    *report = (struct explore_report){.cuts = 0};
    cmd_progress_start(&e.progress, o->quiet);
    status = explore_narrow(&e);
    report->cuts_count = s->cuts_count;
    if (status == CMD_OK)
        status = explore_begin(&e, dir);
    if (status == CMD_OK && o->choice != NULL) {
        status = explore_one(&e);
        if (status == CMD_OK)
            status = explore_drain(&e);
        more = false;
    }
    while (status == CMD_OK && more && !explore_is_over(&e)) {
        for (news = true; status == CMD_OK && news && !explore_is_over(&e);) {
            news = false;
            status = explore_pass(&e, &news);
        }
        if (status == CMD_OK)
            status = explore_drain(&e);
        if (status == CMD_OK)
            status = explore_retry_slow(&e, &more);
    }
    /* Which check ends first is chance; which state came first is not. */
    if (e.failed_count > 0)
        qsort(e.failed, e.failed_count, sizeof(*e.failed), explore_compare);
    for (size_t i = 0; i < e.failed_count && i < o->findings; i++) {
        int r = explore_finding(&e, &e.failed[i], status == CMD_OK); /* none is lost */

        status = status == CMD_OK ? r : status;
    }
    if (status == CMD_OK && cmd_interrupted())
        status = cmd_error("interrupted");
    explore_end(&e);
    return status == CMD_OK && report->findings_count > 0 ? CMD_VIOLATIONS : status;
}

void
explore_report_free(struct explore_report *report)
{
    for (size_t i = 0; i < report->findings_count; i++) {
        struct explore_finding *f = &report->findings[i];

        free(f->choice);
        free(f->small);
        for (size_t k = 0; f->changes != NULL && f->changes[k] != NULL; k++)
            free(f->changes[k]);
        free(f->changes);
    }
    free(report->findings);
}
