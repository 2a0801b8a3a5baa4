/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pick.h - what becomes of each open change, one by one; and the text that names it.
 *
 * A choice (choice.h) is a rule; a pick is its outcome, which can be shrunk and written down.
 * The text, as --choice takes it:
 *
 *     WORD[:INDEX][/tear=T][/seed=N]   a rule: drop-all, prefix:3, random/seed=7/tear=512, …
 *     keep:LIST[/tear=T][/seed=N]      those in LIST are kept, the others dropped
 *     drop:LIST[/tear=T][/seed=N]      those in LIST are dropped, the others kept
 *
 * LIST is empty or has items with a comma between: a number, numbers A-B, or a torn change:
 * N[P+Q-R] keeps its pieces P and Q to R only, N~ those that tear and seed say.  A piece is an
 * aligned sector of 512 bytes (4096 with tear=4096), or twice as long, and so on, where there
 * would be more than 1024.
 */
#ifndef CRASHSIM_PICK_H
#define CRASHSIM_PICK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "choice.h"

struct crashsim_pick_fate {
    enum crashsim_fate fate;
    uint32_t pieces_count;
    uint8_t *pieces; /* CRASHSIM_TORN: a byte a piece, not 0 if it is kept; NULL: as the choice
                        says */
};

struct crashsim_pick {
    struct crashsim_choice choice; /* tear and seed; survive and index if `rule` */
    bool rule;                     /* the fates are as the choice says */
    size_t count;
    struct crashsim_pick_fate *fates;
};

/* Of open change I: where it begins, and how long it is; 0: it cannot be torn. */
typedef void (*crashsim_pick_shape_fn)(const void *opaque, size_t i, uint64_t *offset,
                                       uint64_t *count);

/* What a cut with CHOICE, which was made before it was known how many are open, did to COUNT of them: an
 * index beyond them names none.  0 or -ENOMEM. */
int crashsim_pick_of_cut(struct crashsim_pick *p, const struct crashsim_choice *choice,
                         size_t count);
/* What CHOICE says of COUNT open changes.  0 or -ENOMEM; an index beyond COUNT is -ERANGE. */
int crashsim_pick_choose(struct crashsim_pick *p, const struct crashsim_choice *choice,
                         size_t count);
/* What TEXT says.  -EINVAL: it is no choice; -ERANGE: it names a change or a piece that is not. */
int crashsim_pick_parse(struct crashsim_pick *p, const char *text, size_t count,
                        crashsim_pick_shape_fn shape, const void *opaque);
int crashsim_pick_copy(struct crashsim_pick *p, const struct crashsim_pick *from);
void crashsim_pick_free(struct crashsim_pick *p);

/* Write the pieces of torn changes out, so that each can be changed.  Not for the tears BYTE and
 * GARBAGE, which have no such text. */
int crashsim_pick_spell(struct crashsim_pick *p, crashsim_pick_shape_fn shape, const void *opaque);

/* The end of the piece that AT lies in, of a torn [OFFSET, OFFSET + COUNT). */
uint64_t crashsim_pick_piece_end(const struct crashsim_pick *p, uint64_t offset, uint64_t count,
                                 uint64_t at);
bool crashsim_pick_keeps(const struct crashsim_pick *p, size_t i, size_t piece);

/* The text, of whichever form is shorter; malloced, NULL: no memory. */
char *crashsim_pick_text(const struct crashsim_pick *p);

/* Has it a tear that no disk may make (half a sector, garbage)? */
bool crashsim_pick_is_spoilt(const struct crashsim_pick *p);
/* How many are kept, torn, dropped. */
void crashsim_pick_counts(const struct crashsim_pick *p, size_t counts[3]);

#endif /* CRASHSIM_PICK_H */
