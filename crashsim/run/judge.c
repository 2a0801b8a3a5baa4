/* SPDX-License-Identifier: BSD-3-Clause
 *
 * judge.c - what is demanded of every recovered volume; see scenario.h.
 *
 * Open, look (the scenario's oracle), write on durably, close, `kvfs check`, open again, look
 * again: the second look must see what the first saw, and what was written after it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <xxhash.h>

#include "random.h"
#include "scenario.h"

void
judge_bad(struct judge *j, const char *fmt, ...)
{
    va_list ap;

    if (j->verdict->status == VERDICT_VIOLATION || j->verdict->status == VERDICT_TROUBLE)
        return;
    va_start(ap, fmt);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it was started a line above */
    (void)vsnprintf(j->verdict->text, sizeof(j->verdict->text), fmt, ap);
    va_end(ap);
    j->verdict->status = VERDICT_VIOLATION;
}

int
judge_could_not(struct judge *j, int r, const struct kvfs_error *err)
{
    if (r == 0 || j->verdict->status == VERDICT_VIOLATION)
        return r;
    j->verdict->status = VERDICT_TROUBLE;
    (void)snprintf(j->verdict->text, sizeof(j->verdict->text), "%s: %s", j->verdict->phase,
                   err->msg);
    return r;
}

uint64_t
judge_digest(const void *bytes, size_t count)
{
    return XXH3_64bits(bytes, count);
}

bool
judge_expects_durable(const struct judge *j)
{
    return (j->s->caps & KVFS_CAP_DURABLE) != 0;
}

bool
judge_expects_order(const struct judge *j)
{
    return (j->s->caps & (KVFS_CAP_DURABLE | KVFS_CAP_ORDERED)) != 0;
}

static void
subject_param(char params[SUBJECT_PARAMS_MAX], const char *more)
{
    size_t len = strlen(params);

    (void)snprintf(params + len, SUBJECT_PARAMS_MAX - len, "%s%s", len > 0 ? "," : "", more);
}

void
subject_options(const struct subject *s, uint64_t seed, char params[SUBJECT_PARAMS_MAX],
                struct kvfs_volume_options *o)
{
    static const unsigned intervals[] = {2, 10, 50, 5000};
    static const size_t batches[] = {64 << 10, 256 << 10, 0};
    uint64_t r = crashsim_hash(seed ^ 0x6f7074696f6e73u);

    params[0] = '\0';
    if (strncmp(s->engine, "log:", 4) == 0 && (r >> 24) % 2 == 0)
        subject_param(params, "log-first=262144,log-size=262144");
    /* Otherwise a workload ends before a table is written. */
    if ((strcmp(s->engine, "rocksdb") == 0 || strcmp(s->engine, "log:rocksdb") == 0) &&
        (r >> 32) % 2 == 0)
        subject_param(params, "memtable-bytes=65536");
    if (s->engine_params != NULL)
        subject_param(params, s->engine_params);
    *o = (struct kvfs_volume_options){
        .engine_params = params[0] != '\0' ? params : NULL,
        .commit_interval_ms = intervals[r % 4],
        .batch_bytes = batches[(r >> 8) % 3],
        .cache_bytes = (r >> 16) % 2 == 0 ? KVFS_CACHE_BYTES_MIN : 0,
    };
}

static void
judge_phase(struct judge *j, const char *phase)
{
    (void)snprintf(j->verdict->phase, sizeof(j->verdict->phase), "%s", phase);
}

static void
judge_finding(void *arg, const char *where, const char *what)
{
    judge_bad(arg, "kvfs check: %s: %s", where, what);
}

static int
judge_write_on(struct judge *j, struct kvfs_error *err)
{
    struct kvfs_create create = {.mode = S_IFREG | 0600};
    struct kvfs_attr attr = {0};
    struct kvfs_file *f = NULL;
    int r = kvfs_create(j->v, KVFS_ROOT_INO, JUDGE_AFTER, &create, &attr, err);

    if (r == -EEXIST) /* of a recovery that was cut */
        r = kvfs_lookup(j->v, KVFS_ROOT_INO, JUDGE_AFTER, &attr, err);
    if (r < 0)
        return r;
    r = kvfs_file_open(j->v, attr.ino, KVFS_OPEN_WRITE, &f, err);
    if (r < 0)
        return r;
    r = kvfs_file_pwrite(f, "recovered", 9, 0, KVFS_EXTEND, err);
    kvfs_file_close(f);
    return r < 0 ? r : kvfs_volume_sync(j->v, err);
}

static int
judge_after(struct judge *j, struct kvfs_error *err)
{
    char text[9] = "";
    struct kvfs_attr attr = {0};
    struct kvfs_file *f = NULL;
    int r = kvfs_lookup(j->v, KVFS_ROOT_INO, JUDGE_AFTER, &attr, err);

    if (r == 0)
        r = kvfs_file_open(j->v, attr.ino, KVFS_OPEN_READ, &f, err);
    if (r < 0)
        return r;
    r = kvfs_file_pread(f, text, sizeof(text), 0, err);
    kvfs_file_close(f);
    if (r == 0 && memcmp(text, "recovered", sizeof(text)) != 0)
        judge_bad(j, "what was written after the recovery is not there");
    return r;
}

/* Phase P of the recovery begins. */
static void
judge_note(struct judge *j, enum journal_phase p)
{
    if (j->note != NULL && j->note->begin_ns[p] == 0)
        journal_note(j->note, &j->note->begin_ns[p]);
}

