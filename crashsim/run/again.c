/* SPDX-License-Identifier: BSD-3-Clause
 *
 * again.c - see again.h.
 *
 * Everything starts from the finding's folder and nothing from the run that made it, so what was
 * shrunk is what the folder's command replays: each smaller state is named by its text and judged by that.
 */
#include "again.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/shrink.h"
#include "cmd/source.h"
#include "finding.h"

/* A finding, at the instant of its state. */
struct again {
    struct campaign *c;
    struct finding f;
    struct state s;
    struct bench *b;
    struct bench_job job;
    struct verdict v; /* of what was judged last */
    struct trace t;   /* of a disk … */
    struct replay *r;
    struct source *source; /* … or of calls */
    uint64_t t_ns;
};

static void
again_judged(void *arg, const struct state *s, const struct verdict *v)
{
    (void)s;
    ((struct again *)arg)->v = *v;
}

static int
again_open_disk(struct again *a, struct kvfs_error *err)
{
    int rc = trace_open(a->f.record_path, &a->t, err);

    if (rc == 0 && a->s.at > a->t.count)
        rc = kvfs_error_set(err, -EINVAL, "no instant %zu: %s has %zu events", a->s.at, a->f.record_path,
                            a->t.count);
    if (rc == 0)
        rc = replay_new(&a->t, a->f.base_path, &a->r, err);
    if (rc == 0)
        rc = bench_new(a->c->place, 1, a->t.size_bytes, &a->b, err);
    if (rc == 0)
        rc = replay_go(a->r, a->s.at, err);
    a->t_ns = trace_time(&a->t, a->s.at);
    return rc;
}

static int
again_open_trace(struct again *a, struct kvfs_error *err)
{
    const char *record = a->f.record_path;

    if (source_open_trace(record, &a->source) != 0)
        return kvfs_error_set(err, -EINVAL, "%s: no trace", record);
    if (a->s.at > a->source->lines || a->source->ops->seek(a->source, (uint32_t)a->s.at) < 0)
        return kvfs_error_set(err, -EINVAL, "no instant %zu: %s has %u lines", a->s.at, record,
                              a->source->lines);
    a->job.source = a->source;
    a->t_ns = a->f.journal->trace_begin + a->s.at + 1;
    return bench_new(a->c->place, 1, 0, &a->b, err);
}

/* Ends with again_close(), also after an error.  TEXT is borrowed. */
static int
again_open(struct again *a, struct campaign *c, const char *dir, const char *text,
           struct kvfs_error *err)
{
    struct journal *j = journal_new();
    int rc;

    *a = (struct again){.c = c, .f = {.journal = j}};
    a->job = (struct bench_job){.scenario = c->scenario,
                                .subject = &c->subject,
                                .journal = j,
                                .judge_ms = c->judge_ms,
                                .all = true,
                                .judged = again_judged,
                                .judged_arg = a};
    rc = j == NULL ? kvfs_error_set(err, -ENOMEM, "no memory") : finding_load(&a->f, dir, err);
    if (rc == 0)
        rc = finding_verify(dir, err);
    if (rc < 0)
        return rc;
    text = text != NULL ? text : a->f.state;
    if (!state_parse(text, &a->s))
        return kvfs_error_set(err, -EINVAL, "'%s' names no state", text);
    a->job.t_ns_max = a->f.t_ns_max;
    return a->f.trace ? again_open_trace(a, err) : again_open_disk(a, err);
}

static void
again_close(struct again *a)
{
    bench_free(a->b);
    replay_free(a->r);
    trace_close(&a->t);
    if (a->source != NULL)
        source_close(a->source);
    finding_unload(&a->f);
    journal_free(a->f.journal);
}

/* Judge what A->s says; the verdict is in A->v. */
static int
again_one(struct again *a, struct kvfs_error *err)
{
    int rc = bench_begin(a->b, &a->job, a->r, &a->s, a->t_ns, err);

    bench_wait(a->b);
    return rc;
}

int
again_of(const char *dir, char scenario[32], char engine[96], bool *trace, struct kvfs_error *err)
{
    struct journal *j = journal_new();
    struct finding f = {.journal = j};
    int rc = j == NULL ? kvfs_error_set(err, -ENOMEM, "no memory") : finding_load(&f, dir, err);

    if (rc == 0) {
        memcpy(scenario, j->scenario, 32);
        memcpy(engine, j->engine, 96);
        *trace = f.trace;
    }
    finding_unload(&f);
    journal_free(j);
    return rc;
}

int
again_judge(struct campaign *c, const char *dir, const char *text, struct verdict *v,
            struct kvfs_error *err)
{
    const char *params = c->subject.engine_params;
    struct again a;
    int rc = again_open(&a, c, dir, text, err);

    if (rc == 0 && params == NULL && a.f.journal->params[0] != '\0')
        c->subject.engine_params = a.f.journal->params;
    if (rc == 0)
        rc = again_one(&a, err);
    *v = a.v;
    again_close(&a);
    c->subject.engine_params = params;
    return rc;
}

/* --- smaller --- */

struct smaller {
    struct again *a;
    struct shrink *shrink;
    uint64_t end_ns;
    char why[sizeof(((struct verdict *)NULL)->text)]; /* of the last violation */
    struct kvfs_error *err;
};

