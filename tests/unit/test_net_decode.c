/* Decoding with a cache is the forward pass in another order.
 *
 * Goal: the logits of a token do not depend on how the tokens before it were fed: all at once, one
 * at a time, interleaved with other slots, or by another slot whose pages are shared. Method:
 * golden models against meed_net_logits; then a trained model that lies outside the tree
 * (MEED_SHARED_DATA) must continue its start token with the very ids that its authors published.
 * Without that folder the test says so and skips.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "base/file.h"
#include "engine/net_decode.h"
#include "tests/support/small_net.h"

enum { CAPACITY = 32 };

/* Feeds tokens [begin, end) of sequence s into its slot and compares every row's logits. */
static void feed(struct meed_net *net, struct meed_kv_cache *cache, const struct golden *golden,
                 int s, int32_t begin, int32_t end, const float *want)
{
    int32_t slots[CAPACITY], positions[CAPACITY], rows[CAPACITY];
    int64_t vocab = golden->checkpoint->config.vocab;
    int32_t count = end - begin;
    float *got = meed_heap_alloc((size_t)(count * vocab), sizeof *got);
    for (int32_t i = 0; i < count; i++) {
        slots[i] = s;
        positions[i] = begin + i;
        rows[i] = i;
    }
    const struct meed_decode_rows batch = {count, golden->ids[s] + begin, slots, positions, count,
                                           rows, NULL, NULL};
    golden_ok(meed_net_decode(net, cache, &batch, got));
    int64_t first = golden->batch->starts[s] + begin;
    assert_true(golden_worst(got, want + first * vocab, count * vocab) < 1e-5);
    meed_heap_free(got);
}

static void check_family(const struct small_machine *machine, const char *family)
{
    struct golden golden;
    golden_open(MEED_SOURCE_DIR, family, &golden);
    const struct meed_adapter *adapters[] = {golden.adapter};
    struct meed_net *net = small_net(machine, &golden, MEED_DTYPE_F32, false, adapters, 1);
    struct meed_kv_cache *cache = NULL;
    int32_t fed[GOLDEN_SEQUENCES] = {0};
    float *want = golden_tensor(&golden, "peft.logits", NULL);
    golden_ok(meed_kv_cache_create(net, GOLDEN_SEQUENCES, CAPACITY, 0, &cache));
    for (int s = 0; s < GOLDEN_SEQUENCES; s++) { /* prompts: 4 rows at once */
        fed[s] = 4;
        feed(net, cache, &golden, s, 0, fed[s], want);
    }
    for (bool busy = true; busy;) { /* then one row of each in turn */
        busy = false;
        for (int s = 0; s < GOLDEN_SEQUENCES; s++) {
            if (fed[s] < golden.sequences[s].length - 1) {
                feed(net, cache, &golden, s, fed[s], fed[s] + 1, want);
                fed[s]++;
                busy = true;
            }
        }
    }
    feed(net, cache, &golden, 0, 0, 12, want); /* a slot may start anew */
    golden_free(want);
    meed_kv_cache_destroy(cache);
    meed_net_destroy(net);
    golden_close(&golden);
}

static void net_decode_equals_the_full_forward(void **state)
{
    (void)state;
    struct small_machine machine;
    small_machine_open(2, &machine);
    for (int i = 0; i < golden_family_count; i++) {
        check_family(&machine, golden_families[i]);
    }
    small_machine_close(&machine);
}

/* One token into a slot. */
static enum meed_status decode_one(struct meed_net *net, struct meed_kv_cache *cache, int32_t id,
                                   int32_t slot, int32_t position, float *logits)
{
    const int32_t row = 0;
    const struct meed_decode_rows rows = {1, &id, &slot, &position, 1, &row, NULL, NULL};
    return meed_net_decode(net, cache, &rows, logits);
}