/* What goes on in the background of the recovered volume. */
static void
judge_note_background(struct judge *j, uint64_t *log_used)
{
    struct kvfs_volume_stat st;

    if (j->note == NULL || kvfs_volume_stat(j->v, &st, NULL) < 0)
        return;
    if (st.forks_deleting > 0)
        journal_note(j->note, &j->note->orphans_ns);
    if (st.engine.log_used_bytes < *log_used)
        journal_note(j->note, &j->note->folded_ns);
    *log_used = st.engine.log_used_bytes;
}

static int
judge_open(struct judge *j, bool again, struct kvfs_error *err)
{
    struct kvfs_volume_options options = {.engine_params = j->s->engine_params};
    uint64_t begin = journal_now();
    struct kvfs_volume_info info;
    int r;

    judge_phase(j, again ? "opening again" : "opening");
    judge_note(j, again ? RECOVERY_AGAIN : RECOVERY_ENGINE);
    r = kvfs_volume_open(j->volume, &options, &j->v, err);
    j->verdict->open_ns += journal_now() - begin;
    if (r == 0 && !again && j->note != NULL) {
        kvfs_volume_info(j->v, &info);
        j->note->begin_ns[RECOVERY_KVFS] = begin + info.open_engine_ns;
    }
    return r;
}

/* Of a volume that was cut again while it recovered: what the first recovery had made durable. */
static void
judge_first_recovery(struct judge *j)
{
    const struct journal_recovery *first = &j->j->recovery;

    if (first->acked_ns == 0 || j->instant_ns <= first->acked_ns || !judge_expects_durable(j) ||
        j->verdict->status != VERDICT_NONE)
        return;
    if (j->digest != first->digest)
        judge_bad(j, "what the first recovery found, and wrote on behind durably, is not there");
}

/* Look for the first time, and write on. */
static int
judge_go_on(const struct scenario *scenario, struct judge *j, struct kvfs_error *err)
{
    const struct journal_recovery *first = &j->j->recovery;
    uint64_t log_used = 0;
    int r;

    judge_first_recovery(j);
    if (first->acked_ns != 0 && j->instant_ns > first->acked_ns && judge_expects_durable(j) &&
        j->verdict->status == VERDICT_NONE) {
        r = judge_after(j, err);
        if (r < 0)
            return r;
    }
    judge_phase(j, "writing on");
    judge_note_background(j, &log_used);
    judge_note(j, RECOVERY_WRITE);
    r = judge_write_on(j, err);
    judge_note_background(j, &log_used);
    if (r == 0 && scenario->write_on != NULL)
        r = scenario->write_on(j, err);
    judge_note_background(j, &log_used);
    if (r == 0 && j->note != NULL && j->verdict->status == VERDICT_NONE) {
        j->note->digest = j->digest;
        journal_note(j->note, &j->note->acked_ns);
    }
    return r;
}

static int
judge_look(const struct scenario *scenario, struct judge *j, bool again, struct kvfs_error *err)
{
    uint64_t digest = j->digest, begin, log_used = 0;
    int r = judge_open(j, again, err), closed;

    if (r < 0)
        return r;
    judge_phase(j, again ? "reading again" : "reading");
    judge_note(j, again ? RECOVERY_AGAIN : RECOVERY_READ);
    judge_note_background(j, &log_used);
    begin = journal_now();
    r = scenario->judge(j, err);
    j->verdict->judge_ns += journal_now() - begin;
    judge_note_background(j, &log_used);
    if (r == 0 && again && digest != j->digest && j->verdict->status == VERDICT_NONE)
        judge_bad(j, "opened a second time it holds something else");
    if (r == 0 && again)
        r = judge_after(j, err);
    if (r == 0 && !again)
        r = judge_go_on(scenario, j, err);
    judge_note(j, again ? RECOVERY_AGAIN : RECOVERY_CLOSE);
    closed = kvfs_volume_close(j->v, r == 0 ? err : NULL);
    j->v = NULL;
    return r < 0 ? r : closed;
}

/* Of the machine and not of the volume. */
static bool
judge_is_short(int r)
{
    return r == -ENOSPC || r == -ENOMEM || r == -EMFILE || r == -ENFILE || r == -EAGAIN;
}

void
judge_all(const struct scenario *scenario, struct judge *j)
{
    struct kvfs_check_options options = {.finding = judge_finding, .finding_arg = j};
    struct kvfs_check_result result;
    struct kvfs_error err = {0};
    uint64_t begin;
    int r = judge_look(scenario, j, false, &err);

    if (r == 0 && j->verdict->status == VERDICT_NONE) {
        judge_phase(j, "kvfs check");
        judge_note(j, RECOVERY_CHECK);
        begin = journal_now();
        r = kvfs_check(j->volume, &options, &result, &err);
        j->verdict->check_ns += journal_now() - begin;
    }
    if (r == 0 && j->verdict->status == VERDICT_NONE)
        r = judge_look(scenario, j, true, &err);
    if (judge_is_short(r))
        (void)judge_could_not(j, r, &err);
    else if (r < 0)
        judge_bad(j, "%s: %s", j->verdict->phase, err.msg);
    if (j->verdict->status == VERDICT_NONE)
        j->verdict->status = VERDICT_GOOD;
    judge_phase(j, "");
}
