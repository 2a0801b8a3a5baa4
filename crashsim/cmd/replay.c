/* SPDX-License-Identifier: BSD-3-Clause
 *
 * replay.c - `crashsim replay`: one state of a recording, in a file or folder of its own.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd.h"
#include "rundir.h"
#include "source.h"
#include "tree.h"

static const char *replay_base, *replay_at = "end", *replay_choice, *replay_out, *replay_marks,
                  *replay_tmp;
static uint64_t replay_size;
static bool replay_json;

static void
replay_tell(struct source *s, const struct crashsim_pick *pick, uint64_t hash)
{
    static const char *const fates[] = {"dropped", "kept", "torn"};
    char *choice = crashsim_pick_text(pick);
    struct json_object *obj, *list;
    size_t counts[3];
    char text[128];

    crashsim_pick_counts(pick, counts);
    if (!replay_json) {
        (void)printf("%s: behind line %u, %zu of %zu open changes kept, %zu torn: %s\n",
                     replay_out, s->at, counts[CRASHSIM_KEPT], pick->count, counts[CRASHSIM_TORN],
                     choice != NULL ? choice : "?");
        free(choice);
        return;
    }
    obj = json_object_new_object();
    list = json_object_new_array();
    cmd_json_text(obj, "out", replay_out);
    cmd_json_u64(obj, "at", s->at);
    cmd_json_text(obj, "choice", choice != NULL ? choice : "?");
    (void)snprintf(text, sizeof(text), "%016llx", (unsigned long long)hash);
    cmd_json_text(obj, "hash", text);
    cmd_json_u64(obj, "marks", source_marks(s));
    for (size_t i = 0; i < pick->count; i++) {
        struct json_object *one = json_object_new_object();

        s->ops->describe(s, i, text, sizeof(text));
        cmd_json_text(one, "change", text);
        cmd_json_text(one, "fate", fates[pick->fates[i].fate]);
        (void)json_object_array_add(list, one);
    }
    (void)json_object_object_add(obj, "open", list);
    cmd_json_print_take(obj);
    free(choice);
}

static int
replay_build(struct source *s)
{
    struct crashsim_pick pick = {0};
    uint64_t hash = 0;
    uint32_t at;
    int status = source_parse_at(s, replay_at, &at), r = 0;

    if (status != CMD_OK)
        return status;
    r = s->ops->seek(s, at);
    if (r < 0)
        return cmd_error("%s: %s", s->file, strerrordesc_np(-r));
    status = source_parse_choice(s, replay_choice, &pick);
    if (status != CMD_OK)
        return status;
    r = s->ops->prepare(s, &pick, &hash);
    if (r == 0)
        r = s->ops->build(s, replay_out);
    if (r == 0 && replay_marks != NULL)
        r = source_write_marks(s, replay_marks);
    if (r < 0)
        status = cmd_error("%s: %s", replay_out, strerrordesc_np(-r));
    else
        replay_tell(s, &pick, hash);
    crashsim_pick_free(&pick);
    return status;
}

static int
replay_run(int argc, char **argv)
{
    struct rundir *dir;
    struct source *s;
    struct stat st;
    int status, r;

    (void)argc;
    if (replay_out == NULL)
        return cmd_error("--out=FILE is missing");
    if (lstat(replay_out, &st) == 0)
        return cmd_error("%s: it is there already", replay_out);
    if (replay_marks != NULL && lstat(replay_marks, &st) == 0)
        return cmd_error("%s: it is there already", replay_marks);
    r = rundir_open(replay_tmp, &dir);
    if (r < 0)
        return cmd_error("a folder for temporary files: %s", strerrordesc_np(-r));
    status = source_open(argv[0], replay_base, replay_size, rundir_path(dir), &s);
    if (status == CMD_OK) {
        if (strcmp(replay_at, "end") == 0 && replay_choice == NULL)
            replay_at = "cut";
        status = replay_build(s);
        source_close(s);
        if (status != CMD_OK)
            (void)tree_remove(replay_out); /* it was not there before */
    }
    r = rundir_close(dir);
    if (r < 0 && status == CMD_OK)
        status = cmd_error("temporary files: %s", strerrordesc_np(-r));
    return status;
}

static const struct cmd_option replay_options[] = {
    {"out", CMD_TEXT, 'o', "FILE", "make the state there; nothing may be there", &replay_out},
    {"base", CMD_TEXT, 0, "DISK", "what the disk held before; default: zeros", &replay_base},
    {"size", CMD_SIZE, 0, "SIZE", "of the disk, where the recording does not say it",
     &replay_size},
    {"at", CMD_TEXT, 0, "CUT", "LINE, mark:NAME, cut or end", &replay_at},
    {"choice", CMD_TEXT, 0, "CHOICE", "what survives; default: as at the recording's own cut",
     &replay_choice},
    {"marks", CMD_TEXT, 0, "FILE", "write the marks in front of the cut there", &replay_marks},
    {"tmp", CMD_TEXT, 0, "FOLDER", "for temporary files; default: $TMPDIR or /tmp", &replay_tmp},
    {"json", CMD_SWITCH, 0, NULL, "print JSON, with each open change and its fate", &replay_json},
    {NULL, CMD_SWITCH, 0, NULL, NULL, NULL},
};

const struct cmd cmd_replay = {
    .name = "replay",
    .synopsis = "RECORDING",
    .summary = "Make one state of a recording that a cut may have left",
    .details = "Cuts and choices are explained in crashsim(1).\n",
    .options = replay_options,
    .args_min = 1,
    .args_max = 1,
    .run = replay_run,
};
