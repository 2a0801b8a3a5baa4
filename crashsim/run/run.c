/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run.c - `crashsim run`: a scenario over one engine or all of them.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "again.h"
#include "campaign.h"
#include "cmd/cmd.h"
#include "tool.h"

#define RUN_ENGINES_MAX 32
#define PROMISES        (KVFS_CAP_DURABLE | KVFS_CAP_ORDERED)
#define RUN_STATES      200
#define RUN_UNSET       UINT64_MAX
#define RUN_JOBS_MAX    256
#define RUN_SECONDS_MAX 31536000
#define RUN_NAMES       160 /* of all scenarios, with commas between */
#define RUN_DISK        ((uint64_t)256 << 20)

static const char *run_engines, *run_params, *run_findings = "crashsim-findings", *run_replay,
                                             *run_state, *run_tmp, *run_way, *run_promised;
static uint64_t run_states = RUN_UNSET, run_seconds = RUN_UNSET, run_seed = CMD_SEED_NONE,
                run_jobs = RUN_UNSET,
                run_judge_ms = STATE_JUDGE_MS, run_shrink = 200;
static bool run_json, run_quiet, run_first, run_plain, run_engines_only;
static struct cmd_progress run_progress;
static struct json_object *run_list;

static const struct {
    const char *name;
    const struct scenario *scenario;
    bool twice, mounts; /* mounts: it mounts something itself, so it needs root either way */
} run_scenarios[] = {
    {"kvfs", &scenario_kvfs, false, false},
#ifdef CRASHSIM_LIBNBD
    {"nbd", &scenario_nbd, false, false},
#endif
#ifdef CRASHSIM_SQLITE
    {"sqlite", &scenario_sqlite, false, false},
#endif
    {"guest", &scenario_guest, false, true},
    {"recovery-of-recovery", &scenario_kvfs, true, false},
};
#define RUN_SCENARIOS (sizeof(run_scenarios) / sizeof(run_scenarios[0]))

/* --- engines --- */

/* All that keep a store: each, behind a log, and one pair. */
static size_t
run_all_engines(char names[RUN_ENGINES_MAX][96])
{
    const struct kvfs_engine *e, *lmdb, *rocksdb;
    size_t n = 0, plain;

    for (size_t i = 0; (e = kvfs_engine_at(i)) != NULL && n < RUN_ENGINES_MAX / 2 - 1; i++) {
        if ((e->caps & KVFS_CAP_PERSISTENT) != 0 && strchr(e->name, ':') == NULL &&
            strcmp(e->name, "log") != 0 && strcmp(e->name, "hybrid") != 0)
            (void)snprintf(names[n++], 96, "%s", e->name);
    }
    if (kvfs_engine_find("lmdb", &lmdb, NULL) == 0 &&
        kvfs_engine_find("rocksdb", &rocksdb, NULL) == 0)
        (void)snprintf(names[n++], 96, "hybrid:lmdb+rocksdb");
    plain = n;
    for (size_t i = 0; i < plain; i++, n++) {
        char name[96];

        memcpy(name, names[i], sizeof(name));
        (void)snprintf(names[n], 96, "log:%.90s", name);
    }
    return n;
}

static size_t
run_list_engines(char names[RUN_ENGINES_MAX][96])
{
    const char *p = run_engines;
    size_t n = 0;

    if (p == NULL)
        p = "log:lmdb";
    if (strcmp(p, "all") == 0)
        return run_all_engines(names);
    while (n < RUN_ENGINES_MAX && *p != '\0') {
        size_t len = strcspn(p, ",");

        (void)snprintf(names[n++], 96, "%.*s", (int)len, p);
        p += len + (p[len] == ',');
    }
    return n;
}

/* What --promise says; 0: none, or a word that is not known. */
static uint32_t
run_promised_caps(void)
{
    return strcmp(run_promised, "durable") == 0   ? PROMISES
           : strcmp(run_promised, "ordered") == 0 ? KVFS_CAP_ORDERED
                                                  : 0;
}

static const char *
run_promise(uint32_t caps)
{
    return (caps & KVFS_CAP_DURABLE) != 0   ? "durable"
           : (caps & KVFS_CAP_ORDERED) != 0 ? "ordered"
                                            : "none";
}

/* --- telling --- */

