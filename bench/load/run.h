/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run.h - one phase of a load: threads, clock, answer.
 *
 * An operation is one request.  Its latency is that of the call that it ends in, with the flush
 * where that has one: in a batch every operation takes as long as the batch.  In an open loop the
 * operations are due at fixed times and latency counts from there, so that one slow call shows in
 * all that had to wait behind it (no coordinated omission; wrk2).
 */
#ifndef KVFS_LOAD_RUN_H
#define KVFS_LOAD_RUN_H

#include "histogram.h"
#include "store.h"

#define LOAD_THREADS_MAX 256u
#define LOAD_FLUSH_MAX   4096u
#define LOAD_BATCH       64u /* writes of a batch when nothing is flushed */

enum load_op { LOAD_FILL, LOAD_READ, LOAD_WRITE, LOAD_MIX };
enum load_pattern { LOAD_RANDOM, LOAD_SEQUENTIAL, LOAD_ZIPFIAN };

struct load_phase {
    enum load_op op;
    enum load_pattern pattern; /* FILL: RANDOM or SEQUENTIAL; each block once */
    unsigned read_percent;     /* MIX */
    bool rmw;                  /* MIX: a write reads first */
    unsigned threads;
    unsigned flush;            /* after so many writes of a thread; 0: never */
    double seconds, warmup;    /* not of FILL */
    double rate;               /* operations a second in an open loop; 0: as fast as it goes */
    uint32_t request_bytes;    /* a multiple of the dataset's block; 0: one block */
    unsigned stall_ms;         /* for tests: one operation halfway through takes so much longer */
    uint64_t seed;
    bool (*interrupted)(void); /* NULL: never */
};

struct load_result {
    uint64_t ops, flushes; /* answered; with warm-up left out */
    uint64_t missed;       /* due in an open loop and not begun when the time was over: in the
                            * histogram with how late they were by then */
    double seconds;
    uint64_t buffer_bytes; /* memory of the load itself */
    struct histogram latency;
};

/* Run one phase.  STARTED, if not NULL, is called when the warm-up is over.
 * -EINTR: interrupted; -EINVAL: the phase does not fit the dataset; else as the layer. */
int load_run(const struct load_layer *layer, struct load_store *s, const struct load_dataset *d,
             const struct load_phase *phase, void (*started)(void *arg), void *arg,
             struct load_result *result, struct kvfs_error *err);

#endif /* KVFS_LOAD_RUN_H */
