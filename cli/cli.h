/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cli.h - what the files of the `kvfs` command share.
 *
 * Each subcommand is one struct cli_command: its table of options drives the
 * parser and `--help`, and the tests hold the man page and the completion
 * against `--help`.  A subcommand's `run` answers the exit status; an error is
 * one line, "kvfs: COMMAND: WHAT", printed by cli_fail() or cli_error() at the
 * place that gives up, and nowhere else.
 */
#ifndef KVFS_CLI_H
#define KVFS_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>
#include <kvfs/kvfs.h>

enum { /* exit statuses */
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_CHECK_REPAIRED = 1, /* `check` answers as fsck does */
    CLI_CHECK_DAMAGED = 4,
    CLI_CHECK_FAILED = 8,
};

/* Every option of every command; unset is false or NULL. */
struct cli_options {
    bool help, json, force, quiet, as_is;
    bool recursive, parents, ignore_missing, symbolic;
    bool no_clobber, exchange, no_target_directory;
    bool long_listing, unsorted, directory, used;
    bool shrink, repair, dry_run;
    const char *engine, *size, *block_size, *seconds;
};

struct cli_option {
    char letter;      /* 0: none */
    const char *name; /* NULL ends a table */
    const char *arg;  /* NULL: a switch */
    const char *help;
    size_t offset;    /* of its bool or const char * in struct cli_options */
};

#define CLI_SWITCH(letter, name, field, help)                                                      \
    {                                                                                              \
        letter, name, NULL, help, offsetof(struct cli_options, field)                              \
    }
#define CLI_VALUE(letter, name, arg, field, help)                                                  \
    {                                                                                              \
        letter, name, arg, help, offsetof(struct cli_options, field)                               \
    }
#define CLI_JSON     CLI_SWITCH(0, "json", json, "print JSON")
#define CLI_QUIET    CLI_SWITCH('q', "quiet", quiet, "no progress bar")
#define CLI_NETWORK  CLI_SWITCH(0, "force", force, "accept a volume on a network file system")
#define CLI_LAST                                                                                   \
    {                                                                                              \
        0, NULL, NULL, NULL, 0                                                                     \
    }

struct cli {
    const struct cli_command *command;
    struct cli_options o;
    char **args; /* positional, NULL-terminated */
    int args_count;
    struct kvfs_error err;
};

struct cli_command {
    const char *name;
    const char *synopsis; /* positional arguments */
    const char *summary;  /* one line */
    const char *details;  /* more lines for --help; NULL: none */
    const struct cli_option *options;
    int args_min, args_max; /* max -1: any number */
    int (*run)(struct cli *c);
};

/* One a subcommand, in the order of `kvfs --help`. */
extern const struct cli_command cli_format, cli_create, cli_ls, cli_stat, cli_mkdir, cli_rm, cli_mv,
    cli_ln, cli_resize, cli_import, cli_export, cli_copy, cli_check, cli_compact, cli_log, cli_bench,
    cli_df, cli_engines;

/* --- main.c ------------------------------------------------------------------ */
/* Print "kvfs: COMMAND: WHAT" (what could steer a terminal shown as '?') and
 * answer CLI_FAILED. */
