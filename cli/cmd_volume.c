/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmd_volume.c - kvfs format, compact, df, engines: volumes as a whole.
 */
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

/* --- format ------------------------------------------------------------------ */

static int
format_run(struct cli *c)
{
    struct kvfs_format_options options = {.engine = c->o.engine, .force = c->o.force};
    int rc = cli_size_block(c, &options.block_size_bytes);

    if (rc != CLI_OK)
        return rc;
    cli_signals_catch(); /* it ends soon: no half of a volume for a Ctrl-C */
    rc = cli_volume_judge(c, c->args[0], c->o.engine);
    if (rc == 0)
        rc = kvfs_format(c->args[0], &options, &c->err);
    return rc < 0 ? cli_fail(c, rc) : CLI_OK;
}

static const struct cli_option format_options[] = {
    CLI_VALUE(0, "engine", "NAME", engine, "engine of the volume; `kvfs engines` lists them"),
    CLI_VALUE(0, "block-size", "N", block_size,
              "block size of new files, 512 to 64K; default: what suits the engine"),
    CLI_SWITCH(0, "force", force,
               "replace the volume that is there, all of it; accept a network file system"),
    CLI_LAST,
};

const struct cli_command cli_format = {
    "format", "VOLUME", "make a volume in a folder", 
    "The folder is made if missing; its parent must exist.  After an error there is no\n"
    "volume, and what was there before is as it was.\n",
    format_options, 1, 1, format_run,
};

/* --- compact ----------------------------------------------------------------- */

struct compact {
    struct cli *c;
    uint64_t need_bytes;
    bool told;
    struct cli_progress progress;
};

/* Once, and only when it is known that the work begins. */
static void
compact_tell(struct compact *job)
{
    char text[CLI_SIZE_TEXT];

    if (job->told || job->c->o.json)
        return;
    job->told = true;
    cli_name_print(job->c->args[0], strlen(job->c->args[0]));
    (void)printf(": needs %s (%" PRIu64 " bytes) of free space meanwhile\n",
                 cli_size_text(job->need_bytes, text), job->need_bytes);
    (void)fflush(stdout);
}

static int
compact_progress(void *arg, uint64_t done, uint64_t total)
{
    struct compact *job = arg;

    compact_tell(job);
    return cli_progress_call(&job->progress, done, total);
}

static int
compact_run(struct cli *c)
{
    struct compact job = {.c = c};
    unsigned flags = (c->o.force ? KVFS_COMPACT_FORCE : 0) |
                     (c->o.dry_run ? KVFS_COMPACT_DRY_RUN : 0);
    int rc;

    cli_signals_catch();
    cli_progress_start(&job.progress, c, "compact", 0, true);
    rc = kvfs_volume_compact(c->args[0], flags, &job.need_bytes, compact_progress, &job, &c->err);
    cli_progress_end(&job.progress);
    if (rc < 0)
        return cli_fail(c, rc);
    compact_tell(&job);
    if (c->o.json) {
        struct json_object *obj = json_object_new_object();

        cli_json_u64(obj, "need_bytes", job.need_bytes);
        (void)json_object_object_add(obj, "compacted", json_object_new_boolean(!c->o.dry_run));
        cli_json_print_take(obj);
    }
    return CLI_OK;
}

static const struct cli_option compact_options[] = {
    CLI_SWITCH('n', "dry-run", dry_run, "only tell the free space that it needs"),
    CLI_NETWORK,
    CLI_JSON,
    CLI_QUIET,
    CLI_LAST,
};

const struct cli_command cli_compact = {
    "compact", "VOLUME", "rewrite a volume's store in its smallest form",
    "Tells first how much free space that takes.  Refused while anybody uses the volume.\n"
    "Crash-safe: at every instant the folder holds the old store or the new one.\n",
    compact_options, 1, 1, compact_run,
};

/* --- log --------------------------------------------------------------------- */

static int
log_show(struct cli *c)
{
    struct kvfs_volume_info info;
    struct kvfs_volume *v;
    int rc = cli_volume_open(c, c->args[0], true, &v);
    bool on;

    if (rc < 0)
        return cli_fail(c, rc);
    kvfs_volume_info(v, &info);
    on = strncmp(info.engine, "log:", 4) == 0;
    if (c->o.json) {
        struct json_object *obj = json_object_new_object();

        (void)json_object_object_add(obj, "log", json_object_new_boolean(on));
        cli_json_text(obj, "engine", info.engine);
        cli_json_print_take(obj);
    } else {
        (void)printf("%s\n", on ? "on" : "off");
    }
    (void)kvfs_volume_close(v, NULL); /* readonly: nothing to lose */
    return CLI_OK;
}

