/* The data stream: every epoch sees every sequence once, micro-batches keep their limits, and any
 * position can be entered without what came before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "engine/trainer_order.h"

enum { COUNT = 11, BATCH_TOKENS = 30 };

static int32_t ids[64];
static uint8_t scored[64];

static void make_data(struct meed_sequence data[COUNT])
{
    memset(scored, 1, sizeof scored);
    scored[0] = 0;
    for (int i = 0; i < COUNT; i++) {
        data[i] = (struct meed_sequence){.ids = ids, .scored = scored, .length = 2 + (i * 7) % 29};
    }
}

/* Goal: rows never exceed the batch, a batch ends only because the next does not fit, and after any
 * number of micro-batches each sequence was met equally often, but for the running epoch. */
static void trainer_order_packs_in_order(void **state)
{
    (void)state;
    struct meed_sequence data[COUNT];
    struct meed_trainer_order order;
    struct meed_batch *batch = NULL;
    int64_t position = 0, rows = 0, scored_rows = 0;
    make_data(data);
    assert_int_equal(meed_trainer_order_init(&order, data, COUNT, BATCH_TOKENS, 9), MEED_OK);
    assert_int_equal(
        meed_batch_create(BATCH_TOKENS, meed_trainer_order_max_sequences(&order), &batch), MEED_OK);
    for (int i = 0; i < 40; i++) {
        struct meed_trainer_take take, again;
        int64_t before = position, probe = position;
        meed_trainer_order_take(&order, &position, batch, &take);
        meed_trainer_order_take(&order, &probe, NULL, &again);
        assert_int_equal(probe, position);
        assert_memory_equal(&take, &again, sizeof take);
        assert_int_equal(position - before, take.sequences);
        assert_int_equal(batch->sequences, take.sequences);
        assert_int_equal(batch->rows, take.rows);
        assert_int_equal(batch->loss_rows, take.scored);
        assert_true(take.sequences > 0 && take.rows <= BATCH_TOKENS);
        rows += take.rows;
        scored_rows += take.scored;
    }
    int64_t epoch_rows = 0;
    for (int i = 0; i < COUNT; i++) {
        epoch_rows += data[i].length - 1;
    }
    assert_int_equal(rows, scored_rows);
    assert_int_equal(rows / epoch_rows, position / COUNT);
    meed_batch_destroy(batch);
    meed_trainer_order_clear(&order);
}

/* Goal: a fresh object entered in the middle continues like the one that came from the start. */
static void trainer_order_enters_anywhere(void **state)
{
    (void)state;
    struct meed_sequence data[COUNT];
    struct meed_trainer_order x, y;
    int64_t position = 0;
    make_data(data);
    assert_int_equal(meed_trainer_order_init(&x, data, COUNT, BATCH_TOKENS, 9), MEED_OK);
    for (int i = 0; i < 25; i++) {
        struct meed_trainer_take p, q;
        int64_t other = position;
        assert_int_equal(meed_trainer_order_init(&y, data, COUNT, BATCH_TOKENS, 9), MEED_OK);
        meed_trainer_order_take(&y, &other, NULL, &q);
        meed_trainer_order_take(&x, &position, NULL, &p);
        assert_int_equal(position, other);
        assert_memory_equal(&p, &q, sizeof p);
        meed_trainer_order_clear(&y);
    }
    meed_trainer_order_clear(&x);
}

/* Goal: little data is taken once a micro-batch, not copied until the batch is full. */
static void trainer_order_never_repeats_inside_a_batch(void **state)
{
    (void)state;
    struct meed_sequence data[COUNT];
    struct meed_trainer_order order;
    struct meed_trainer_take take;
    int64_t position = 0;
    make_data(data);
    assert_int_equal(meed_trainer_order_init(&order, data, 3, 10000, 9), MEED_OK);
    meed_trainer_order_take(&order, &position, NULL, &take);
    assert_int_equal(take.sequences, 3);
    assert_int_equal(position, 3);
    meed_trainer_order_clear(&order);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trainer_order_packs_in_order),
        cmocka_unit_test(trainer_order_enters_anywhere),
        cmocka_unit_test(trainer_order_never_repeats_inside_a_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
