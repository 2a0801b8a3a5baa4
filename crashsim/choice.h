/* SPDX-License-Identifier: BSD-3-Clause
 *
 * choice.h - which of the open writes survive a cut.
 *
 * A disk that loses its power may have written down any of its open writes, in any order, and a
 * write by single sectors.  The open writes are numbered 0 … n-1: those that were answered in the
 * order of their answers, then those that were not, in the order of their coming.  A choice says
 * for each whether it is dropped, kept, or torn (kept by some of its sectors).
 *
 * 1. What becomes of a write follows from the choice, its number and n alone; the disk, a
 *    replayer and a test ask the same functions and get the same answers.
 * 2. Every choice is legal for a disk, but for the tears BYTE and GARBAGE, which are only made
 *    where they are asked for and counted apart.
 */
#ifndef CRASHSIM_CHOICE_H
#define CRASHSIM_CHOICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum crashsim_survive {
    CRASHSIM_DROP_ALL,
    CRASHSIM_PREFIX,        /* the first INDEX; with tears the one behind them is torn */
    CRASHSIM_LEAVE_ONE_OUT, /* all but INDEX; with tears that one may be torn */
    CRASHSIM_ONLY_ONE,      /* INDEX; with tears it may be torn */
    CRASHSIM_RANDOM,        /* each with 1/2; with tears one in four of them is torn */
    CRASHSIM_SUBSET,        /* INDEX is a mask: bit i keeps write i, whole */
};

#define CRASHSIM_SUBSET_MAX 12 /* open writes, for all subsets of them to be tried */

enum crashsim_tear {
    CRASHSIM_TEAR_NONE,
    CRASHSIM_TEAR_512,     /* sectors of 512 bytes are written whole or not at all */
    CRASHSIM_TEAR_4096,    /* of 4096 bytes */
    CRASHSIM_TEAR_BYTE,    /* as 512, and one sector has its first bytes only: no legal state */
    CRASHSIM_TEAR_GARBAGE, /* as 512, and one sector holds what nobody wrote */
};

struct crashsim_choice {
    enum crashsim_survive survive;
    enum crashsim_tear tear;
    bool indexed;   /* else INDEX follows from the seed */
    uint64_t index; /* of PREFIX, LEAVE_ONE_OUT, ONLY_ONE, SUBSET */
    uint64_t seed;
};

enum crashsim_fate { CRASHSIM_DROPPED, CRASHSIM_KEPT, CRASHSIM_TORN };

enum crashsim_fate crashsim_choice_fate(const struct crashsim_choice *c, size_t i, size_t n);

/* Does a torn write I keep the bytes from AT on, up to *END?  The write is
 * [OFFSET, OFFSET + COUNT).  A write of more than 1024 sectors is torn in larger pieces. */
bool crashsim_choice_piece(const struct crashsim_choice *c, size_t i, uint64_t offset,
                           uint64_t count, uint64_t at, uint64_t *end);

/* With the tears BYTE and GARBAGE: the sector of a torn write that is spoilt, and for BYTE how
 * many of its bytes are new. */
uint64_t crashsim_choice_spoilt(const struct crashsim_choice *c, size_t i, uint64_t offset,
                                uint64_t count, uint32_t *new_bytes);

/* "drop-all", "prefix", "prefix:3", …, "subset:5"; "none", "512", …  false: no such word. */
bool crashsim_choice_parse_survive(const char *text, struct crashsim_choice *c);
bool crashsim_choice_parse_tear(const char *text, enum crashsim_tear *tear);
const char *crashsim_choice_survive_name(enum crashsim_survive survive);
const char *crashsim_choice_tear_name(enum crashsim_tear tear);

/* Digits with an optional 0x, all of TEXT. */
bool crashsim_parse_number(const char *text, uint64_t *number);

#endif /* CRASHSIM_CHOICE_H */