static int
log_run(struct cli *c)
{
    const char *word = c->args_count > 1 ? c->args[1] : NULL;
    int rc;

    if (word == NULL)
        return log_show(c);
    if (strcmp(word, "on") != 0 && strcmp(word, "off") != 0) {
        (void)cli_error(c, "'%.64s': on or off", word);
        return CLI_USAGE;
    }
    cli_signals_catch(); /* it is whole at every instant, but better is done */
    rc = kvfs_volume_log(c->args[0], strcmp(word, "on") == 0, c->o.force, &c->err);
    if (rc < 0)
        return cli_fail(c, rc);
    return c->o.json ? log_show(c) : CLI_OK;
}

static const struct cli_option log_options[] = {CLI_NETWORK, CLI_JSON, CLI_LAST};

const struct cli_command cli_log = {
    "log", "VOLUME [on|off]", "put an intent log before a volume's engine, or take it away",
    "With a log a durable commit costs one write and one flush.  Without on or off: says which.\n"
    "Refused while anybody uses the volume.\n",
    log_options, 1, 2, log_run,
};

/* --- df ---------------------------------------------------------------------- */

struct df_holders {
    struct json_object *json; /* NULL: print */
    uint64_t count;
};

static const char *
df_age(int64_t since_s, char *buf, size_t cap)
{
    int64_t s = (int64_t)time(NULL) - since_s;

    if (s < 0)
        s = 0;
    if (s < 120)
        (void)snprintf(buf, cap, "%" PRId64 " s", s);
    else if (s < 7200)
        (void)snprintf(buf, cap, "%" PRId64 " min", s / 60);
    else
        (void)snprintf(buf, cap, "%" PRId64 " h", s / 3600);
    return buf;
}

static int
df_holder(void *arg, const struct kvfs_holder *h)
{
    struct df_holders *list = arg;
    const char *kind = h->kind == KVFS_HOLDER_LEASE      ? "lease"
                       : h->kind == KVFS_HOLDER_SNAPSHOT ? "snapshot"
                                                         : "open";
    char age[32];

    if (h->pid == getpid())
        return 0; /* this very command */
    list->count++;
    if (list->json == NULL) {
        (void)printf("  %-9s process %" PRId64 " (", kind, h->pid);
        cli_name_print(h->command, strnlen(h->command, sizeof(h->command)));
        (void)printf(") for %s", df_age(h->since_s, age, sizeof(age)));
        if (h->ino != 0)
            (void)printf(", inode %" PRIu64, h->ino);
        (void)putchar('\n');
    } else {
        struct json_object *obj = json_object_new_object();

        cli_json_text(obj, "kind", kind);
        (void)json_object_object_add(obj, "pid", json_object_new_int64(h->pid));
        cli_json_name(obj, "command", h->command, strnlen(h->command, sizeof(h->command)));
        (void)json_object_object_add(obj, "since", json_object_new_int64(h->since_s));
        if (h->ino != 0)
            cli_json_u64(obj, "ino", h->ino);
        (void)json_object_array_add(list->json, obj);
    }
    return 0;
}

/* The figures, in the order shown. */
struct df_row {
    const char *key, *label;
    uint64_t value;
    bool bytes;
};

static void
df_print(const struct kvfs_volume_info *info, const struct df_row *rows, size_t count)
{
    bool logs = strncmp(info->engine, "log:", 4) == 0;
    char text[CLI_SIZE_TEXT];

    (void)printf("%-24s ", "volume");
    cli_name_print(info->path, strlen(info->path));
    (void)printf("\n%-24s %s\n%-24s %s, format %u%s\n%-24s %u bytes\n", "uuid", info->uuid, "engine", info->engine, info->format_version,
                 info->poisoned != 0 ? ", POISONED" : "", "block size of new files",
                 info->block_size_bytes);
    for (size_t i = 0; i < count; i++) {
        if (rows[i].value == 0 && strcmp(rows[i].key, "readers_pid") == 0)
            continue; /* nobody */
        if (!logs && strncmp(rows[i].key, "log_", 4) == 0)
            continue;
        (void)printf("%-24s %" PRIu64, rows[i].label, rows[i].value);
        if (rows[i].bytes)
            (void)printf(" bytes (%s)", cli_size_text(rows[i].value, text));
        (void)putchar('\n');
    }
}

static struct json_object *
df_json(const struct kvfs_volume_info *info, const struct df_row *rows, size_t count)
{
    struct json_object *obj = json_object_new_object();

    cli_json_name(obj, "volume", info->path, strlen(info->path));
    cli_json_text(obj, "uuid", info->uuid);
    cli_json_text(obj, "engine", info->engine);
    cli_json_u64(obj, "format_version", info->format_version);
    cli_json_u64(obj, "block_size_bytes", info->block_size_bytes);
    for (size_t i = 0; i < count; i++)
        cli_json_u64(obj, rows[i].key, rows[i].value);
    return obj;
}

