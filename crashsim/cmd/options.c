/* SPDX-License-Identifier: BSD-3-Clause
 *
 * options.c - a command's table of options, parsed and explained.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "choice.h"
#include "cmd.h"

#define OPTIONS_MAX    28 /* of one command, --help included */
#define OPTIONS_COLUMN 24

static const struct cmd_option options_help =
    {"help", CMD_SWITCH, 0, NULL, "print this and do nothing", NULL};

/* The options of CMD with --help as the last; the count. */
static int
options_list(const struct cmd *cmd, const struct cmd_option *list[OPTIONS_MAX])
{
    int n = 0;

    for (const struct cmd_option *o = cmd->options; o->name != NULL && n < OPTIONS_MAX - 1; o++)
        list[n++] = o;
    list[n++] = &options_help;
    return n;
}

void
cmd_seed(uint64_t *seed)
{
    uint32_t some = 1; /* where there is nothing random */

    if (*seed != CMD_SEED_NONE)
        return;
    (void)!getrandom(&some, sizeof(some), 0);
    *seed = some;
}

static int
options_usage(const struct cmd *cmd, const char *what, const char *name)
{
    return cmd_error("%s %s; try 'crashsim %s --help'", what, name, cmd->name);
}

static bool
options_size(const char *text, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    char digits[32];
    size_t len = strlen(text);
    const char *unit = len > 0 ? strchr(units, text[len - 1]) : NULL;
    unsigned shift = unit != NULL ? 10 * (unsigned)(unit - units + 1) : 0;

    if (len == 0 || len >= sizeof(digits))
        return false;
    memcpy(digits, text, len + 1);
    if (unit != NULL)
        digits[len - 1] = '\0';
    if (!crashsim_parse_number(digits, bytes) || *bytes > UINT64_MAX >> shift)
        return false;
    *bytes <<= shift;
    return true;
}

static int
options_set(const struct cmd *cmd, const struct cmd_option *o, const char *value)
{
    switch (o->kind) {
    case CMD_SWITCH:
        *(bool *)o->value = true;
        return CMD_OK;
    case CMD_TEXT:
        if (value[0] == '\0') /* an unset variable of a script, as a rule */
            return cmd_error("--%s: its value is empty", o->name);
        *(const char **)o->value = value;
        return CMD_OK;
    case CMD_NUMBER:
        if (crashsim_parse_number(value, o->value))
            return CMD_OK;
        return cmd_error("--%s takes a number from 0 to 2^64-1, not '%s'", o->name, value);
    case CMD_SIZE:
        if (options_size(value, o->value))
            return CMD_OK;
        return cmd_error("--%s takes a size (64M, 4G), not '%s'", o->name, value);
    }
    return options_usage(cmd, "unknown option", o->name);
}

/* What getopt found wrong, in our words. */
static int
options_wrong(const struct cmd *cmd, int found, char **argv)
{
    char letter[3] = {'-', (char)optopt, '\0'};
    const char *name = argv[optind - 1];

    if (optopt > 0 && optopt < 256)
        name = letter;
    if (found == ':')
        return options_usage(cmd, "a value is missing behind", name);
    if (optopt >= 256 && strncmp(name, "--", 2) == 0 && strchr(name, '=') != NULL)
        return options_usage(cmd, "takes no value:", name);
    return options_usage(cmd, "unknown or ambiguous option", name);
}

static int
options_count(const struct cmd *cmd, int argc, char **argv)
{
    if (argc < cmd->args_min)
        return options_usage(cmd, "too few arguments: needs", cmd->synopsis);
    if (cmd->args_max >= 0 && argc > cmd->args_max)
        return options_usage(cmd, "too many arguments: takes",
                             cmd->args_max > 0 ? cmd->synopsis : "none");
    for (int i = 0; i < argc; i++) { /* an unset variable of a script, as a rule */
        if (argv[i][0] == '\0')
            return options_usage(cmd, "an argument is empty: takes", cmd->synopsis);
    }
    return CMD_OK;
}

int
cmd_options_parse(const struct cmd *cmd, int argc, char **argv, int *args, bool *help)
{
    const struct cmd_option *list[OPTIONS_MAX];
    struct option longs[OPTIONS_MAX + 1];
    char shorts[2 + 2 * OPTIONS_MAX] = ":";
    int n = options_list(cmd, list), found;
    size_t s = 1;

    memset(longs, 0, sizeof(longs));
    for (int i = 0; i < n; i++) {
        longs[i] = (struct option){list[i]->name, list[i]->kind != CMD_SWITCH, NULL, 256 + i};
        if (list[i]->letter != 0) {
            shorts[s++] = list[i]->letter;
            if (list[i]->kind != CMD_SWITCH)
                shorts[s++] = ':';
        }
    }
    shorts[s] = '\0';
    opterr = 0;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread runs yet */
    while ((found = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
        int status = CMD_OK;

        if (found == '?' || found == ':')
            return options_wrong(cmd, found, argv);
        for (int i = 0; i < n && status == CMD_OK; i++) {
            if (found != 256 + i && (list[i]->letter == 0 || found != list[i]->letter))
                continue;
            if (list[i] == &options_help)
                *help = true;
            else
                status = options_set(cmd, list[i], optarg);
        }
        if (status != CMD_OK)
            return status;
    }
    *args = optind;
    return *help ? CMD_OK : options_count(cmd, argc - optind, argv + optind);
}

void
cmd_options_help(const struct cmd *cmd)
{
    const struct cmd_option *list[OPTIONS_MAX];
    int n = options_list(cmd, list);

    (void)printf("Usage: crashsim %s [OPTION]...%s%s\n%s.\n", cmd->name,
                 cmd->synopsis[0] != '\0' ? " " : "", cmd->synopsis, cmd->summary);
    if (cmd->details != NULL)
        (void)printf("\n%s", cmd->details);
    (void)printf("\nOptions:\n");
    for (int i = 0; i < n; i++) {
        char left[64], letter[5] = "    ";
        bool value = list[i]->arg != NULL;

        if (list[i]->letter != 0)
            (void)snprintf(letter, sizeof(letter), "-%c, ", list[i]->letter);
        (void)snprintf(left, sizeof(left), "%s--%s%s%s", letter, list[i]->name, value ? "=" : "",
                       value ? list[i]->arg : "");
        (void)printf("  %-*s  %s\n", OPTIONS_COLUMN, left, list[i]->help);
    }
}
