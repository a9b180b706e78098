/* See batch.h. A batch is one heap block cut by an arena; adding a sequence is a copy and never
 * fails for lack of memory. */
#include "engine/batch.h"

#include <string.h>
#include "base/arena.h"

/* The arena lives in front of the public struct, so that a batch stays one allocation to callers.
 */
struct owned_batch {
    struct meed_batch batch; /* first: the pointer that callers hold */
    struct meed_arena arena;
};

static enum meed_status lay_out(struct owned_batch *own, int32_t rows, int32_t sequences)
{
    struct {
        int32_t **place;
        size_t count;
    } parts[] = {
        {&own->batch.ids, (size_t)rows},           {&own->batch.positions, (size_t)rows},
        {&own->batch.loss_row, (size_t)rows},      {&own->batch.loss_target, (size_t)rows},
        {&own->batch.loss_sequence, (size_t)rows}, {&own->batch.starts, (size_t)sequences + 1},
        {&own->batch.gate_set, (size_t)sequences},
    };
    for (size_t i = 0; i < MEED_COUNT(parts); i++) {
        void *block = NULL;
        MEED_TRY(meed_arena_alloc_array(&own->arena, parts[i].count, sizeof(int32_t), &block));
        *parts[i].place = block;
    }
    return MEED_OK;
}

enum meed_status meed_batch_create(int32_t row_capacity, int32_t sequence_capacity,
                                   struct meed_batch **batch)
{
    enum meed_status st = MEED_OK;
    if (row_capacity < 1 || sequence_capacity < 1) {
        return MEED_FAIL(MEED_ARG, "a batch of %d rows and %d sequences; both must be at least 1",
                         row_capacity, sequence_capacity);
    }
    struct owned_batch *own = meed_heap_alloc(1, sizeof *own);
    if (!own) {
        return MEED_NOMEM;
    }
    meed_arena_init(&own->arena, "batch");
    MEED_TRY_OUT(lay_out(own, row_capacity, sequence_capacity));
    MEED_TRY_OUT(meed_arena_reserve(&own->arena));
    MEED_TRY_OUT(lay_out(own, row_capacity, sequence_capacity));
    meed_arena_seal(&own->arena);
    own->batch.row_capacity = row_capacity;
    own->batch.sequence_capacity = sequence_capacity;
    meed_batch_reset(&own->batch);
    *batch = &own->batch;
out:
    if (st != MEED_OK) {
        meed_batch_destroy(&own->batch);
    }
    return st;
}

void meed_batch_destroy(struct meed_batch *batch)
{
    if (batch) {
        struct owned_batch *own = (struct owned_batch *)(void *)batch;
        meed_arena_clear(&own->arena);
        meed_heap_free(own);
    }
}

void meed_batch_reset(struct meed_batch *batch)
{
    batch->rows = 0;
    batch->sequences = 0;
    batch->max_length = 0;
    batch->loss_rows = 0;
    batch->starts[0] = 0;
}

bool meed_batch_add(struct meed_batch *batch, const struct meed_sequence *sequence,
                    int32_t gate_set)
{
    MEED_ASSERT(sequence->length >= 2 && sequence->scored[0] == 0);
    int32_t rows = sequence->length - 1;
    if (rows > batch->row_capacity - batch->rows || batch->sequences == batch->sequence_capacity) {
        return false;
    }
    memcpy(batch->ids + batch->rows, sequence->ids, (size_t)rows * sizeof(int32_t));
    for (int32_t t = 0; t < rows; t++) {
        batch->positions[batch->rows + t] = t;
        if (sequence->scored[t + 1]) {
            batch->loss_row[batch->loss_rows] = batch->rows + t;
            batch->loss_target[batch->loss_rows] = sequence->ids[t + 1];
            batch->loss_sequence[batch->loss_rows] = batch->sequences;
            batch->loss_rows++;
        }
    }
    batch->gate_set[batch->sequences] = gate_set;
    batch->sequences++;
    batch->rows += rows;
    batch->starts[batch->sequences] = batch->rows;
    batch->max_length = MEED_MAX(batch->max_length, rows);
    return true;
}

/* The next row from `row` on that carries no loss; `taken` walks the batch's loss rows beside it.
 */
static int32_t next_idle(const struct meed_batch *batch, int32_t loss_rows, int32_t row,
                         int32_t *taken)
{
    while (*taken < loss_rows && batch->loss_row[*taken] == row) {
        ++*taken;
        row++;
    }
    return row;
}

void meed_batch_pad(struct meed_batch *batch, int32_t rows, int32_t sequences, int32_t loss_rows)
{
    MEED_ASSERT(rows >= batch->rows && rows <= batch->row_capacity);
    MEED_ASSERT(sequences > batch->sequences && sequences <= batch->sequence_capacity);
    MEED_ASSERT(loss_rows >= batch->loss_rows && loss_rows <= rows);
    int32_t last = batch->sequences;
    for (int32_t m = batch->rows; m < rows; m++) {
        batch->ids[m] = 0;
        batch->positions[m] = 0;
    }
    for (int32_t s = last; s < sequences; s++) {
        batch->gate_set[s] = 0;
        batch->starts[s + 1] = rows;
    }
    int32_t scored = batch->loss_rows, taken = 0, row = 0;
    for (int32_t i = scored; i < loss_rows; i++) {
        row = next_idle(batch, scored, row, &taken);
        batch->loss_row[i] = row++;
        batch->loss_target[i] = -1;
        batch->loss_sequence[i] = last;
    }
    batch->rows = rows;
    batch->sequences = sequences;
    batch->loss_rows = loss_rows;
}
