/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle.h - may a disk look like this after a crash?
 *
 * A recorder tells the oracle of every request when it is issued and when its
 * answer is seen.  After the crash the oracle is shown the disk's bytes and says
 * whether some cut explains them all.
 *
 * What is demanded.  A happened before B if A's answer was seen before B was
 * issued, on whatever connection.  There must be a set S of requests (the cut)
 * so that
 *   1. S holds every acknowledged request with FUA, and everything that was
 *      acknowledged before the issue of a flush that was acknowledged;
 *   2. if B is in S and A happened before B, then A is in S;
 *   3. every byte is that of a request in S, or the old one, which no other
 *      request of S happened after and covers too.
 * Requests that were under way at the same time may have been taken in either
 * order, block by block, as NBD allows.  A request is in S or it is not: one
 * that shows in one place and is missing in another, where only requests that
 * happened before it show, is found by 3.
 *
 * How it is decided.  Each byte written is a function of its request and its
 * place, so it names its writer; bytes written are never 0, those zeroed always
 * are.  The disk is divided into cells, at the edges of all requests and of all
 * blocks; a cell has one writer.
 *   - A cell with a single possible writer W puts W into S and keeps out of S
 *     all that cover the cell and that W happened before.
 *   - By 2, S is closed in time: with T the latest issue in S, all that was
 *     acknowledged before T is in S; with U the earliest acknowledgement that is
 *     not, all that was issued after U is not.
 *   - Cells of zeros may have several possible writers (all zeros look alike).
 *     Those that are ruled out are struck off until nothing changes.  Where none
 *     of the rest is known to be in S, one after the other is tried.
 * Without zeros no search is needed at all; with them it is short, as only
 * requests since the last commits are still undecided.
 */
#ifndef CRASHSIM_ORACLE_H
#define CRASHSIM_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum oracle_kind {
    ORACLE_WRITE,
    ORACLE_ZERO,
    ORACLE_FLUSH
};

struct oracle;

/* A disk of zeros.  Ends the program when there is no memory, as all below. */
struct oracle *oracle_new(size_t size_bytes, size_t block_size_bytes);
void oracle_free(struct oracle *o);

/* A request is about to be sent; its number.  Trim is a zero. */
size_t oracle_issue(struct oracle *o, enum oracle_kind kind, size_t offset, size_t count, bool fua);
/* Its answer, without an error, was seen. */
void oracle_ack(struct oracle *o, size_t request);

/* The bytes that a write must send. */
void oracle_fill(const struct oracle *o, size_t request, uint8_t *buf);

enum oracle_verdict {
    ORACLE_GOOD,
    ORACLE_BAD,      /* no cut explains the bytes */
    ORACLE_UNDECIDED /* the search was too long */
};

struct oracle_report {
    size_t requests, acked, in_cut; /* in_cut: of the smallest cut that was found */
    size_t cells, ambiguous, tried;
    char text[600]; /* why it is bad */
};

enum oracle_verdict oracle_judge(const struct oracle *o, const uint8_t *image,
                                 struct oracle_report *report);

/* Go on from here: IMAGE is what the disk holds, all requests are forgotten. */
void oracle_rebase(struct oracle *o, const uint8_t *image);

#endif /* CRASHSIM_ORACLE_H */
