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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch_packs_without_cutting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