static void
run_tell(const struct campaign *c, const struct campaign_stats *s)
{
    cmd_progress_show(&run_progress, "%s over %s: %llu of %llu states, %llu cuts, %llu violations",
                      c->twice ? "recovery-of-recovery" : c->scenario->name, c->subject.engine, (unsigned long long)s->states,
                      (unsigned long long)c->states_max, (unsigned long long)s->cuts,
                      (unsigned long long)s->violations);
}

static double
run_ms(uint64_t ns, uint64_t n)
{
    return n == 0 ? 0 : (double)ns / (double)n / 1e6;
}

static void
run_print_shrunk(const struct shrunk *s)
{
    if (!s->repeated) {
        (void)printf("    judged once more the same state was good: it is kept as it was found\n");
        return;
    }
    (void)printf("    shrunk with %llu judgings of %zu open changes to %s, which %s only:\n",
                 (unsigned long long)s->judgings, s->open, s->state,
                 s->kept ? "keeps" : "drops");
    for (size_t i = 0; i < s->changes_count; i++)
        (void)printf("      %s\n", s->changes[i]);
    (void)printf("%s%s", s->more ? "      ...\n" : "",
                 s->changes_count == 0 ? "      nothing\n" : "");
}

/* What makes the same choices once more, for a shell; into TEXT, returned. */
static const char *
run_command(const struct campaign *c, char *text, size_t cap)
{
    FILE *out = fmemopen(text, cap, "w");

    *text = '\0';
    if (out == NULL)
        return text;
    (void)fprintf(out, "crashsim run %s --way=%s --engine=%s --seed=%llu%s",
                  c->twice ? "recovery-of-recovery" : c->scenario->name, c->trace ? "trace" : "disk",
                  c->subject.engine, (unsigned long long)c->seed, c->plain ? " --plain" : "");
    if (c->promise != NULL)
        (void)fprintf(out, " --promise=%s", c->promise);
    if (c->subject.engine_params != NULL) {
        (void)fputs(" --engine-params=", out);
        cmd_quote(out, c->subject.engine_params);
    }
    if (c->states_max != UINT64_MAX)
        (void)fprintf(out, " --states=%llu", (unsigned long long)c->states_max);
    (void)fclose(out);
    text[cap - 1] = '\0';
    return text;
}

static void
run_print(const struct campaign *c, const struct campaign_stats *s)
{
    double seconds = (double)s->states_ns / 1e9;
    const char *promise = run_promise(c->subject.caps);

    cmd_progress_end(&run_progress);
    (void)printf(
        "%-24s %-7s %6llu states %6llu distinct %5llu cuts (%llu live) %6.1f states/s  %llu %s\n",
        c->subject.engine, promise, (unsigned long long)s->states, (unsigned long long)s->distinct,
        (unsigned long long)s->cuts, (unsigned long long)s->live,
        seconds > 0 ? (double)(s->states - s->live) / seconds : 0,
        (unsigned long long)s->violations,
        strcmp(promise, "none") == 0 ? "beyond what it promises" : "violations");
    if (s->first[0] != '\0')
        (void)printf("    %s\n", s->first);
    if (s->shrunk != NULL)
        run_print_shrunk(s->shrunk);
    for (unsigned i = 0; i < s->kept; i++)
        (void)printf("    %s\n", s->commands[i]);
    if (s->violations > 0 && s->kept == 0) {
        char command[FINDING_COMMAND_MAX];

        (void)printf("    not kept; the same choices: %s\n", run_command(c, command, sizeof(command)));
    }
    (void)fflush(stdout);
}

static void
run_json_shrunk(struct json_object *o, const struct shrunk *s)
{
    struct json_object *shrunk = json_object_new_object(), *changes = json_object_new_array();

    (void)json_object_object_add(shrunk, "repeated", json_object_new_boolean(s->repeated));
    cmd_json_text(shrunk, "state", s->state);
    cmd_json_u64(shrunk, "judgings", s->judgings);
    cmd_json_u64(shrunk, "open", s->open);
    for (size_t i = 0; i < s->changes_count; i++)
        (void)json_object_array_add(changes, json_object_new_string(s->changes[i]));
    (void)json_object_object_add(shrunk, s->kept ? "kept" : "dropped", changes);
    (void)json_object_object_add(o, "shrunk", shrunk);
}

