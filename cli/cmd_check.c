/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmd_check.c - kvfs check: verify a volume, as fsck does a disk.
 *
 * Findings are the command's data, so they go to standard output as they come;
 * JSON too is printed piece by piece, since there may be millions.  Whatever
 * happens it is one object with the same members, and one more, `error`, where
 * the check could not be done (exit status 8).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

struct check_output {
    bool json, begun;
    struct cli_progress progress;
    struct cli_json_list list;
};

static void
check_begin(struct check_output *out)
{
    if (out->json && !out->begun)
        (void)fputs("{ \"findings\": ", stdout);
    out->begun = true;
}

static void
check_finding(void *arg, const char *where, const char *what)
{
    struct check_output *out = arg;

    check_begin(out);
    if (out->json) {
        struct json_object *obj = json_object_new_object();

        cli_json_name(obj, "where", where, strlen(where));
        cli_json_name(obj, "what", what, strlen(what));
        cli_json_list_add_take(&out->list, obj);
        return;
    }
    if (out->progress.drawn)
        (void)fputs("\r\033[K", stderr); /* the bar would share the line */
    cli_name_print(where, strlen(where));
    (void)fputs(": ", stdout);
    cli_name_print(what, strlen(what));
    (void)putchar('\n');
}

static int
check_status(const struct kvfs_check_result *r)
{
    if (r->findings == 0)
        return CLI_OK;
    return r->repaired >= r->findings ? CLI_CHECK_REPAIRED : CLI_CHECK_DAMAGED;
}

/* The end of the object; ERROR: why the check could not be done, or NULL. */
static void
check_json_end(struct check_output *out, const char *word, const struct kvfs_check_result *r,
               const char *error)
{
    struct json_object *obj = json_object_new_object();

    check_begin(out);
    cli_json_list_end(&out->list);
    (void)printf(",\n  \"state\": \"%s\", \"records\": %" PRIu64 ", \"inodes\": %" PRIu64
                 ", \"blocks\": %" PRIu64 ", \"found\": %" PRIu64 ", \"repaired\": %" PRIu64,
                 word, r->records, r->inodes, r->blocks, r->findings, r->repaired);
    if (error != NULL) {
        cli_json_name(obj, "error", error, strlen(error)); /* a path in it may be any bytes */
        (void)printf(",\n  \"error\": %s",
                     json_object_to_json_string(json_object_object_get(obj, "error")));
    }
    (void)json_object_put(obj);
    (void)fputs(" }\n", stdout);
}

static void
check_summary(struct check_output *out, const char *volume, const struct kvfs_check_result *r)
{
    static const char *const words[] = {"clean", "repaired", "", "", "damaged"};
    const char *word = words[check_status(r)];

    if (out->json) {
        check_json_end(out, word, r, NULL);
        return;
    }
    cli_name_print(volume, strlen(volume));
    (void)printf(": %s: %" PRIu64 " records, %" PRIu64 " inodes, %" PRIu64 " blocks", word,
                 r->records, r->inodes, r->blocks);
    if (r->findings > 0)
        (void)printf("; %" PRIu64 " found, %" PRIu64 " repaired", r->findings, r->repaired);
    (void)putchar('\n');
}

static int
check_run(struct cli *c)
{
    struct check_output out = {.json = c->o.json};
    struct kvfs_check_options options = {
        .repair = c->o.repair,
        .force = c->o.force,
        .child = true,
        .finding = check_finding,
        .finding_arg = &out,
        .progress = cli_progress_call,
        .progress_arg = &out.progress,
    };
    struct kvfs_check_result result = {0};
    char *full = realpath(c->args[0], NULL); /* one name for it in all that is said */
    const char *volume = full != NULL ? full : c->args[0];
    int rc, status = CLI_CHECK_FAILED;

    cli_signals_catch();
    cli_progress_start(&out.progress, c, "check", 0, false);
    rc = kvfs_check(volume, &options, &result, &c->err);
    cli_progress_end(&out.progress);
    if (rc < 0) {
        if (out.json)
            check_json_end(&out, "unfinished", &result,
                           c->err.msg[0] != '\0' ? c->err.msg : strerrordesc_np(-rc));
        (void)cli_fail(c, rc);
    } else {
        check_summary(&out, volume, &result);
        status = check_status(&result);
    }
    free(full);
    return status;
}

static const struct cli_option check_options[] = {
    CLI_SWITCH(0, "repair", repair, "repair what can be; the volume must not be in use"),
    CLI_NETWORK,
    CLI_JSON,
    CLI_QUIET,
    CLI_LAST,
};

const struct cli_command cli_check = {
    "check", "VOLUME", "verify every record, checksum, name and link count",
    "Prints a line WHERE: WHAT for each damage.  Exit status: 0 clean, 1 all repaired,\n"
    "4 damaged, 8 could not be checked, 2 wrong use.\n",
    check_options, 1, 1, check_run,
};