static int
df_show(struct cli *c, struct kvfs_volume *v)
{
    struct kvfs_volume_info info;
    struct kvfs_volume_stat st;
    struct df_holders list = {NULL, 0};
    int rc = kvfs_volume_stat(v, &st, &c->err);

    if (rc < 0)
        return rc;
    kvfs_volume_info(v, &info);
    const struct df_row rows[] = {
        {"store_bytes", "size of the store", st.engine.store_bytes, true},
        {"used_bytes", "used", st.engine.used_bytes, true},
        {"free_bytes", "free inside the store", st.engine.free_bytes, true},
        {"avail_bytes", "available", st.engine.avail_bytes, true},
        {"dirty_bytes", "not yet committed", st.dirty_bytes, true},
        {"inodes", "files, folders, links", st.inodes, false},
        {"meta_records", "META records", st.engine.meta_records, false},
        {"data_records", "DATA records", st.engine.data_records, false},
        {"commits", "commits", st.engine.commits, false},
        {"log_bytes", "intent log", st.engine.log_bytes, true},
        {"log_used_bytes", "not yet folded", st.engine.log_used_bytes, true},
        {"log_commits", "durable commits logged", st.engine.log_commits, false},
        {"log_flushes", "flushes for them", st.engine.log_flushes, false},
        {"log_flushes_saved", "flushes saved, at least",
         st.engine.log_commits - (st.engine.log_flushes < st.engine.log_commits
                                      ? st.engine.log_flushes
                                      : st.engine.log_commits),
         false},
        {"forks_deleting", "contents being deleted", st.forks_deleting, false},
        {"holes_pending", "holes being worked off", st.holes_pending, false},
        {"readers", "readers of the store", st.engine.readers, false},
        {"readers_lag", "commits held back", st.engine.readers_lag, false},
        {"readers_pid", "held back by process", st.engine.readers_pid, false},
    };
    const size_t count = sizeof(rows) / sizeof(rows[0]);

    if (c->o.json) {
        struct json_object *obj = df_json(&info, rows, count);

        list.json = json_object_new_array();
        rc = kvfs_volume_holders(c->args[0], df_holder, &list, &c->err);
        (void)json_object_object_add(obj, "holders", list.json);
        if (rc < 0)
            (void)json_object_put(obj);
        else
            cli_json_print_take(obj);
        return rc;
    }
    df_print(&info, rows, count);
    (void)printf("holders:\n");
    rc = kvfs_volume_holders(c->args[0], df_holder, &list, &c->err);
    if (rc == 0 && list.count == 0)
        (void)printf("  none\n");
    return rc;
}

static int
df_run(struct cli *c)
{
    struct kvfs_volume *v;
    int rc = cli_volume_open(c, c->args[0], true, &v);

    if (rc < 0)
        return cli_fail(c, rc);
    rc = df_show(c, v);
    (void)kvfs_volume_close(v, NULL); /* readonly: nothing to lose */
    return rc < 0 ? cli_fail(c, rc) : CLI_OK;
}

static const struct cli_option df_options[] = {CLI_NETWORK, CLI_JSON, CLI_LAST};

const struct cli_command cli_df = {
    "df", "VOLUME", "show a volume's space and who uses it",
    "A holder is a process with the volume open, with a file open for writing (a lease) or\n"
    "with a pinned snapshot; an old snapshot keeps the engine from reusing space.\n",
    df_options, 1, 1, df_run,
};

/* --- engines ----------------------------------------------------------------- */