static void
run_json_commands(struct json_object *o, const struct campaign *c, const struct campaign_stats *s)
{
    struct json_object *commands = json_object_new_array();
    char command[FINDING_COMMAND_MAX];

    for (unsigned i = 0; i < s->kept; i++)
        (void)json_object_array_add(commands, json_object_new_string(s->commands[i]));
    cmd_json_text(o, "command", s->kept > 0 ? s->commands[0] : run_command(c, command, sizeof(command)));
    (void)json_object_object_add(o, "commands", commands);
    if (s->kept == 0)
        (void)json_object_object_add(o, "kept", json_object_new_boolean(false));
}

static void
run_json_add(const struct campaign *c, const struct campaign_stats *s, uint64_t seed)
{
    struct json_object *o = json_object_new_object(), *kinds = json_object_new_object();
    struct json_object *seen = json_object_new_object();
    struct json_object *ms = json_object_new_object();

    cmd_json_text(o, "scenario", c->twice ? "recovery-of-recovery" : c->scenario->name);
    cmd_json_text(o, "way", c->trace ? "trace" : "disk");
    cmd_json_text(o, "engine", c->subject.engine);
    cmd_json_text(o, "promise", run_promise(c->subject.caps));
    cmd_json_u64(o, "seed", seed);
    cmd_json_u64(o, "rounds", s->rounds);
    cmd_json_u64(o, "cuts", s->cuts);
    cmd_json_u64(o, "live_cuts", s->live);
    cmd_json_u64(o, "states", s->states);
    cmd_json_u64(o, "distinct", s->distinct);
    cmd_json_u64(o, "duplicates", s->duplicates);
    cmd_json_u64(o, "violations", s->violations);
    cmd_json_u64(o, "not_judged", s->troubles);
    cmd_json_u64(o, "judged_again", s->late);
    cmd_json_u64(o, "undecided", s->undecided);
    cmd_json_u64(o, "file_systems_repaired", s->repaired);
    cmd_json_u64(o, "operations", s->operations);
    cmd_json_u64(o, "acknowledged", s->acknowledged);
    cmd_json_u64(o, "events", s->events);
    cmd_json_u64(seen, "commits", s->seen.commits);
    cmd_json_u64(seen, "commits_durable", s->seen.commits_durable);
    cmd_json_u64(seen, "cache_half_full", s->seen.full);
    cmd_json_u64(seen, "commits_of_pressure", s->seen.pressure);
    cmd_json_u64(seen, "fork_deleting", s->seen.deleting);
    cmd_json_u64(seen, "holes_pending", s->seen.holes);
    cmd_json_u64(seen, "store_growth_bytes", s->seen.growth);
    cmd_json_u64(seen, "log_folds", s->seen.folds);
    cmd_json_u64(seen, "log_wraps", s->seen.wraps);
    if (c->twice) {
        struct json_object *second = json_object_new_object();

        for (int i = 0; i < RECOVERY_PHASES; i++)
            cmd_json_u64(second, journal_phase_names[i], s->second[i]);
        cmd_json_u64(second, "orphans", s->second_orphans);
        cmd_json_u64(second, "folds", s->second_folds);
        (void)json_object_object_add(o, "second_cuts", second);
    }
    (void)json_object_object_add(o, "passed_through", seen);
    for (int i = 0; i < CAMPAIGN_KINDS; i++)
        cmd_json_u64(kinds, campaign_kind_names[i], s->kinds[i]);
    (void)json_object_object_add(o, "kinds", kinds);
    (void)json_object_object_add(
        o, "states_per_second",
        json_object_new_double(
            s->states_ns == 0 ? 0 : (double)(s->states - s->live) / ((double)s->states_ns / 1e9)));
    (void)json_object_object_add(ms, "build",
                                 json_object_new_double(run_ms(s->build_ns, s->states)));
    (void)json_object_object_add(ms, "mount",
                                 json_object_new_double(run_ms(s->mount_ns, s->states)));
    (void)json_object_object_add(ms, "open", json_object_new_double(run_ms(s->open_ns, s->states)));
    (void)json_object_object_add(ms, "judge",
                                 json_object_new_double(run_ms(s->judge_ns, s->states)));
    (void)json_object_object_add(ms, "check",
                                 json_object_new_double(run_ms(s->check_ns, s->states)));
    (void)json_object_object_add(ms, "unmount",
                                 json_object_new_double(run_ms(s->umount_ns, s->states)));
    (void)json_object_object_add(ms, "round",
                                 json_object_new_double(run_ms(s->work_ns, s->rounds)));
    (void)json_object_object_add(o, "milliseconds", ms);
    if (s->first[0] != '\0')
        cmd_json_text(o, "first", s->first);
    if (s->shrunk != NULL)
        run_json_shrunk(o, s->shrunk);
    if (s->violations > 0)
        run_json_commands(o, c, s);
    (void)json_object_array_add(run_list, o);
}