/* A shrink_test_fn. */
static int
smaller_test(void *opaque, const struct crashsim_pick *pick)
{
    struct smaller *m = opaque;
    struct again *a = m->a;
    char *text = crashsim_pick_text(pick);
    int rc;

    if (text == NULL)
        return kvfs_error_set(m->err, -ENOMEM, "no memory");
    a->s.pick = text;
    rc = again_one(a, m->err);
    a->s.pick = NULL;
    free(text);
    if (journal_now() > m->end_ns || (a->c->stop != NULL && a->c->stop()))
        m->shrink->tests_max = 0; /* the smallest so far will do */
    if (rc < 0 || a->v.status != VERDICT_VIOLATION)
        return rc < 0 ? rc : 0;
    memcpy(m->why, a->v.text, sizeof(m->why));
    return 1;
}

static void
shrunk_describe(const struct again *a, size_t i, char *text, size_t size)
{
    if (a->source != NULL)
        a->source->ops->describe(a->source, i, text, size);
    else
        source_describe_write(replay_open(a->r, i), text, size);
}

/* The changes that P is about, listed. */
static int
shrunk_list(struct shrunk *s, const struct again *a, const struct crashsim_pick *p)
{
    size_t counts[3];
    char text[200];

    crashsim_pick_counts(p, counts);
    s->kept = counts[CRASHSIM_KEPT] <= counts[CRASHSIM_DROPPED];
    for (size_t i = 0; i < p->count && !s->more; i++) {
        if (p->fates[i].fate == (s->kept ? CRASHSIM_DROPPED : CRASHSIM_KEPT))
            continue;
        s->more = s->changes_count == SHRUNK_CHANGES;
        if (s->more)
            break;
        shrunk_describe(a, i, text, sizeof(text));
        if (asprintf(&s->changes[s->changes_count], "%zu: %s%s", i, text,
                     p->fates[i].fate == CRASHSIM_TORN ? " (torn)" : "") < 0)
            return -ENOMEM;
        s->changes_count++;
    }
    return 0;
}

/* What the finding's folder tells of it, below the command; malloced or NULL. */
static char *
shrunk_text(const struct shrunk *s, const char *first)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (out == NULL)
        return NULL;
    (void)fprintf(out, "found as --state=%s\nof %zu open changes this one %s only%s\n", first, s->open,
                  s->kept ? "keeps" : "drops", s->changes_count == 0 ? " nothing" : "");
    for (size_t i = 0; i < s->changes_count; i++)
        (void)fprintf(out, "  %s\n", s->changes[i]);
    if (s->more)
        (void)fprintf(out, "  ...\n");
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* The finding in DIR is of PICK from now on, which fails for the reason WHY. */
static int
shrunk_keep(struct shrunk *s, struct again *a, const struct crashsim_pick *pick, const char *why,
            const char *dir, struct kvfs_error *err)
{
    char *text = crashsim_pick_text(pick);
    struct finding f = a->f;
    char *more = NULL;
    int rc = -ENOMEM;

    free(s->state);
    s->state = NULL;
    if (text != NULL && asprintf(&s->state, "%zu,%s", a->s.at, text) < 0)
        s->state = NULL;
    if (s->state != NULL && shrunk_list(s, a, pick) == 0)
        more = shrunk_text(s, a->f.state);
    f.state = s->state;
    f.promise = a->c->promise;
    f.why = why;
    f.more = more;
    rc = more == NULL ? kvfs_error_set(err, -ENOMEM, "no memory") : finding_rename(&f, dir, err);
    free(more);
    free(text);
    return rc;
}

/* What the state of A makes of the open changes. */
static int
smaller_pick(const struct again *a, struct crashsim_pick *pick, struct kvfs_error *err)
{
    int rc = a->source != NULL
                 ? source_choose(a->source, &a->s.choice, pick)
                 : crashsim_pick_choose(pick, &a->s.choice, replay_open_count(a->r));

    return rc < 0 ? kvfs_error_set(err, rc, "a state: %s", strerrordesc_np(-rc)) : 0;
}

static int
smaller_find(struct again *a, struct shrunk *s, const char *dir, struct kvfs_error *err)
{
    struct shrink shrink = {.shape = a->source != NULL ? a->source->ops->shape : replay_shape,
                            .source = a->source != NULL ? (const void *)a->source : a->r,
                            .tests_max = a->c->shrink};
    struct smaller m = {.a = a,
                        .shrink = &shrink,
                        .end_ns = journal_now() + SHRINK_SECONDS * UINT64_C(1000000000),
                        .err = err};
    struct crashsim_pick pick = {0};
    int rc = again_one(a, err);

    s->repeated = rc == 0 && a->v.status == VERDICT_VIOLATION;
    s->state = strdup(a->f.state);
    if (rc < 0 || !s->repeated)
        return rc;
    memcpy(m.why, a->v.text, sizeof(m.why));
    rc = smaller_pick(a, &pick, err);
    if (rc < 0)
        return rc;
    s->open = pick.count;
    shrink.test = smaller_test;
    shrink.opaque = &m;
    rc = shrink_pick(&shrink, &pick);
    s->judgings = shrink.tests;
    if (rc == 0 && shrink.tests > 0)
        rc = smaller_test(&m, &pick); /* its reason; that of the last judging is another's */
    if (rc > 0)
        rc = shrunk_keep(s, a, &pick, m.why, dir, err);
    crashsim_pick_free(&pick);
    return rc;
}

int
again_shrink(struct campaign *c, const char *dir, struct shrunk **shrunk, struct kvfs_error *err)
{
    struct shrunk *s = calloc(1, sizeof(*s));
    struct again a;
    int rc;

    if (s == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    rc = again_open(&a, c, dir, NULL, err);
    if (rc == 0)
        rc = smaller_find(&a, s, dir, err);
    again_close(&a);
    if (rc < 0)
        shrunk_free(s);
    else
        *shrunk = s;
    return rc;
}

void
shrunk_free(struct shrunk *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->changes_count; i++)
        free(s->changes[i]);
    free(s->state);
    free(s);
}
