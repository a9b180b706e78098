/* SCAFFOLD's vectors of one round of a client (worker.h says which variant, and why).
 *
 *     correction = c − c_k      from the server's c and the client's own variate
 *     change     = c_k' − c_k   c_k' being the training's mean gradient
 *     sent       = D(C(change)) what the codec leaves of it; c_k ← c_k + sent, so both sides agree
 *
 * All are in the flat order of the trained ranks and NULL where the plan is not SCAFFOLD's.
 */
#ifndef MEED_CLIENT_WORKER_CONTROL_H
#define MEED_CLIENT_WORKER_CONTROL_H

#include "base/buf.h"

MEED_BEGIN_C

struct meed_worker_control {
    int64_t count;
    float *server; /* c as it was pulled; NULL: zero */
    int64_t server_count;
    float *own;        /* c_k */
    float *correction; /* of the training */
    float *change;
    float *sent;
};

/* The bytes of c that came behind the adapter; none is zero. FORMAT for a broken length. */
MEED_MUST_CHECK enum meed_status meed_worker_control_take(struct meed_worker_control *control,
                                                          const struct meed_buf *bytes);
/* c_k from its file ("": there never was one); one that cannot be used starts from zero with a
 * warning. FORMAT if c has another size. */
MEED_MUST_CHECK enum meed_status meed_worker_control_open(struct meed_worker_control *control,
                                                          int64_t count, const char *path,
                                                          int32_t round);
/* change holds c_k' and becomes c_k' − c_k; nothing to do without SCAFFOLD. */
void meed_worker_control_change(struct meed_worker_control *control);
/* Writes c_k + sent. */
MEED_MUST_CHECK enum meed_status meed_worker_control_save(const struct meed_worker_control *control,
                                                          const char *path);
void meed_worker_control_clear(struct meed_worker_control *control); /* accepts a zeroed struct */

MEED_END_C
#endif