/* --- running --- */

static bool
run_stop(void)
{
    return cmd_interrupted();
}

static int
run_engine(struct campaign *c, const char *engine, unsigned share)
{
    const struct kvfs_engine *e;
    struct campaign_stats stats;
    struct kvfs_error err = {0};
    int r;

    if (kvfs_engine_find(engine, &e, &err) < 0)
        return cmd_error("%s", err.msg);
    c->subject.engine = engine;
    c->subject.caps = e->caps;
    if (run_promised != NULL) {
        c->subject.caps &= ~(uint32_t)PROMISES;
        c->subject.caps |= run_promised_caps();
    }
    c->end_ns =
        run_seconds == RUN_UNSET ? 0 : journal_now() + run_seconds * 1000000000u / share;
    r = campaign_run(c, &stats, &err);
    cmd_progress_end(&run_progress);
    if ((r == 0 || stats.violations > 0) && run_json) /* what was found before it failed is told, too */
        run_json_add(c, &stats, c->seed);
    else if (r == 0 || stats.violations > 0)
        run_print(c, &stats);
    shrunk_free(stats.shrunk);
    if (r < 0)
        r = cmd_error("%s: %s", engine, err.msg);
    if (stats.violations > 0 && (c->subject.caps & PROMISES) != 0)
        return CMD_VIOLATIONS;
    return r != 0               ? r
           : stats.troubles > 0 ? cmd_error("%s: %llu states could not be judged: %s", engine,
                                          (unsigned long long)stats.troubles, stats.trouble)
                              : CMD_OK;
}

static void
run_again_json(const struct verdict *v)
{
    struct json_object *o = json_object_new_object();

    cmd_json_text(o, "folder", run_replay);
    cmd_json_text(o, "verdict",
                  v->status == VERDICT_GOOD        ? "no violation"
                  : v->status == VERDICT_VIOLATION ? "violation"
                                                   : "not judged");
    if (v->status != VERDICT_GOOD)
        cmd_json_text(o, "found", v->text);
    cmd_json_print_take(o);
}

static int
run_again(struct campaign *c)
{
    static const char *const fsck[] = {"e2fsck", NULL};
    char scenario[32], engine[96];
    const struct kvfs_engine *e;
    struct kvfs_error err = {0};
    struct verdict v = {0};
    bool trace = false;
    int r = again_of(run_replay, scenario, engine, &trace, &err);

    if (r == 0 && !trace && geteuid() != 0) {
        (void)cmd_error("%s is of a disk: mounting it needs root", run_replay);
        return CMD_NEEDS_ROOT;
    }

    for (size_t i = 0; r == 0 && i < RUN_SCENARIOS; i++) {
        if (strcmp(run_scenarios[i].scenario->name, scenario) == 0)
            c->scenario = run_scenarios[i].scenario;
    }
    if (r == 0 && c->scenario == NULL)
        return cmd_error("%s: a scenario that is not known: %s", run_replay, scenario);
    if (r == 0)
        r = kvfs_engine_find(engine, &e, &err);
    if (r == 0 && !trace)
        r = tool_look(fsck, &err);
    if (r == 0) {
        c->subject.engine = engine;
        c->subject.caps = run_promised != NULL ? run_promised_caps()
                          : (e->caps & PROMISES) != 0 ? e->caps
                                                      : PROMISES; /* as it was found */
        r = again_judge(c, run_replay, run_state, &v, &err);
    }
    if (r < 0)
        return cmd_error("%s", err.msg);
    if (run_json)
        run_again_json(&v);
    else if (v.status == VERDICT_GOOD || v.status == VERDICT_VIOLATION)
        (void)printf("%s\n", v.status == VERDICT_GOOD ? "no violation" : v.text);
    else
        (void)cmd_error("%s", v.text);
    if (v.status == VERDICT_VIOLATION && (c->subject.caps & PROMISES) == 0)
        return CMD_OK;
    return v.status == VERDICT_GOOD        ? CMD_OK
           : v.status == VERDICT_VIOLATION ? CMD_VIOLATIONS
                                           : CMD_USAGE;
}

