/* From a trained adapter to the bytes of an update, with error feedback.
 *
 *     u = Δ + e          Δ = trained − global, factor by factor; e what earlier rounds left out
 *     send C(u)          top-k and quantisation by the plan's codec (proto/update.h)
 *     e ← u − D(C(u))    kept by the client, never sent
 *
 * Over the rounds the sum of what was decoded is the sum of what was trained minus the last e: what
 * one round's codec cuts off, a later one sends (Seide et al. 2014, Karimireddy et al. 2019).
 *
 * The gauge. e is a change of factors, and factors have no meaning of their own: the server's `svd`
 * aggregation rewrites the global adapter as another pair (B', A') every round, and an old e added
 * to new coordinates would be noise. What carries over is the change of the product, E = B·eA +
 * eB·A (first order in e). meed_compress_carry re-expresses E in the new coordinates by two small
 * least-squares problems, B'·eA' ≈ E, then eB'·A' ≈ the rest; the part of E outside what (B', A')
 * can express to first order is dropped, and carrying never enlarges ‖e‖. Where the aggregation is
 * a mean of factors the coordinates stay and e is used as it is.
 *
 * A factor that the round does not train keeps its e untouched and sends nothing. A change of a
 * control variate has no e: c_k moves by what was sent, so the next change makes up for the codec.
 */
#ifndef MEED_CLIENT_COMPRESS_H
#define MEED_CLIENT_COMPRESS_H

#include "engine/adapter.h"
#include "proto/update.h"

MEED_BEGIN_C

/* Re-expresses residual [value count] of `old_global` for `new_global`. Zero if shapes differ. */
MEED_MUST_CHECK enum meed_status meed_compress_carry(const struct meed_adapter *old_global,
                                                     const struct meed_adapter *new_global,
                                                     float *residual);

struct meed_compress_job {
    const struct meed_update_header *header;
    const struct meed_msg_codec *codec;
    const struct meed_adapter *global;
    const struct meed_adapter *trained; /* the global's shape */
    uint32_t trained_factors;           /* MEED_FACTOR_A | MEED_FACTOR_B */
    const float *control; /* SCAFFOLD: c_k' − c_k [value count], goes behind the factors; or NULL */
    float *control_sent; /* [value count]: what the server will read of it */
};

/* Appends the update as it goes over the wire (zstd where the plan asks and it pays). residual
 * [value count] is e before and after; on failure it is what it was. stats may be NULL. */
MEED_MUST_CHECK enum meed_status meed_compress_update(const struct meed_compress_job *job,
                                                      float *residual, struct meed_buf *bytes,
                                                      struct meed_update_stats *stats);

/* The residual in a file of the client's state folder: checked by hash when read. */
MEED_MUST_CHECK enum meed_status meed_compress_save(const float *residual, int64_t count,
                                                    const char *path);
/* NOT_FOUND, or INTEGRITY if it is damaged or of another size; residual untouched then. */
MEED_MUST_CHECK enum meed_status meed_compress_load(const char *path, int64_t count,
                                                    float *residual);

MEED_END_C
#endif