int cli_error(const struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same for what is no error. */
void cli_say(const struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same with what c->err holds; RC, a negative errno, is the fallback. */
int cli_fail(const struct cli *c, int rc);
/* Put PATH, shortened, before what ERR says, unless it says it already.  Answers RC. */
int cli_about(struct kvfs_error *err, int rc, const char *path);

/* Signals that ask to stop (INT, TERM, HUP): long work looks here and answers
 * -EINTR; main then cleans up and dies of the signal. */
void cli_signals_catch(void);
/* Die of the signal that came, if one did. */
void cli_signals_follow(void);
bool cli_interrupted(void);

/* --- options.c --------------------------------------------------------------- */
/* Parse ARGV[1..] into C; CLI_OK, or CLI_USAGE after one line on stderr. */
int cli_options_parse(struct cli *c, int argc, char **argv);
void cli_options_help(const struct cli_command *command);

/* --- size.c ------------------------------------------------------------------ */
/* "512", "4K", "10GiB": binary units K M G T P E.  -EINVAL, -ERANGE (beyond
 * 8 EiB - 1). */
int cli_size_parse(const char *text, uint64_t *bytes);
/* "1.5 GiB"; into BUF of CLI_SIZE_TEXT bytes, returned. */
#define CLI_SIZE_TEXT 16
const char *cli_size_text(uint64_t bytes, char *buf);
/* Any size; else one line, CLI_USAGE. */
int cli_size_any(const struct cli *c, const char *what, const char *text, uint64_t *bytes);
/* A disk's size: parsed, not 0, a multiple of 512; else one line, CLI_USAGE. */
int cli_size_disk(const struct cli *c, const char *what, const char *text, uint64_t *bytes);
/* --block-size; 0 when not given. */
int cli_size_block(const struct cli *c, uint32_t *bytes);

/* --- output.c ---------------------------------------------------------------- */
/* Bytes of the character at P if it is text that cannot steer a terminal: valid
 * UTF-8, no control character (C0, DEL, C1) and none that reorders a line; else 0,
 * and *skip tells how many bytes one '?' stands for. */
size_t cli_text_step(const char *p, size_t len, size_t *skip);
/* A name for humans: on a terminal, what could steer it becomes '?'. */
void cli_name_print(const char *name, size_t len);
/* Member KEY of OBJ: a name of any bytes.  What is no UTF-8 becomes U+FFFD, and
 * KEY_hex then has the exact bytes. */
void cli_json_name(struct json_object *obj, const char *key, const char *name, size_t len);
void cli_json_u64(struct json_object *obj, const char *key, uint64_t value);
void cli_json_text(struct json_object *obj, const char *key, const char *value);
/* Print and free OBJ. */
void cli_json_print_take(struct json_object *obj);
/* An array printed one element at a time, so that it may be of any length. */
struct cli_json_list {
    uint64_t count;
};
void cli_json_list_add_take(struct cli_json_list *list, struct json_object *obj);
void cli_json_list_end(struct cli_json_list *list);
/* The same for a list that is all the output: after an error (not COMPLETE) what was
 * found before is an array, and nothing found is nothing printed. */
void cli_json_list_finish(struct cli_json_list *list, bool complete);
/* "2024-05-01 12:00:00", local time; with NANOSECONDS ".123456789 +0200" behind. */
#define CLI_TIME_TEXT 48
const char *cli_time_text(int64_t ns, bool nanoseconds, char *buf);
/* As `ls -l` writes a mode; into 11 bytes. */
const char *cli_mode_text(uint32_t mode, char *buf);
const char *cli_type_text(uint32_t mode);

/* --- volume.c ---------------------------------------------------------------- */
/* Open volume PATH with what the options say.  Negative: c->err is set. */
int cli_volume_open(struct cli *c, const char *path, bool readonly, struct kvfs_volume **vp);
/* Close after a change: commits, and turns a failing commit into the command's
 * failure.  STATUS so far; answers the exit status. */
int cli_volume_close(struct cli *c, struct kvfs_volume *v, int status);
/* May a volume be made in folder PATH with engine NAME (NULL: the default)?  Not
 * with an engine that forgets it at once, nor inside another volume's folder. */
int cli_volume_judge(struct cli *c, const char *path, const char *engine);

/* --- progress.c -------------------------------------------------------------- */
/* A bar on stderr, drawn only on a terminal and only after one second. */
struct cli_progress {
    const char *verb;
    uint64_t total, done, moved; /* total 0: unknown; moved: bytes behind the rate */
    bool bytes;                  /* the counts are bytes, not things */
    bool on, drawn;
    int64_t start_ns, last_ns;
};
void cli_progress_start(struct cli_progress *p, const struct cli *c, const char *verb,
                        uint64_t total, bool bytes);
void cli_progress_update(struct cli_progress *p, uint64_t done, uint64_t moved);
void cli_progress_end(struct cli_progress *p);
/* A kvfs_progress_fn; ARG is a struct cli_progress. */
int cli_progress_call(void *arg, uint64_t done, uint64_t total);

#endif /* KVFS_CLI_H */