/* A violation says more than a state that could not be judged. */
static int
run_worse(int a, int b)
{
    return a == CMD_VIOLATIONS || b == CMD_VIOLATIONS ? CMD_VIOLATIONS : a > b ? a : b;
}

static bool
run_is_possible(const struct campaign *c, size_t scenario)
{
    return geteuid() == 0 || (c->trace && !run_scenarios[scenario].mounts);
}

/* C becomes of SCENARIO.  true: something is missing for it. */
static bool
run_lacks(struct campaign *c, size_t scenario, struct kvfs_error *err)
{
    c->scenario = run_scenarios[scenario].scenario;
    c->twice = run_scenarios[scenario].twice;
    return campaign_check(c, err) < 0;
}

static void
run_add_name(char names[RUN_NAMES], size_t scenario)
{
    size_t len = strlen(names);

    (void)snprintf(names + len, RUN_NAMES - len, "%s%s", len > 0 ? ", " : "",
                   run_scenarios[scenario].name);
}

/* One line for all that lack the same as SCENARIO; the first of them prints it. */
static int
run_say_lacking(struct campaign *c, size_t scenario, bool all, const char *what)
{
    char names[RUN_NAMES] = "";

    for (size_t i = all ? 0 : scenario; i < (all ? RUN_SCENARIOS : scenario + 1); i++) {
        struct kvfs_error err = {0};

        if (!run_is_possible(c, i) || !run_lacks(c, i, &err) || strcmp(err.msg, what) != 0)
            continue;
        if (i < scenario)
            return CMD_USAGE;
        run_add_name(names, i);
    }
    return cmd_error("%s: %s", names, what);
}

static int
run_scenario(struct campaign *c, size_t scenario, bool all, unsigned share)
{
    static char names[RUN_ENGINES_MAX][96];
    size_t count = run_list_engines(names);
    struct kvfs_error err = {0};
    int status = CMD_OK;

    if (run_lacks(c, scenario, &err))
        return run_say_lacking(c, scenario, all, err.msg);
    if (!run_json)
        (void)printf("%s%s, seed %llu\n", run_scenarios[scenario].name,
                     c->trace ? ", files rebuilt from a trace" : "", (unsigned long long)c->seed);
    for (size_t i = 0; i < count && !cmd_interrupted(); i++)
        status = run_worse(status, run_engine(c, names[i], (unsigned)count * share));
    return status;
}

/* One, or "all".  Those that need root are named and left out; 77: there are no others. */
static int
run_scenarios_of(struct campaign *c, const char *name)
{
    bool all = strcmp(name, "all") == 0, several = false;
    char names[RUN_NAMES] = ""; /* that need root */
    struct kvfs_error err = {0};
    int status = CMD_NEEDS_ROOT;
    unsigned share = 0;

    for (size_t i = 0; i < RUN_SCENARIOS; i++)
        share += (all || strcmp(run_scenarios[i].name, name) == 0) && run_is_possible(c, i);
    if (share > 0 && c->findings != NULL && !c->plain && finding_look(c->findings, &err) < 0)
        return cmd_error("--findings: %s", err.msg);
    for (size_t i = 0; i < RUN_SCENARIOS && !cmd_interrupted(); i++) {
        if (!all && strcmp(run_scenarios[i].name, name) != 0)
            continue;
        if (run_is_possible(c, i)) {
            int one = run_scenario(c, i, all, share);

            status = status == CMD_NEEDS_ROOT ? one : run_worse(status, one);
        } else {
            several = names[0] != '\0';
            run_add_name(names, i);
        }
    }
    if (names[0] != '\0')
        (void)cmd_error(several ? "%s need root: they mount file systems"
                                : "%s needs root: it mounts file systems", names);
    return status;
}

static bool
run_is_scenario(const char *name)
{
    for (size_t i = 0; i < RUN_SCENARIOS; i++) {
        if (name != NULL && strcmp(run_scenarios[i].name, name) == 0)
            return true;
    }
    return name != NULL && strcmp(name, "all") == 0;
}

