/* oneDNN's matmul behind one door: tiles of rows, Meed's own threads, one OpenMP thread each.
 *
 * Why tiles and not one big call: libgomp's workers spin at their barriers, and on a laptop where a
 * server and several clients share two cores that costs half the throughput (three quarters at
 * small shapes). Here every Meed worker runs single-threaded primitives on row tiles of a few fixed
 * heights, so few primitives exist and none ever starts a team.
 *
 * Bits: only implementations whose name begins with "brg" (batch-reduce kernels, AVX-512, dense
 * operands) are used. They give each row of C the same bits for any M, checked by the parity tests
 * on every shape they run. Anything else is refused, and the caller's own kernel serves.
 *
 * Packed weights: when the same B is met again and again with few rows (decoding), it is reordered
 * once into oneDNN's blocked layout, which triples the speed of one-row products; training never
 * packs, since at many rows packing gains little and the weights' tail changes every step. A packed
 * copy is dropped by forget() of any pointer inside B. Same bits packed or plain.
 */
#ifndef MEED_CPU_MATMUL_ONEDNN_H
#define MEED_CPU_MATMUL_ONEDNN_H

#include "kernels/backend.h"

struct meed_matmul_onednn; /* the packed copies of one backend */

MEED_MUST_CHECK enum meed_status meed_matmul_onednn_create(struct meed_matmul_onednn **state);
void meed_matmul_onednn_destroy(struct meed_matmul_onednn *state);
/* Drops the packed copy of any weight whose memory holds this address. */
void meed_matmul_onednn_forget(struct meed_matmul_onednn *state, const void *address);
/* False: not served, nothing written. */
bool meed_matmul_onednn_run(struct meed_pool *pool, struct meed_matmul_onednn *state,
                            enum meed_matmul_kind kind, struct meed_mat a, struct meed_mat b,
                            bool accumulate, struct meed_mat c);

#endif
