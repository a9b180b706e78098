/* The scheduler of generation over a network that is nothing but a hash of what was fed.
 *
 * Goal: a reply does not depend on slots, batch size, piece size or neighbours; limits, stops and
 * cancelling hold; the decode contract (rows of a slot in order, positions continuing, a fresh slot
 * starting at 0) is kept. Method: this file defines the functions of engine/net.h that generation
 * calls; the logits are a function of the whole history of a slot, so a single row fed twice, late
 * or into the wrong slot changes every token after it. The real network is tested elsewhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "base/rng.h"
#include "engine/generate.h"

enum { VOCAB = 97, POSITIONS = 64, SLOTS = 64, PROMPTS = 40 };

struct meed_net {
    struct meed_model_config config;
    int32_t largest_batch;
    int32_t calls;
};
struct meed_kv_cache {
    int32_t slots;
    int32_t capacity;
    int32_t length[SLOTS];
    uint64_t history[SLOTS];
};

static struct meed_net net = {.config = {.vocab = VOCAB, .max_positions = POSITIONS}};
static struct meed_kv_cache cache_memory;
static int open_caches;
static int32_t decode_fails_at = -1;

const struct meed_model_config *meed_net_config(const struct meed_net *of)
{
    return &of->config;
}

enum meed_status meed_kv_cache_create(const struct meed_net *of, int32_t slots, int32_t capacity,
                                      struct meed_kv_cache **cache)
{
    (void)of;
    assert_in_range(slots, 1, SLOTS);
    assert_in_range(capacity, 1, POSITIONS);
    memset(&cache_memory, 0, sizeof cache_memory);
    cache_memory.slots = slots;
    cache_memory.capacity = capacity;
    open_caches++;
    *cache = &cache_memory;
    return MEED_OK;
}

void meed_kv_cache_destroy(struct meed_kv_cache *cache)
{
    open_caches -= cache != NULL;
}

static uint64_t mixed(uint64_t history, uint64_t value)
{
    uint32_t out[4];
    meed_rng_block(history, value, out);
    return (uint64_t)out[0] << 32 | out[1];
}

enum meed_status meed_net_decode(struct meed_net *of, struct meed_kv_cache *cache, int32_t rows,
                                 const int32_t *ids, const int32_t *slots, const int32_t *positions,
                                 const int32_t *want_rows, int32_t want_count, float *logits)
{
    uint64_t after[4096];
    of->largest_batch = MEED_MAX(of->largest_batch, rows);
    if (of->calls++ == decode_fails_at) {
        return MEED_FAIL(MEED_DEVICE, "planted");
    }
    assert_in_range(rows, 1, 4096);
    for (int32_t m = 0; m < rows; m++) {
        int32_t s = slots[m];
        assert_in_range(s, 0, cache->slots - 1);
        if (positions[m] == 0) {
            cache->length[s] = 0;
            cache->history[s] = 1;
        }
        assert_int_equal(positions[m], cache->length[s]);
        assert_true(positions[m] < cache->capacity);
        cache->length[s]++;
        cache->history[s] = mixed(cache->history[s], (uint64_t)ids[m]);
        after[m] = cache->history[s];
    }
    for (int32_t w = 0; w < want_count; w++) {
        for (int32_t v = 0; v < VOCAB; v++) {
            uint64_t noise = mixed(after[want_rows[w]], (uint64_t)v + 1000);
            logits[w * VOCAB + v] = (float)(noise % 1000) * 0.01f;
        }
    }
    return MEED_OK;
}

/* --- prompts --------------------------------------------------------------------------------- */
static int32_t prompt_ids[PROMPTS][POSITIONS];
static struct meed_prompt prompts[PROMPTS];

static int make_prompts(void **state)
{
    (void)state;
    struct meed_rng rng = meed_rng_stream(2, "prompts", 0);
    for (int p = 0; p < PROMPTS; p++) {
        prompts[p].ids = prompt_ids[p];
        prompts[p].length = 1 + (int32_t)meed_rng_below(&rng, 50);
        for (int i = 0; i < POSITIONS; i++) {
            prompt_ids[p][i] = (int32_t)meed_rng_below(&rng, VOCAB);
        }
    }
    return 0;
}