static int
run_print_engines(void)
{
    static char names[RUN_ENGINES_MAX][96];
    size_t n = run_all_engines(names);
    const struct kvfs_engine *e;

    run_list = json_object_new_array();
    for (size_t i = 0; i < n; i++) {
        struct json_object *o;

        if (kvfs_engine_find(names[i], &e, NULL) < 0)
            continue;
        if (!run_json) {
            (void)printf("%s %s\n", names[i], run_promise(e->caps));
            continue;
        }
        o = json_object_new_object();
        cmd_json_text(o, "engine", names[i]);
        cmd_json_text(o, "promise", run_promise(e->caps));
        (void)json_object_array_add(run_list, o);
    }
    if (run_json)
        cmd_json_print_take(run_list);
    else
        (void)json_object_put(run_list);
    return CMD_OK;
}

/* Before the first of them is run. */
static bool
run_check_engines(void)
{
    static char names[RUN_ENGINES_MAX][96];
    size_t n = run_list_engines(names);

    for (size_t i = 0; i < n; i++) {
        const struct kvfs_engine *e;
        struct kvfs_error err = {0};

        if (kvfs_engine_find(names[i], &e, &err) < 0)
            return cmd_error("%s", err.msg) == CMD_OK;
        if ((e->caps & KVFS_CAP_PERSISTENT) == 0)
            return cmd_error("%s keeps nothing", names[i]) == CMD_OK;
    }
    return true;
}

static bool
run_check_numbers(void)
{
    if (run_states == 0)
        (void)cmd_error("--states takes a number from 1");
    else if (run_seconds == 0 || (run_seconds != RUN_UNSET && run_seconds > RUN_SECONDS_MAX))
        (void)cmd_error("--seconds takes a number from 1 to %d", RUN_SECONDS_MAX);
    else if (run_jobs == 0 || (run_jobs != RUN_UNSET && run_jobs > RUN_JOBS_MAX))
        (void)cmd_error("--jobs takes a number from 1 to %d", RUN_JOBS_MAX);
    else if (run_judge_ms == 0)
        (void)cmd_error("--judge-ms takes a number from 1");
    else
        return true;
    return false;
}

/* A kept violation has its scenario, engine, seed and way. */
static bool
run_check_replay(int argc)
{
    if (run_replay == NULL && run_state != NULL)
        (void)cmd_error("--state is a state of a kept violation: --replay=FOLDER is missing");
    else if (run_replay != NULL &&
             (argc > 0 || run_engines != NULL || run_seed != CMD_SEED_NONE || run_way != NULL || run_plain ||
              run_states != RUN_UNSET || run_seconds != RUN_UNSET))
        (void)cmd_error("--replay judges what was kept: it takes no scenario, engine, seed, way, "
                        "states or seconds");
    else
        return true;
    return false;
}

static bool
run_check(const char *scenario)
{
    if (run_replay == NULL && !run_is_scenario(scenario))
        (void)cmd_error("unknown scenario: %s; try 'crashsim run --help'", scenario);
    else if (run_way != NULL && strcmp(run_way, "disk") != 0 && strcmp(run_way, "trace") != 0)
        (void)cmd_error("--way takes disk or trace, not %s", run_way);
    else if (run_promised != NULL && run_promised_caps() == 0 && strcmp(run_promised, "none") != 0)
        (void)cmd_error("--promise takes durable, ordered or none, not %s", run_promised);
    else
        return true;
    return false;
}

