/* SPDX-License-Identifier: BSD-3-Clause
 *
 * selftest.c - `crashsim selftest`: is the simulator itself right, here and now?
 *
 *     model    the disk of disk.h against a plain model of sectors: random histories, cut any way;
 *              what is left of each sector is what was durable or one of the open changes behind it
 *     forgets  the same with a flush that is not passed on: the model must notice
 *     bug      a store that syncs nothing (LMDB's): the runner must find it
 *     sound    the same one as it is: the runner must find nothing
 *     memory   nbdkit's plain memory disk, which never fails: the oracle must find nothing
 *
 * A check that could not be made has found nothing out; one that was interrupted is not told of.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "campaign.h"
#include "cmd/cmd.h"
#include "disk.h"
#include "random.h"

#define SECTOR    512u
#define SECTORS   64u
#define HISTORIES 400
#define CHANGES   40
#define STATES    400 /* at most, until the bug is found */
#define SPEED_S   10

static bool selftest_json, selftest_speed;
static uint64_t selftest_seed = CMD_SEED_NONE;
static const char *selftest_tmp;
static struct json_object *selftest_list;
static bool selftest_failed, selftest_unknown;

/* --- the disk and the plain model --- */

struct model {
    uint8_t base[SECTORS * SECTOR]; /* below the disk */
    /* By sector: the number of the change that is durable, and of those that are open. */
    unsigned durable[SECTORS], open[SECTORS][CHANGES], open_count[SECTORS];
    uint64_t seed;
    bool forgets;
};

static int
model_pread(void *opaque, void *buf, uint32_t count, uint64_t offset)
{
    memcpy(buf, ((struct model *)opaque)->base + offset, count);
    return 0;
}

static int
model_pwrite(void *opaque, const void *buf, uint32_t count, uint64_t offset)
{
    memcpy(((struct model *)opaque)->base + offset, buf, count);
    return 0;
}

static int
model_zero(void *opaque, uint32_t count, uint64_t offset, bool trim)
{
    (void)trim;
    memset(((struct model *)opaque)->base + offset, 0, count);
    return 0;
}

static unsigned
model_random(struct model *m, unsigned n)
{
    return (unsigned)(crashsim_random(&m->seed) % n);
}

/* Everything is durable: of a sector the last one of those that were open. */
static void
model_flush(struct model *m)
{
    for (unsigned s = 0; s < SECTORS; s++) {
        if (m->open_count[s] > 0)
            m->durable[s] = m->open[s][m->open_count[s] - 1];
        m->open_count[s] = 0;
    }
}

/* Change NUMBER writes its number, or zeros if it is even, into some sectors. */
static int
model_change(struct model *m, struct crashsim_disk *d, unsigned number)
{
    static uint8_t data[SECTORS * SECTOR];
    unsigned first = model_random(m, SECTORS), left = SECTORS - first;
    unsigned count = 1 + model_random(m, left < 8 ? left : 8);
    struct crashsim_write w = {.kind = number % 2 != 0 ? CRASHSIM_WRITE : CRASHSIM_ZERO,
                               .fua = model_random(m, 8) == 0,
                               .offset = (uint64_t)first * SECTOR,
                               .count = count * SECTOR,
                               .data = number % 2 != 0 ? data : NULL};
    uint64_t id, seq;
    int r;

    memset(data, (int)number, w.count);
    r = crashsim_disk_submit(d, &w, &id);
    if (r == 0)
        r = crashsim_disk_complete(d, id, &seq);
    for (unsigned s = first; s < first + count; s++) {
        if (w.fua) {
            m->durable[s] = number;
            m->open_count[s] = 0;
        } else {
            m->open[s][m->open_count[s]++] = number;
        }
    }
    return r;
}

static bool
model_is_legal(const struct model *m, unsigned s)
{
    const uint8_t *bytes = m->base + (size_t)s * SECTOR;
    unsigned value = bytes[0];

    for (unsigned i = 1; i < SECTOR; i++) {
        if (bytes[i] != value)
            return false;
    }
    if (value == (m->durable[s] % 2 != 0 ? m->durable[s] : 0))
        return true;
    for (unsigned i = 0; i < m->open_count[s]; i++) {
        if (value == (m->open[s][i] % 2 != 0 ? m->open[s][i] : 0))
            return true;
    }
    return false;
}