static enum meed_status generate(const struct meed_prompt *of, int32_t count,
                                 struct meed_generate_options options, struct meed_arena *arena,
                                 struct meed_reply *replies)
{
    net.largest_batch = 0;
    net.calls = 0;
    enum meed_status status = meed_generate(&net, of, count, &options, arena, replies, NULL, NULL);
    assert_int_equal(open_caches, 0);
    assert_true(net.largest_batch <= options.max_rows);
    return status;
}

static void assert_same(const struct meed_reply *x, const struct meed_reply *y)
{
    assert_int_equal(x->length, y->length);
    assert_int_equal(x->stopped, y->stopped);
    if (x->length > 0) {
        assert_memory_equal(x->ids, y->ids, (size_t)x->length * sizeof *x->ids);
    }
}

static struct meed_generate_options options_of(bool greedy)
{
    static const int32_t stops[] = {7, 31};
    struct meed_generate_options options = meed_generate_defaults();
    options.max_new_tokens = 30;
    options.temperature = greedy ? 0.0f : 0.9f;
    options.top_p = greedy ? 1.0f : 0.8f;
    options.stop_ids = stops;
    options.stop_count = 2;
    return options;
}

static void generate_does_not_depend_on_the_batch(void **state)
{
    (void)state;
    static const struct {
        int32_t slots;
        int32_t max_rows;
    } shapes[] = {{1, 1}, {1, 7}, {3, 3}, {8, 16}, {40, 40}, {64, 4096}};
    for (int greedy = 0; greedy < 2; greedy++) {
        struct meed_arena arena;
        struct meed_reply want[PROMPTS];
        meed_arena_init_growing(&arena, "test", 1 << 24);
        struct meed_generate_options options = options_of(greedy);
        assert_int_equal(generate(prompts, PROMPTS, options, &arena, want), MEED_OK);
        int stopped = 0;
        int full = 0;
        for (int p = 0; p < PROMPTS; p++) {
            stopped += want[p].stopped;
            full += want[p].length == 30;
            assert_true(prompts[p].length + want[p].length <= POSITIONS);
        }
        assert_true(stopped > 3 && full > 3);
        for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
            struct meed_reply got[PROMPTS];
            options.slots = shapes[i].slots;
            options.max_rows = shapes[i].max_rows;
            assert_int_equal(generate(prompts, PROMPTS, options, &arena, got), MEED_OK);
            for (int p = 0; p < PROMPTS; p++) {
                assert_same(&got[p], &want[p]);
            }
        }
        struct meed_reply alone; /* prompt 0's stream is that of a single prompt */
        assert_int_equal(generate(prompts, 1, options, &arena, &alone), MEED_OK);
        assert_same(&alone, &want[0]);
        meed_arena_clear(&arena);
    }
}

static void generate_draws_by_seed_and_prompt(void **state)
{
    (void)state;
    struct meed_arena arena;
    struct meed_reply first[2];
    struct meed_reply second[2];
    const struct meed_prompt twice[] = {prompts[0], prompts[0]};
    meed_arena_init_growing(&arena, "test", 1 << 24);
    struct meed_generate_options options = options_of(false);
    assert_int_equal(generate(twice, 2, options, &arena, first), MEED_OK);
    assert_int_equal(generate(twice, 2, options, &arena, second), MEED_OK);
    assert_same(&first[0], &second[0]);
    assert_true(first[0].length != first[1].length ||
                memcmp(first[0].ids, first[1].ids, (size_t)first[0].length * 4) != 0);
    options.seed = 2;
    assert_int_equal(generate(twice, 2, options, &arena, second), MEED_OK);
    assert_true(first[0].length != second[0].length ||
                memcmp(first[0].ids, second[0].ids, (size_t)first[0].length * 4) != 0);
    meed_arena_clear(&arena);
}