/* Rows of several slots in one call give each slot the bits it has alone. */
static void net_decode_ignores_the_other_slots(void **state)
{
    (void)state;
    struct small_machine machine;
    struct golden golden;
    small_machine_open(2, &machine);
    golden_open(MEED_SOURCE_DIR, "qwen3", &golden);
    struct meed_net *net = small_net(&machine, &golden, MEED_DTYPE_BF16, false, NULL, 0);
    struct meed_kv_cache *cache = NULL;
    enum { STEPS = 6 };
    float *logits = meed_heap_alloc(3u * (size_t)golden.checkpoint->config.vocab, sizeof *logits);
    float *alone[STEPS];
    size_t bytes = (size_t)golden.checkpoint->config.vocab * sizeof *logits;
    golden_ok(meed_kv_cache_create(net, GOLDEN_SEQUENCES, CAPACITY, 0, &cache));
    const int32_t row1 = 1;
    for (int32_t t = 0; t < STEPS; t++) {
        const int32_t slot = 1;
        alone[t] = meed_heap_alloc((size_t)golden.checkpoint->config.vocab, sizeof *logits);
        golden_ok(decode_one(net, cache, golden.ids[1][t], slot, t, alone[t]));
    }
    for (int32_t t = 0; t < STEPS; t++) {
        const int32_t slots[] = {0, 1, 2}, positions[] = {t, t, t};
        const int32_t ids[] = {golden.ids[0][t], golden.ids[1][t], golden.ids[2][t]};
        const struct meed_decode_rows rows = {3, ids, slots, positions, 1, &row1, NULL, NULL};
        golden_ok(meed_net_decode(net, cache, &rows, logits));
        assert_memory_equal(logits, alone[t], bytes);
        meed_heap_free(alone[t]);
    }
    int32_t id = golden.ids[0][0];
    assert_int_equal(decode_one(net, cache, id, 3, 0, logits), MEED_LIMIT);
    assert_int_equal(decode_one(net, cache, id, 0, CAPACITY, logits), MEED_LIMIT);
    assert_int_equal(decode_one(net, cache, id, 0, STEPS + 1, logits), MEED_ARG); /* a gap */
    meed_heap_free(logits);
    meed_kv_cache_destroy(cache);
    meed_net_destroy(net);
    golden_close(&golden);
    small_machine_close(&machine);
}

static int32_t arg_max(const float *values, int32_t count)
{
    int32_t best = 0;
    for (int32_t i = 1; i < count; i++) {
        best = values[i] > values[best] ? i : best;
    }
    return best;
}

/* Slots that share a prefix, part by and behind the page's end, and part ways: the bits of slots
 * that were fed alone; a slot that turns back writes a page of its own. Tokens drawn on the device
 * are those of the logits. */
static void net_decode_shares_pages(void **state)
{
    (void)state;
    enum { PREFIX = 70, OWN = 3, PAGES = 5 };
    struct small_machine machine;
    struct golden golden;
    small_machine_open(2, &machine);
    golden_open(MEED_SOURCE_DIR, "qwen3", &golden);
    struct meed_net *net = small_net(&machine, &golden, MEED_DTYPE_BF16, false, NULL, 0);
    struct meed_kv_cache *cache = NULL;
    int32_t vocab = golden.checkpoint->config.vocab;
    size_t bytes = (size_t)vocab * sizeof(float);
    float *alone = meed_heap_alloc(3 * (size_t)vocab, sizeof *alone);
    float *logits = meed_heap_alloc((size_t)vocab, sizeof *logits);
    int32_t capacity = golden.checkpoint->config.max_positions;
    assert_true(capacity >= PREFIX + OWN);
    golden_ok(meed_kv_cache_create(net, 4, capacity, PAGES, &cache));
    for (int32_t slot = 0; slot < 3; slot++) { /* slot s alone: prefix, then token s three times */
        meed_kv_cache_truncate(cache, 0, 0);
        for (int32_t t = 0; t < PREFIX + OWN; t++) {
            int32_t id = t < PREFIX ? t * 7 % vocab : slot;
            golden_ok(decode_one(net, cache, id, 0, t, alone + slot * vocab));
        }
    }
    meed_kv_cache_truncate(cache, 0, PREFIX);
    meed_kv_cache_share(cache, 0, 1, PREFIX);
    meed_kv_cache_share(cache, 1, 2, PREFIX);
    for (int32_t t = PREFIX; t < PREFIX + OWN; t++) { /* in turn, each on its own copy */
        for (int32_t slot = 0; slot < 3; slot++) {
            golden_ok(decode_one(net, cache, slot, slot, t, logits));
            assert_true(t < PREFIX + OWN - 1 || memcmp(logits, alone + slot * vocab, bytes) == 0);
        }
    }
    assert_int_equal(meed_kv_cache_free_pages(cache), PAGES - 4); /* one in common, three of own */
    meed_kv_cache_share(cache, 0, 3, PREFIX - 1);
    golden_ok(decode_one(net, cache, (PREFIX - 1) * 7 % vocab, 3, PREFIX - 1, logits));
    assert_int_equal(decode_one(net, cache, 1, 3, PREFIX + 5, logits), MEED_ARG);
    assert_int_equal(meed_kv_cache_free_pages(cache), 0);
    meed_kv_cache_share(cache, 0, 3, PREFIX);
    assert_int_equal(meed_kv_cache_free_pages(cache), 1);
    meed_kv_cache_share(cache, 0, 3, 0);

    const struct meed_sample_rule rules[] = {{0, 1, 0}, {0.5f, 1, 1}};
    for (int i = 0; i < 2; i++) {
        const int32_t id = 2, slot = 2, position = PREFIX + OWN - 1, row = 0, draw = 5;
        const struct meed_decode_rows rows = {1, &id, &slot, &position, 1, &row, NULL, NULL};
        uint64_t key = 9;
        int32_t token = -1;
        golden_ok(meed_net_decode_sample(net, cache, &rows, &rules[i], &key, &draw, &token));
        assert_int_equal(token, arg_max(alone + 2 * vocab, vocab));
    }
    meed_heap_free(alone);
    meed_heap_free(logits);
    meed_kv_cache_destroy(cache);
    meed_net_destroy(net);
    golden_close(&golden);
    small_machine_close(&machine);
}

