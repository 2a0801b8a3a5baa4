/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmd.h - what the files of the `crashsim` command share.
 *
 * A subcommand is one struct cmd in a file of its own, named in the table of main.c: its options
 * drive the parser and `--help`, and a test holds crashsim(1) against `--help`.  Its `run` answers
 * the exit status.  An error is one line, "crashsim: COMMAND: WHAT", printed by cmd_error() or
 * cmd_usage() where it is given up, and nowhere else.
 */
#ifndef CRASHSIM_CMD_H
#define CRASHSIM_CMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <json-c/json.h>

enum { /* exit statuses */
    CMD_OK = 0,
    CMD_VIOLATIONS = 1,
    CMD_USAGE = 2, /* wrong use, bad input, or it could not be done */
    CMD_NEEDS_ROOT = 77,
};

enum cmd_kind {
    CMD_SWITCH, /* bool */
    CMD_TEXT,   /* const char * */
    CMD_NUMBER, /* uint64_t: digits, or 0x and digits */
    CMD_SIZE,   /* uint64_t: a number, with K, M, G or T a multiple of 1024 */
};

struct cmd_option {
    const char *name; /* NULL ends a table */
    enum cmd_kind kind;
    char letter;     /* 0: none */
    const char *arg; /* for --help; NULL with a switch */
    const char *help;
    void *value; /* where it goes; what is there before is the default */
};

struct cmd {
    const char *name;
    const char *synopsis; /* positional arguments */
    const char *summary;  /* one line, no full stop */
    const char *details;  /* more lines for --help; NULL: none */
    const struct cmd_option *options;
    int args_min, args_max; /* positional; max -1: any number */
    int (*run)(int argc, char **argv); /* the positional ones, argv[argc] is NULL */
};

/* One a subcommand, in the order of `crashsim --help`. */
extern const struct cmd cmd_trace, cmd_replay, cmd_explore, cmd_run, cmd_recovery, cmd_clean,
    cmd_selftest;

/* --- main.c --- */
/* Print "crashsim: COMMAND: WHAT"; what could steer a terminal is shown as '?'.  CMD_USAGE. */
int cmd_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same for what is no error. */
void cmd_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Signals that ask to stop (INT, TERM, HUP, and PIPE: nobody reads on): long work looks at
 * cmd_interrupted(), cleans up and returns; main then dies of the signal. */
void cmd_signals_catch(void);
bool cmd_interrupted(void);

/* --- options.c --- */
/* Of a seed that was not given: a number that nobody will. */
#define CMD_SEED_NONE UINT64_C(0x6e6f20736565640a)
/* A random one in place of that, of 32 bits. */
void cmd_seed(uint64_t *seed);
/* Parse ARGV[1..]; *ARGS points at the positional ones.  CMD_OK, or CMD_USAGE after one line. */
int cmd_options_parse(const struct cmd *cmd, int argc, char **argv, int *args, bool *help);
void cmd_options_help(const struct cmd *cmd);

/* --- output.c --- */
void cmd_json_u64(struct json_object *obj, const char *key, uint64_t value);
void cmd_json_text(struct json_object *obj, const char *key, const char *value);
/* Print and free OBJ; a byte that is no UTF-8 becomes U+FFFD. */
void cmd_json_print_take(struct json_object *obj);

/* TEXT as a shell takes it. */
void cmd_quote(FILE *out, const char *text);

/* CLOCK_MONOTONIC */
int64_t cmd_now_ns(void);

/* A line on stderr that is drawn anew, at most ten times a second, on a terminal only. */
struct cmd_progress {
    bool on, drawn;
    int64_t last_ns;
};
void cmd_progress_start(struct cmd_progress *p, bool quiet);
void cmd_progress_show(struct cmd_progress *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Before anything else is printed. */
void cmd_progress_end(struct cmd_progress *p);

#endif /* CRASHSIM_CMD_H */
