/* The low-rank tail, T = gates ⊙ (x̃·Aᵀ), as a piece that producers of x call tile by tile.
 *
 * RMSNorm and GLU call tail_rows on the rows they have just written, while those sit in the
 * first cache; lora_down is the same call over a finished x. T is computed from x as stored
 * (rounded to bf16 in a bf16 model) in fp32, one chain over k per element (panel.h, dot_bf16.h), so
 * fused and unfused give the same bits.
 *
 * Dropout (Srivastava et al. 2014) acts on x in the low-rank branch alone. The mask is never
 * stored: element (m, k) is kept if word (e mod 4) of Philox block (e div 4) of the key is at least
 * dropout·2^32, with e = m·K + k. Forward, dA and dx regenerate it.
 */
#ifndef MEED_CPU_LORA_TAIL_H
#define MEED_CPU_LORA_TAIL_H

#include "kernels/cpu/panel.h"

enum { TAIL_ROWS = 32 }; /* rows of a producer's tile */

struct tail_job {
    const struct meed_tail *tail;
    const void *packed; /* Aᵀ in panels or pairs; NULL where there is no tail */
    bool pairs;         /* of bf16, for dot_bf16.h; else panels of fp32 */
    int64_t k;
    int64_t r;
};

/* Packs A for x of `dtype` into the caller's shared scratch. tail may be NULL (no tail). */
struct tail_job MEED_TWIN(tail_prepare)(const struct meed_tail *tail, int64_t k,
                                        enum meed_dtype dtype);
/* Fills columns [k, k + r) of rows [begin, end) of x, reading columns [0, k). */
void MEED_TWIN(tail_rows)(const struct tail_job *job, struct meed_mat x, int64_t begin,
                          int64_t end);
/* u[row, 0:panel_cols(r)] = x̃·Aᵀ without gates, for rows [begin, end). */
void MEED_TWIN(tail_product)(const struct tail_job *job, struct meed_mat x, int64_t begin,
                             int64_t end, float *u);
/* values[i] *= keep(m, k_begin + i) / (1 − dropout), for count values of row m; width is K. */
void MEED_TWIN(tail_dropout)(const struct meed_tail *tail, int64_t width, int64_t m,
                             int64_t k_begin, int64_t count, float *values);

/* Gates of row m, or NULL for all ones. */
static inline const float *tail_gates(const struct meed_tail *tail, int64_t m)
{
    if (!tail->gates) {
        return NULL;
    }
    int64_t set = tail->gate_of_row ? tail->gate_of_row[m] : 0;
    return tail->gates + set * tail->a.rows;
}

#endif