static void follow_greedily(struct meed_net *net, const json_t *ids)
{
    int32_t vocab = meed_net_config(net)->vocab;
    int32_t count = (int32_t)json_array_size(ids);
    float *logits = meed_heap_alloc((size_t)vocab, sizeof *logits);
    struct meed_kv_cache *cache = NULL;
    golden_ok(meed_kv_cache_create(net, 1, count, 0, &cache));
    for (int32_t t = 0; t + 1 < count; t++) {
        int32_t id = (int32_t)json_integer_value(json_array_get(ids, (size_t)t));
        golden_ok(decode_one(net, cache, id, 0, t, logits));
        int32_t next = (int32_t)json_integer_value(json_array_get(ids, (size_t)t + 1));
        assert_int_equal(arg_max(logits, vocab), next);
    }
    printf("  %d greedy tokens reproduced\n", count - 1);
    meed_kv_cache_destroy(cache);
    meed_heap_free(logits);
}

static void net_decode_tells_the_published_story(void **state)
{
    (void)state;
    const char *model = MEED_SHARED_DATA "/models/stories260K_hf";
    const char *path = MEED_SHARED_DATA "/models/stories260K/greedy_expected.json";
    if (!meed_file_exists(MEED_SHARED_DATA "/models/stories260K_hf/config.json") ||
        !meed_file_exists(path)) {
        printf("  SKIPPED: no trained model under %s\n", MEED_SHARED_DATA);
        skip();
    }
    struct small_machine machine;
    struct meed_checkpoint *checkpoint = NULL;
    struct meed_net *net = NULL;
    json_t *expected = json_load_file(path, 0, NULL);
    const json_t *ids = json_object_get(expected, "greedy_ids");
    assert_true(json_array_size(ids) > 1);
    small_machine_open(2, &machine);
    golden_ok(meed_checkpoint_open(model, &checkpoint));
    struct meed_net_options options = {.max_rows = 1, .max_sequences = 1};
    golden_ok(meed_net_create(machine.be, checkpoint, &options, &net));
    follow_greedily(net, ids);
    meed_net_destroy(net);
    meed_checkpoint_close(checkpoint);
    small_machine_close(&machine);
    json_decref(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(net_decode_equals_the_full_forward),
        cmocka_unit_test(net_decode_ignores_the_other_slots),
        cmocka_unit_test(net_decode_shares_pages),
        cmocka_unit_test(net_decode_tells_the_published_story),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