/* --- streaming and cancelling ---------------------------------------------------------------- */
struct stream {
    int32_t ids[PROMPTS][POSITIONS];
    int32_t length[PROMPTS];
    int32_t left;
};

static bool record(void *user, int32_t prompt_idx, int32_t token)
{
    struct stream *stream = user;
    stream->ids[prompt_idx][stream->length[prompt_idx]++] = token;
    return stream->left-- != 0;
}

static void generate_streams_and_cancels(void **state)
{
    (void)state;
    static struct stream stream;
    struct meed_arena arena;
    struct meed_reply replies[PROMPTS] = {{NULL, 0, false}};
    meed_arena_init_growing(&arena, "test", 1 << 24);
    struct meed_generate_options options = options_of(false);
    stream.left = -1;
    assert_int_equal(
        meed_generate(&net, prompts, PROMPTS, &options, &arena, replies, record, &stream), MEED_OK);
    for (int p = 0; p < PROMPTS; p++) {
        assert_int_equal(stream.length[p], replies[p].length);
        assert_memory_equal(stream.ids[p], replies[p].ids, (size_t)replies[p].length * 4);
    }
    memset(&stream, 0, sizeof stream);
    memset(replies, 0, sizeof replies);
    stream.left = 10;
    assert_int_equal(
        meed_generate(&net, prompts, PROMPTS, &options, &arena, replies, record, &stream),
        MEED_CANCELLED);
    assert_null(replies[0].ids);
    assert_int_equal(open_caches, 0);
    meed_arena_clear(&arena);
}

/* --- edges ----------------------------------------------------------------------------------- */
static void generate_keeps_limits(void **state)
{
    (void)state;
    struct meed_arena arena;
    struct meed_reply reply = {NULL, 5, true};
    meed_arena_init_growing(&arena, "test", 1 << 24);
    struct meed_generate_options options = meed_generate_defaults();
    assert_int_equal(options.max_new_tokens, 256);
    assert_int_equal(generate(NULL, 0, options, &arena, NULL), MEED_OK);
    struct meed_prompt longest = {prompt_ids[0], POSITIONS - 1};
    assert_int_equal(generate(&longest, 1, options, &arena, &reply), MEED_OK);
    assert_int_equal(reply.length, 1); /* the model's last position */
    assert_false(reply.stopped);
    options.max_new_tokens = 0;
    assert_int_equal(generate(&longest, 1, options, &arena, &reply), MEED_OK);
    assert_int_equal(reply.length, 0);
    options = meed_generate_defaults();
    reply.length = 77;
    struct meed_prompt wrong[] = {{prompt_ids[0], POSITIONS}, {prompt_ids[0], 0}};
    assert_int_equal(generate(&wrong[0], 1, options, &arena, &reply), MEED_LIMIT);
    assert_int_equal(generate(&wrong[1], 1, options, &arena, &reply), MEED_ARG);
    int32_t stranger = VOCAB;
    struct meed_prompt strange = {&stranger, 1};
    assert_int_equal(generate(&strange, 1, options, &arena, &reply), MEED_ARG);
    options.top_p = 0;
    assert_int_equal(generate(&longest, 1, options, &arena, &reply), MEED_ARG);
    options = meed_generate_defaults();
    options.slots = 0;
    assert_int_equal(generate(&longest, 1, options, &arena, &reply), MEED_ARG);
    options.slots = 2;
    decode_fails_at = 1;
    assert_int_equal(generate(prompts, 3, options, &arena, &reply), MEED_DEVICE);
    decode_fails_at = -1;
    assert_int_equal(reply.length, 77);
    meed_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generate_does_not_depend_on_the_batch),
        cmocka_unit_test(generate_draws_by_seed_and_prompt),
        cmocka_unit_test(generate_streams_and_cancels),
        cmocka_unit_test(generate_keeps_limits),
    };
    return cmocka_run_group_tests(tests, make_prompts, NULL);
}