/* A history and its cut: 1: legal, 0: not, or a negative errno. */
static int
model_history(uint64_t seed, bool forgets)
{
    static struct model m;
    struct crashsim_base base = {
        .opaque = &m, .pread = model_pread, .pwrite = model_pwrite, .zero = model_zero};
    struct crashsim_choice choice = {.seed = seed};
    struct crashsim_disk *d = NULL;
    struct crashsim_cut cut;
    uint64_t bound;
    int r;

    memset(&m, 0, sizeof(m));
    m.seed = seed;
    m.forgets = forgets;
    r = crashsim_disk_new(&base, sizeof(m.base), sizeof(m.base) * 64, seed, &d);
    for (unsigned i = 1; r == 0 && i <= CHANGES; i++) {
        r = model_change(&m, d, i);
        if (r == 0 && model_random(&m, 6) == 0) {
            r = crashsim_disk_flush_begin(d, &bound);
            if (r == 0 && !(forgets && model_random(&m, 2) == 0))
                r = crashsim_disk_flush(d, bound);
            model_flush(&m);
        }
    }
    choice.survive = (enum crashsim_survive)model_random(&m, CRASHSIM_SUBSET);
    choice.tear = model_random(&m, 2) == 0 ? CRASHSIM_TEAR_NONE : CRASHSIM_TEAR_512;
    if (r == 0)
        r = crashsim_disk_cut(d, &choice, &cut);
    if (d != NULL)
        crashsim_disk_free(d);
    for (unsigned s = 0; r == 0 && s < SECTORS; s++) {
        if (!model_is_legal(&m, s))
            return 0;
    }
    return r < 0 ? r : 1;
}

/* --- telling --- */

enum selftest_result {
    SELFTEST_BAD,
    SELFTEST_GOOD,
    SELFTEST_CANNOT
};

static void
selftest_tell(const char *name, enum selftest_result result, const char *text)
{
    static const char *const words[] = {"FAILED", "good", "cannot:"};

    if (cmd_interrupted())
        return;
    selftest_failed = selftest_failed || result == SELFTEST_BAD;
    selftest_unknown = selftest_unknown || result == SELFTEST_CANNOT;
    if (selftest_json) {
        struct json_object *o = json_object_new_object();

        cmd_json_text(o, "check", name);
        (void)json_object_object_add(o, "good", json_object_new_boolean(result == SELFTEST_GOOD));
        if (result == SELFTEST_CANNOT)
            (void)json_object_object_add(o, "cannot", json_object_new_boolean(true));
        cmd_json_text(o, "text", text);
        (void)json_object_array_add(selftest_list, o);
        return;
    }
    (void)printf("%-8s %-6s %s\n", name, words[result], text);
    (void)fflush(stdout);
}

/* It came to nothing, R: because of WHY. */
static void
selftest_cannot(const struct place *place, const char *name, int r, const char *why)
{
    selftest_tell(name, SELFTEST_CANNOT,
                  r == -ENOSPC || place_is_full(place) ? "the folder is full" : why);
}

static void
selftest_model(bool forgets)
{
    unsigned bad = 0;
    char text[120];
    int r = 1;

    for (unsigned i = 0; i < HISTORIES && r >= 0; i++) {
        r = model_history(crashsim_hash2(selftest_seed, i), forgets);
        bad += r == 0;
    }
    if (r < 0)
        (void)snprintf(text, sizeof(text), "the disk failed: %s", strerrordesc_np(-r));
    else
        (void)snprintf(text, sizeof(text), "%u of %d histories%s leave an illegal disk", bad,
                       HISTORIES, forgets ? " with forgotten flushes" : "");
    selftest_tell(forgets ? "forgets" : "model",
                  r >= 0 && (bad > 0) == forgets ? SELFTEST_GOOD : SELFTEST_BAD, text);
}

/* --- the runner --- */

static bool
selftest_stop(void)
{
    return cmd_interrupted();
}

static int
selftest_run(const struct place *place, struct campaign *c, const char *engine,
             struct campaign_stats *stats, struct kvfs_error *err)
{
    const struct kvfs_engine *e;
    int r = kvfs_engine_find(engine, &e, err);

    if (r < 0)
        return r;
    c->place = c->subject.place = place;
    c->subject.engine = engine;
    c->subject.caps = e->caps;
    c->seed = selftest_seed;
    c->judge_ms = STATE_JUDGE_MS;
    c->disk_bytes = (uint64_t)256 << 20;
    c->slots = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    c->stop = selftest_stop;
    return campaign_run(c, stats, err);
}

/* BUG: NULL, or what makes the engine forget: then that must be found. */
static void
selftest_runner(const struct place *place, const char *bug)
{
    struct campaign c = {.scenario = &scenario_kvfs,
                         .subject.engine_params = bug,
                         .trace = true,
                         .first = true,
                         .states_max = bug != NULL ? STATES : STATES / 10};
    struct campaign_stats stats = {0};
    struct kvfs_error err = {0};
    char text[600];
    const char *name = bug != NULL ? "bug" : "sound";
    int r = selftest_run(place, &c, "lmdb", &stats, &err);

    if (r < 0 || stats.troubles > 0) {
        selftest_cannot(place, name, r, r < 0 ? err.msg : stats.trouble);
        return;
    }
    if (stats.violations == 0)
        (void)snprintf(text, sizeof(text), "lmdb%s%s: no violation in %llu states",
                       bug != NULL ? ", " : "", bug != NULL ? bug : "",
                       (unsigned long long)stats.states);
    else
        (void)snprintf(text, sizeof(text), "lmdb%s%s: found with %llu states: %.300s",
                       bug != NULL ? ", " : "", bug != NULL ? bug : "",
                       (unsigned long long)stats.states, stats.first);
    selftest_tell(name, (stats.violations > 0) == (bug != NULL) ? SELFTEST_GOOD : SELFTEST_BAD, text);
}

