/* SPDX-License-Identifier: BSD-3-Clause
 *
 * again.h - a violation that was kept (finding.h), judged again, and made smaller.
 */
#ifndef CRASHSIM_AGAIN_H
#define CRASHSIM_AGAIN_H

#include "campaign.h"

/* Judge the state TEXT (NULL: the one that was found) of the finding in folder DIR. */
int again_judge(struct campaign *c, const char *dir, const char *text, struct verdict *v,
                struct kvfs_error *err);
/* The scenario and the engine of a finding, and whether it is of a trace (no root is needed). */
int again_of(const char *dir, char scenario[32], char engine[96], bool *trace,
             struct kvfs_error *err);

#define SHRUNK_CHANGES 8 /* listed */

struct shrunk {
    bool repeated; /* false: the state was good when it was judged again, and nothing was shrunk */
    uint64_t judgings;
    size_t open; /* changes at the cut */
    char *state; /* the smaller one, as --state takes it */
    /* Those that it keeps, or drops, in words. */
    bool kept, more; /* more: not all are listed */
    size_t changes_count;
    char *changes[SHRUNK_CHANGES];
};

/* Let the finding in DIR be of the smallest set of kept or dropped changes that is still a violation;
 * C->shrink judgements and SHRINK_SECONDS at most, and until C->stop says so.  *SHRUNK is new. */
int again_shrink(struct campaign *c, const char *dir, struct shrunk **shrunk,
                 struct kvfs_error *err);
void shrunk_free(struct shrunk *s);

#define SHRINK_SECONDS 60u

#endif /* CRASHSIM_AGAIN_H */
