/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmdline.c - what nbdkit itself was told and does not tell its plugins in time.
 *
 * A plugin hears of -r when the first client comes, and of -u and -g never.  But
 * -r decides how the volume is opened, and -u whether it can be opened once nbdkit
 * is in the background, where nobody hears that it cannot.  So the command line is
 * read again, by the rules of getopt_long(3).
 *
 * 1. Any bytes may come in.
 * 2. Nothing is lost if an option is not found: then clients are readers by what
 *    .open says, and an error comes late.
 */
#include "cmdline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Letters of options that take an argument: nbdkit(1). */
static const char cmdline_with_argument[] = "DegiPptuU";

static void
cmdline_set(struct kcmdline *c, char letter, const char *value)
{
    if (letter == 'r')
        c->readonly = true;
    else if (letter == 'u')
        c->user = value;
    else if (letter == 'g')
        c->group = value;
}

/* ARG, one option with one dash or several in one.  Answers the letter of an option
 * whose argument is the next one, or 0. */
static char
cmdline_short(struct kcmdline *c, const char *arg)
{
    for (const char *s = arg + 1; *s != '\0'; s++) {
        if (strchr(cmdline_with_argument, *s) == NULL) {
            cmdline_set(c, *s, NULL);
        } else if (s[1] == '\0') {
            return *s;
        } else {
            cmdline_set(c, *s, s + 1);
            return '\0';
        }
    }
    return '\0';
}

/* NAME, behind two dashes; the same answer.  As much of a name is enough as no other
 * option begins with. */
static char
cmdline_long(struct kcmdline *c, const char *name)
{
    static const struct {
        const char *name;
        size_t enough;
        char letter;
    } table[] = {{"readonly", 2, 'r'}, {"read-only", 2, 'r'}, {"user", 2, 'u'}, {"group", 1, 'g'}};
    size_t len = strcspn(name, "=");

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (len < table[i].enough || strncmp(table[i].name, name, len) != 0)
            continue;
        if (table[i].letter != 'r' && name[len] == '\0')
            return table[i].letter;
        cmdline_set(c, table[i].letter, name + len + 1);
        break;
    }
    return '\0';
}

void
kcmdline_parse(const char *args, size_t len, struct kcmdline *c)
{
    const char *end = args + len, *nul;
    char wants = '\0'; /* the option whose argument comes next */
    bool first = true; /* the name of the program */

    memset(c, 0, sizeof(*c));
    for (const char *arg = args; arg < end; arg = nul + 1) {
        nul = memchr(arg, '\0', (size_t)(end - arg));
        if (nul == NULL)
            return;
        if (wants != '\0') {
            cmdline_set(c, wants, arg);
            wants = '\0';
        } else if (!first && strcmp(arg, "--") == 0) {
            return;
        } else if (!first && strncmp(arg, "--", 2) == 0) {
            wants = cmdline_long(c, arg + 2);
        } else if (!first && arg[0] == '-') {
            wants = cmdline_short(c, arg);
        }
        first = false;
    }
}

void
kcmdline_read(struct kcmdline *c)
{
    FILE *fp = fopen("/proc/self/cmdline", "re");
    size_t len = 0, cap = 4096, n;
    char *args = fp != NULL ? malloc(cap) : NULL, *more = args;

    while (more != NULL && (n = fread(args + len, 1, cap - len, fp)) > 0) {
        len += n;
        if (len < cap) /* fread has met the end */
            break;
        if ((more = realloc(args, cap *= 2)) != NULL)
            args = more;
    }
    kcmdline_parse(args, more != NULL ? len : 0, c);
    c->args = args;
    if (fp != NULL)
        (void)fclose(fp);
}

void
kcmdline_free(struct kcmdline *c)
{
    free(c->args);
    memset(c, 0, sizeof(*c));
}