/* States a second of one way, with this machine as busy as it is. */
static void
selftest_way(const struct place *place, bool trace)
{
    struct campaign c = {.scenario = &scenario_kvfs,
                         .trace = trace,
                         .states_max = UINT64_MAX,
                         .end_ns = journal_now() + SPEED_S * UINT64_C(1000000000)};
    struct campaign_stats stats = {0};
    struct kvfs_error err = {0};
    const char *name = trace ? "traced" : "mounted";
    char text[300];
    int r = selftest_run(place, &c, "lmdb", &stats, &err);
    double seconds = (double)stats.states_ns / 1e9;

    if (r < 0 || stats.troubles > 0) {
        selftest_cannot(place, name, r, r < 0 ? err.msg : stats.trouble);
        return;
    }
    (void)snprintf(text, sizeof(text), "%.0f states a second (%d wanted), %.0f with other bytes",
                   seconds > 0 ? (double)(stats.states - stats.live) / seconds : 0, trace ? 50 : 20,
                   seconds > 0 ? (double)stats.distinct / seconds : 0);
    selftest_tell(name, stats.violations == 0 ? SELFTEST_GOOD : SELFTEST_BAD, text);
}

static int
selftest_all(struct place *place)
{
    selftest_model(false);
    selftest_model(true);
    if (!cmd_interrupted())
        selftest_runner(place, "unsafe-nosync=1");
    if (!cmd_interrupted())
        selftest_runner(place, NULL);
#ifdef CRASHSIM_LIBNBD
    if (!cmd_interrupted()) {
        struct kvfs_error err = {0};
        char text[400] = "";
        int r = scenario_nbd_memory(place, selftest_seed, text, sizeof(text), &err);

        if (r < 0)
            selftest_cannot(place, "memory", r, err.msg);
        else
            selftest_tell("memory", text[0] == '\0' ? SELFTEST_GOOD : SELFTEST_BAD,
                          text[0] != '\0' ? text : "a plain memory disk fails no oracle");
    }
#endif
    if (selftest_speed && !cmd_interrupted())
        selftest_way(place, true);
    if (selftest_speed && !cmd_interrupted()) {
        if (geteuid() == 0)
            selftest_way(place, false);
        else
            cmd_say("the speed of mounted states needs root");
    }
    return selftest_failed ? CMD_VIOLATIONS : selftest_unknown ? CMD_USAGE : CMD_OK;
}

static int
selftest_main(int argc, char **argv)
{
    struct kvfs_error err = {0};
    struct place place;
    int status;

    (void)argc;
    (void)argv;
    cmd_seed(&selftest_seed);
    if (place_make(&place, selftest_tmp, &err) < 0)
        return cmd_error("%s", err.msg);
    cmd_signals_catch();
    selftest_list = json_object_new_array();
    if (!selftest_json)
        (void)printf("seed %llu\n", (unsigned long long)selftest_seed);
    status = selftest_all(&place);
    place_remove(&place);
    if (selftest_json) {
        struct json_object *o = json_object_new_object();

        cmd_json_u64(o, "seed", selftest_seed);
        (void)json_object_object_add(o, "good", json_object_new_boolean(status == CMD_OK && !cmd_interrupted()));
        (void)json_object_object_add(o, "checks", selftest_list);
        cmd_json_print_take(o);
    } else {
        (void)json_object_put(selftest_list);
    }
    return status;
}

static const struct cmd_option selftest_options[] = {
    {"speed", CMD_SWITCH, 0, NULL, "also how many states a second, traced and mounted (root)",
     &selftest_speed},
    {"seed", CMD_NUMBER, 0, "N", "of all choices (random)", &selftest_seed},
    {"tmp", CMD_TEXT, 0, "FOLDER", "for the files (/dev/shm)", &selftest_tmp},
    {"json", CMD_SWITCH, 0, NULL, "print JSON", &selftest_json},
    {NULL, CMD_SWITCH, 0, NULL, NULL, NULL},
};

const struct cmd cmd_selftest = {
    .name = "selftest",
    .synopsis = "",
    .summary = "Check the simulator itself",
    .details = "Without root, in seconds.  A line each, exit status 1 if one of them failed, 2 if\n"
               "one could not be made.\n",
    .options = selftest_options,
    .run = selftest_main,
};