static int
run_run(int argc, char **argv)
{
    struct campaign c = {0};
    struct kvfs_error err = {0};
    struct place place;
    int status;

    if (run_engines_only)
        return run_print_engines();
    if (run_replay == NULL && argc == 0)
        return cmd_error("which scenario? try 'crashsim run --help'");
    if (!run_check_replay(argc) || !run_check(argc > 0 ? argv[0] : NULL) || !run_check_numbers() ||
        !run_check_engines())
        return CMD_USAGE;
    c.trace = run_way != NULL ? strcmp(run_way, "trace") == 0 : geteuid() != 0;
    if (run_replay == NULL && !c.trace && geteuid() != 0)
        return run_scenarios_of(&c, argv[0]);
    if (run_replay == NULL && c.trace && run_way == NULL)
        cmd_say("without root there is no disk: files are rebuilt from a trace (--way=trace)");
    if (place_make(&place, run_tmp, &err) < 0)
        return cmd_error("%s", err.msg);
    cmd_signals_catch();
    cmd_progress_start(&run_progress, run_quiet);
    cmd_seed(&run_seed);
    run_list = json_object_new_array();
    c.place = &place;
    c.subject.place = &place;
    c.subject.engine_params = run_params;
    c.seed = run_seed;
    c.states_max = run_states != RUN_UNSET    ? run_states
                   : run_seconds != RUN_UNSET ? UINT64_MAX
                                              : RUN_STATES;
    c.disk_bytes = RUN_DISK;
    c.findings = run_findings;
    c.judge_ms = (unsigned)(run_judge_ms < UINT_MAX / 2 ? run_judge_ms : UINT_MAX / 2);
    c.slots =
        run_jobs != RUN_UNSET ? (unsigned)run_jobs : 2 * (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    c.first = run_first;
    c.shrink = run_shrink;
    c.promise = run_promised;
    c.plain = run_plain;
    c.stop = run_stop;
    c.tell = run_tell;
    status = run_replay != NULL ? run_again(&c) : run_scenarios_of(&c, argv[0]);
    cmd_progress_end(&run_progress);
    place_remove(&place);
    if (run_json && run_replay == NULL)
        cmd_json_print_take(run_list);
    else
        (void)json_object_put(run_list);
    return status;
}

static const struct cmd_option run_options[] = {
    {"engine", CMD_TEXT, 0, "NAME", "one or several with commas between, or all (log:lmdb)",
     &run_engines},
    {"list-engines", CMD_SWITCH, 0, NULL, "print what all means, and what each promises",
     &run_engines_only},
    {"states", CMD_NUMBER, 0, "N", "crash states to judge for each engine (200)", &run_states},
    {"seconds", CMD_NUMBER, 0, "N", "stop after so long, all engines together", &run_seconds},
    {"seed", CMD_NUMBER, 0, "N", "of all choices (random)", &run_seed},
    {"jobs", CMD_NUMBER, 0, "N", "states judged at once (twice as many as processors)", &run_jobs},
    {"findings", CMD_TEXT, 0, "FOLDER", "where violations are kept (crashsim-findings)",
     &run_findings},
    {"shrink", CMD_NUMBER, 0, "N",
     "make the first violation smaller by so many judgings and 60 s (200); 0: not at all",
     &run_shrink},
    {"replay", CMD_TEXT, 0, "FOLDER", "judge the state of a kept violation again", &run_replay},
    {"state", CMD_TEXT, 0, "STATE", "with --replay: another state of its recording (812,keep:3)", &run_state},
    {"promise", CMD_TEXT, 0, "PROMISE", "judge every engine as if it promised: durable, ordered, none",
     &run_promised},
    {"way", CMD_TEXT, 0, "WAY", "disk (of root), or trace: files rebuilt from system calls (others)",
     &run_way},
    {"first", CMD_SWITCH, 0, NULL, "stop at the first violation", &run_first},
    {"plain", CMD_SWITCH, 0, NULL, "no simulated disk and no cut: an end in order", &run_plain},
    {"judge-ms", CMD_NUMBER, 0, "N", "time for one judgement (60000); then it is made again, alone",
     &run_judge_ms},
    {"engine-params", CMD_TEXT, 0, "TEXT", "for the engine, as unsafe-nosync=1; for tests",
     &run_params},
    {"tmp", CMD_TEXT, 0, "FOLDER", "for the disks (/dev/shm)", &run_tmp},
    {"json", CMD_SWITCH, 0, NULL, "print JSON", &run_json},
    {"quiet", CMD_SWITCH, 'q', NULL, "no progress", &run_quiet},
    {NULL, CMD_SWITCH, 0, NULL, NULL, NULL},
};

const struct cmd cmd_run = {
    .name = "run",
    .synopsis = "[SCENARIO]",
    .summary = "Run a workload, cut the power, judge what is recovered",
    .details =
        "Scenarios:\n"
        "  kvfs                  creates, renames, unlinks, links, writes and sizes through "
        "libkvfs\n"
#ifdef CRASHSIM_LIBNBD
        "  nbd                   writes, zeros, trims, flushes and FUA on a served disk, from "
        "several\n"
        "                        connections\n"
#endif
#ifdef CRASHSIM_SQLITE
        "  sqlite                account transfers over three databases through the SQLite "
        "VFS\n"
#endif
        "  guest                 ext4 inside a disk of the volume; one cut takes both\n"
        "  recovery-of-recovery  as kvfs, and the power is cut again while recovering\n"
        "  all                   each of them\n"
        "Without root all but guest run, by --way=trace.\n",
    .options = run_options,
    .args_max = 1,
    .run = run_run,
};