static int
engines_remove(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

#define ENGINES_HEAD "%-8s %-33s %-9s %-6s %-9s %-9s %-9s "
#define ENGINES_ROW  "%-8s %-33s %-9s %-6u %-9s %-9s %-9s "

/* Limits belong to an open store, so make an empty one and throw it away. */
static bool
engines_limits(const struct kvfs_engine *engine, struct kvfs_engine_limits *limits)
{
    const struct kvfs_engine_options options = {.create = true};
    const char *tmp = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): one thread */
    struct kvfs_db *db;
    char path[4096];
    bool known = false;

    (void)snprintf(path, sizeof(path), "%s/kvfs-engines-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(path) == NULL)
        return false;
    if (engine->open(engine, path, &options, &db, NULL) == 0) {
        engine->limits(db, limits);
        engine->close(db);
        known = true;
    }
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
    (void)nftw(path, engines_remove, 16, FTW_DEPTH | FTW_PHYS);
    return known;
}

static const struct {
    unsigned cap;
    const char *name;
} engines_caps[] = {
    {KVFS_CAP_PERSISTENT, "persistent"},     {KVFS_CAP_ORDERED, "ordered"},
    {KVFS_CAP_DURABLE, "durable"},           {KVFS_CAP_MULTIPROCESS, "multiprocess"},
    {KVFS_CAP_FORK, "fork"},                 {KVFS_CAP_COUNTS, "counts"},
};
#define ENGINES_CAPS (sizeof(engines_caps) / sizeof(engines_caps[0]))

static struct json_object *
engines_json(const struct kvfs_engine *e, const struct kvfs_engine_limits *l)
{
    const struct kvfs_engine_limits none = {0};
    const struct kvfs_engine_limits *of = l != NULL ? l : &none;
    const struct {
        const char *name;
        uint64_t value;
    } limits[] = {
        {"block_size_bytes", of->value_best_bytes}, {"value_max_bytes", of->value_max_bytes},
        {"batch_max_bytes", of->batch_max_bytes},   {"batch_max_ops", of->batch_max_ops},
        {"snapshots_max", of->snapshots_max},
    };
    struct json_object *obj = json_object_new_object(), *caps = json_object_new_array();

    cli_json_text(obj, "name", e->name);
    cli_json_text(obj, "description", e->description != NULL ? e->description : "");
    cli_json_text(obj, "version", e->version != NULL ? e->version(e) : "");
    for (size_t i = 0; i < ENGINES_CAPS; i++) {
        if (e->caps & engines_caps[i].cap)
            (void)json_object_array_add(caps, json_object_new_string(engines_caps[i].name));
    }
    (void)json_object_object_add(obj, "caps", caps);
    cli_json_text(obj, "processes", e->caps & KVFS_CAP_MULTIPROCESS ? "many" : "one");
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) /* null: not known, but there */
        (void)json_object_object_add(obj, limits[i].name,
                                     l != NULL ? json_object_new_uint64(limits[i].value) : NULL);
    return obj;
}

static void
engines_print(const struct kvfs_engine *e, const struct kvfs_engine_limits *l)
{
    char caps[64] = "", value[CLI_SIZE_TEXT] = "-", batch[CLI_SIZE_TEXT] = "-", snapshots[16] = "-";

    for (size_t i = 0; i < ENGINES_CAPS; i++) {
        size_t n = strlen(caps);

        if ((e->caps & engines_caps[i].cap) && engines_caps[i].cap != KVFS_CAP_MULTIPROCESS)
            (void)snprintf(caps + n, sizeof(caps) - n, "%s%s", n > 0 ? "," : "",
                           engines_caps[i].name);
    }
    if (l != NULL) {
        (void)cli_size_text(l->value_max_bytes, value);
        (void)cli_size_text(l->batch_max_bytes, batch);
        if (l->snapshots_max != UINT32_MAX)
            (void)snprintf(snapshots, sizeof(snapshots), "%u", l->snapshots_max);
    }
    (void)printf(ENGINES_ROW "%s\n", e->name, caps[0] != '\0' ? caps : "-",
                 e->caps & KVFS_CAP_MULTIPROCESS ? "many" : "one",
                 l != NULL ? l->value_best_bytes : 0, value, batch, snapshots,
                 e->version != NULL ? e->version(e) : "-");
}

static int
engines_run(struct cli *c)
{
    struct cli_json_list list = {0};
    const struct kvfs_engine *e;

    if (!c->o.json)
        (void)printf(ENGINES_HEAD "%s\n", "NAME", "GUARANTEES", "PROCESSES", "BLOCK", "VALUE-MAX",
                     "BATCH-MAX", "SNAPSHOTS", "VERSION");
    for (size_t i = 0; (e = kvfs_engine_at(i)) != NULL; i++) {
        struct kvfs_engine_limits limits;
        bool known = e->caps != 0 && engines_limits(e, &limits);

        if (!c->o.json && e->caps == 0) /* what it can hangs on the engines it stands on */
            (void)printf("%-8s %s\n", e->name, e->description);
        else if (c->o.json)
            cli_json_list_add_take(&list, engines_json(e, known ? &limits : NULL));
        else
            engines_print(e, known ? &limits : NULL);
    }
    if (c->o.json) {
        cli_json_list_end(&list);
        (void)putchar('\n');
    }
    return CLI_OK;
}

static const struct cli_option engines_options[] = {CLI_JSON, CLI_LAST};

const struct cli_command cli_engines = {
    "engines", "", "list the engines that are built in",
    "PROCESSES tells whether many processes may use one volume at a time; BLOCK is the block\n"
    "size that suits the engine best.\n",
    engines_options, 0, 0, engines_run,
};
