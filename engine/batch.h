/* A packed batch: token sequences laid end to end, and which rows are scored.
 *
 * Row m predicts target[m]; weight[m] > 0 marks the rows that carry loss (assistant content and its
 * end of turn). Only those rows reach the LM head. Sequences never attend to each other. The
 * builder is used by training, valuation and perplexity alike; it cuts nothing: a sequence longer
 * than the model's positions is refused by the caller, who knows its file and line.
 */
#ifndef MEED_ENGINE_BATCH_H
#define MEED_ENGINE_BATCH_H

#include "base/buf.h"
#include "kernels/types.h"

MEED_BEGIN_C

/* One tokenised sequence with a mask of what is learned or scored. */
struct meed_sequence {
    int32_t *ids;    /* [length] */
    uint8_t *scored; /* [length]: 1 if token t is a target (predicted from t-1); scored[0] = 0 */
    int32_t length;
};

struct meed_batch {
    int32_t rows; /* M */
    int32_t sequences;
    int32_t max_length;
    int32_t loss_rows;      /* rows with target ≥ 0 */
    int32_t *ids;           /* [M] */
    int32_t *positions;     /* [M] */
    int32_t *starts;        /* [sequences + 1] */
    int32_t *loss_row;      /* [loss_rows]: row index, increasing */
    int32_t *loss_target;   /* [loss_rows]; −1: padding */
    int32_t *loss_sequence; /* [loss_rows]: sequence index */
    int32_t *gate_set; /* [sequences] or NULL: gate vector of each sequence (stack evaluation) */
    int32_t row_capacity;
    int32_t sequence_capacity;
};

MEED_MUST_CHECK enum meed_status meed_batch_create(int32_t row_capacity, int32_t sequence_capacity,
                                                   struct meed_batch **batch);
void meed_batch_destroy(struct meed_batch *batch); /* accepts NULL */
void meed_batch_reset(struct meed_batch *batch);
/* False (and nothing changed) if the sequence does not fit. The last token of a sequence is a
 * target only and gets no row of its own: a sequence of length n takes n - 1 rows. */
bool meed_batch_add(struct meed_batch *batch, const struct meed_sequence *sequence,
                    int32_t gate_set);
/* Fills the batch up to exactly this shape, so that graphs of few shapes serve many batches
 * (graph_cache.h): a last sequence of padding rows (token 0, position 0), empty sequences behind
 * it, and loss rows with target −1 at rows that carry no loss. None of it reaches a result: padding
 * has log-probability 0 and gradient 0, and no row sees another sequence. Needs one sequence more
 * than the batch has, no less of anything, loss_rows ≤ rows, and room. */
void meed_batch_pad(struct meed_batch *batch, int32_t rows, int32_t sequences, int32_t loss_rows);

MEED_END_C
#endif
