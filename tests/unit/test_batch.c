/* Batches: sequences end to end, rows that are scored, and a refusal instead of a cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/batch.h"

static void batch_packs_without_cutting(void **state)
{
    (void)state;
    int32_t ids[] = {5, 6, 7, 8};
    uint8_t scored[] = {0, 0, 1, 1};
    struct meed_sequence sequence = {ids, scored, 4};
    struct meed_batch *batch = NULL;
    assert_int_equal(meed_batch_create(0, 1, &batch), MEED_ARG);
    assert_int_equal(meed_batch_create(7, 2, &batch), MEED_OK);
    assert_true(meed_batch_add(batch, &sequence, 4));
    assert_true(meed_batch_add(batch, &sequence, 9));
    assert_false(meed_batch_add(batch, &sequence, 0));
    assert_int_equal(batch->rows, 6);
    assert_int_equal(batch->loss_rows, 4);
    assert_int_equal(batch->starts[1], 3);
    assert_int_equal(batch->starts[2], 6);
    assert_int_equal(batch->positions[4], 1);
    assert_int_equal(batch->loss_row[2], 4);
    assert_int_equal(batch->loss_target[2], 7);
    assert_int_equal(batch->loss_sequence[2], 1);
    assert_int_equal(batch->gate_set[1], 9);
    assert_int_equal(batch->max_length, 3);
    meed_batch_reset(batch);
    assert_true(meed_batch_add(batch, &sequence, 0));
    sequence.length = 3;
    assert_true(meed_batch_add(batch, &sequence, 0));
    assert_false(meed_batch_add(batch, &sequence, 0)); /* two sequences at most */
    assert_int_equal(batch->rows, 5);
    meed_batch_destroy(batch);
}

/* Goal: a padded batch has the shape asked for, its own rows as before, and padding rows that are
 * distinct, carry no loss and stand in a sequence of their own. */
static void batch_pads_to_a_shape(void **state)
{
    (void)state;
    int32_t ids[] = {5, 6, 7, 8};
    uint8_t scored[] = {0, 1, 0, 1};
    static const int32_t starts[] = {0, 3, 6, 8, 8};
    static const int32_t loss_row[] = {0, 2, 3, 5, 1, 4, 6};
    struct meed_sequence sequence = {ids, scored, 4};
    struct meed_batch *batch = NULL;
    assert_int_equal(meed_batch_create(8, 4, &batch), MEED_OK);
    assert_true(meed_batch_add(batch, &sequence, 1));
    assert_true(meed_batch_add(batch, &sequence, 1));
    batch->ids[7] = 99;
    meed_batch_pad(batch, 8, 4, 7);
    assert_int_equal(batch->rows, 8);
    assert_int_equal(batch->sequences, 4);
    assert_int_equal(batch->loss_rows, 7);
    assert_int_equal(batch->max_length, 3);
    assert_memory_equal(batch->starts, starts, sizeof starts);
    assert_memory_equal(batch->loss_row, loss_row, sizeof loss_row);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(batch->loss_target[i] == -1, i >= 4);
    }
    assert_int_equal(batch->ids[7], 0);
    assert_int_equal(batch->positions[6], 0);
    meed_batch_destroy(batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch_packs_without_cutting),
        cmocka_unit_test(batch_pads_to_a_shape),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
