/* The scheduler of generation over a network that is nothing but a hash of what was fed.
 *
 * Goal: a reply does not depend on slots, batch size, piece size, neighbours, or on what is shared
 * with whom; prefixes and earlier turns are fed once; limits, stops and cancelling hold; the decode
 * contract (rows of a slot in order, positions continuing) is kept. Method: this file defines the
 * functions of engine/net_decode.h; a token is a function of the whole history of a slot, so a
 * single row fed twice, late or into the wrong slot changes every token after it. The real network
 * is tested elsewhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "base/buf.h"
#include "base/rng.h"
#include "engine/generate.h"
#include "engine/net_decode.h"

enum { VOCAB = 97, POSITIONS = 320, SLOTS = 64, PROMPTS = 40 };

struct meed_net {
    struct meed_model_config config;
    int32_t largest_batch;
    int32_t calls;
};
struct meed_kv_cache {
    int32_t slots;
    int32_t capacity;
    int32_t pages;
    int32_t length[SLOTS];
    uint64_t history[SLOTS][POSITIONS + 1]; /* of the first so many tokens */
};

static struct meed_net net = {.config = {.vocab = VOCAB, .max_positions = POSITIONS}};
static int open_caches;
static int32_t decode_fails_at = -1;

const struct meed_model_config *meed_net_config(const struct meed_net *of)
{
    return &of->config;
}

int32_t meed_net_gate_sets(const struct meed_net *of)
{
    (void)of;
    return 0;
}

enum meed_status meed_kv_cache_create(const struct meed_net *of, int32_t slots, int32_t capacity,
                                      int32_t pages, struct meed_kv_cache **cache)
{
    (void)of;
    assert_in_range(slots, 1, SLOTS);
    assert_in_range(capacity, 1, POSITIONS);
    struct meed_kv_cache *made = meed_heap_alloc(1, sizeof *made);
    made->slots = slots;
    made->capacity = capacity;
    made->pages = pages;
    open_caches++;
    *cache = made;
    return MEED_OK;
}

void meed_kv_cache_destroy(struct meed_kv_cache *cache)
{
    open_caches -= cache != NULL;
    meed_heap_free(cache);
}

int32_t meed_kv_cache_length(const struct meed_kv_cache *cache, int32_t slot)
{
    return cache->length[slot];
}

/* As if nothing were shared: what this test of the scheduler can be sure of. */
int32_t meed_kv_cache_free_pages(const struct meed_kv_cache *cache)
{
    int32_t free_pages = cache->pages;
    for (int32_t s = 0; s < cache->slots; s++) {
        free_pages -= (cache->length[s] + MEED_KV_PAGE - 1) / MEED_KV_PAGE;
    }
    return free_pages;
}

int64_t meed_kv_cache_graph_steps(const struct meed_kv_cache *cache)
{
    (void)cache;
    return 0;
}

void meed_kv_cache_truncate(struct meed_kv_cache *cache, int32_t slot, int32_t length)
{
    assert_in_range(length, 0, cache->length[slot]);
    cache->length[slot] = length;
}

void meed_kv_cache_share(struct meed_kv_cache *cache, int32_t from, int32_t to, int32_t length)
{
    assert_int_not_equal(from, to);
    assert_in_range(length, 1, cache->length[from]);
    memcpy(cache->history[to], cache->history[from], sizeof cache->history[to]);
    cache->length[to] = length;
}

static uint64_t mixed(uint64_t history, uint64_t value)
{
    uint32_t out[4];
    meed_rng_block(history, value, out);
    return (uint64_t)out[0] << 32 | out[1];
}

enum meed_status meed_net_decode_sample(struct meed_net *of, struct meed_kv_cache *cache,
                                        const struct meed_decode_rows *rows,
                                        const struct meed_sample_rule *rule, const uint64_t *keys,
                                        const int32_t *draws, int32_t *tokens)
{
    uint64_t after[4096];
    of->largest_batch = MEED_MAX(of->largest_batch, rows->count);
    if (of->calls++ == decode_fails_at) {
        return MEED_FAIL(MEED_DEVICE, "planted");
    }
    assert_in_range(rows->count, 1, 4096);
    for (int32_t m = 0; m < rows->count; m++) {
        int32_t s = rows->slots[m];
        int32_t position = rows->positions[m];
        assert_in_range(s, 0, cache->slots - 1);
        assert_int_equal(position, cache->length[s]);
        assert_true(position < cache->capacity);
        cache->history[s][0] = 1;
        after[m] = mixed(cache->history[s][position], (uint64_t)rows->ids[m]);
        cache->history[s][position + 1] = after[m];
        cache->length[s]++;
    }
    assert_true(meed_kv_cache_free_pages(cache) >= 0 || rows->count > 1);
    for (int32_t w = 0; w < rows->want_count; w++) {
        uint64_t drawn = rule->temperature > 0 ? mixed(keys[w], (uint64_t)draws[w]) : 0;
        tokens[w] = (int32_t)(mixed(after[rows->want_rows[w]], drawn) % VOCAB);
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
    struct meed_prompt longest = {prompt_ids[0], POSITIONS - 1, 0};
    assert_int_equal(generate(&longest, 1, options, &arena, &reply), MEED_OK);
    assert_int_equal(reply.length, 1); /* the model's last position */
    assert_false(reply.stopped);
    options.max_new_tokens = 0;
    assert_int_equal(generate(&longest, 1, options, &arena, &reply), MEED_OK);
    assert_int_equal(reply.length, 0);
    options = meed_generate_defaults();
    reply.length = 77;
    struct meed_prompt wrong[] = {{prompt_ids[0], POSITIONS, 0}, {prompt_ids[0], 0, 0}};
    assert_int_equal(generate(&wrong[0], 1, options, &arena, &reply), MEED_LIMIT);
    assert_int_equal(generate(&wrong[1], 1, options, &arena, &reply), MEED_ARG);
    int32_t stranger = VOCAB;
    struct meed_prompt strange = {&stranger, 1, 0};
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

/* --- what is fed once ------------------------------------------------------------------------- */
static struct meed_generator *open_generator(int32_t slots, int32_t keep, int32_t pages,
                                             int32_t max_rows)
{
    struct meed_generator *generator = NULL;
    struct meed_generate_options options = options_of(false);
    options.slots = slots;
    options.keep = keep;
    options.pages = pages;
    options.max_rows = max_rows;
    options.capacity = POSITIONS;
    assert_int_equal(meed_generator_create(&net, &options, &generator), MEED_OK);
    return generator;
}

/* Prompts behind one demonstration of 200 tokens; each reply is that of the prompt alone. */
static void generate_feeds_a_common_prefix_once(void **state)
{
    (void)state;
    enum { COUNT = 12, PREFIX = 200, OWN = 10 };
    static int32_t ids[COUNT][PREFIX + OWN];
    struct meed_prompt many[COUNT];
    struct meed_reply want[COUNT], got[COUNT];
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "test", 1 << 24);
    struct meed_generate_options options = options_of(false);
    for (int p = 0; p < COUNT; p++) {
        memcpy(ids[p], prompt_ids[0], PREFIX * sizeof(int32_t));
        memcpy(ids[p] + PREFIX, prompt_ids[p + 1], OWN * sizeof(int32_t));
        many[p] = (struct meed_prompt){ids[p], PREFIX + OWN, 0};
    }
    options.slots = 1;
    assert_int_equal(generate(many, COUNT, options, &arena, want), MEED_OK);
    for (int32_t slots = 1; slots <= 16; slots += 5) {
        struct meed_generator *generator = open_generator(slots, 0, 0, PREFIX - 1);
        int64_t replies = 0;
        assert_int_equal(meed_generator_run(generator, many, COUNT, &options, NULL, &arena, got),
                         MEED_OK);
        for (int p = 0; p < COUNT; p++) {
            assert_same(&got[p], &want[p]);
            replies += got[p].length;
        }
        struct meed_generator_counts counts = meed_generator_counts(generator);
        assert_true(counts.shared >= (COUNT - 1) * PREFIX);
        assert_true(counts.fed <= PREFIX + COUNT * OWN + replies);
        meed_generator_destroy(generator);
    }
    meed_arena_clear(&arena);
}

enum { DIALOGUES = 20, QUESTION = 9 };

/* Dialogues of two turns: the second prompt is the first, its reply, and a question. */
struct judge {
    int32_t ids[DIALOGUES][POSITIONS];
    struct meed_reply first[DIALOGUES];
    int32_t turns[DIALOGUES];
    int32_t fed_length[DIALOGUES];
};

static enum meed_status ask_again(void *user, int32_t idx, const struct meed_reply *reply,
                                  struct meed_prompt *next)
{
    struct judge *judge = user;
    if (judge->turns[idx]++ > 0) {
        return MEED_OK;
    }
    int32_t *ids = judge->ids[idx];
    int32_t length = prompts[idx].length;
    judge->first[idx] = *reply;
    memcpy(ids, prompts[idx].ids, (size_t)length * sizeof *ids);
    if (reply->length > 0) {
        memcpy(ids + length, reply->ids, (size_t)reply->length * sizeof *ids);
    }
    memcpy(ids + length + reply->length, prompt_ids[39 - idx], QUESTION * sizeof *ids);
    *next = (struct meed_prompt){ids, length + reply->length + QUESTION, 0};
    return MEED_OK;
}

static void generate_goes_on_with_a_dialogue(void **state)
{
    (void)state;
    static const struct {
        int32_t slots;
        int32_t keep;
        int32_t pages;
    } shapes[] = {{1, 0, 0}, {4, 0, 0}, {20, 3, 0}, {3, 8, 16}, {7, 30, 0}};
    static struct judge judge;
    struct meed_arena arena;
    struct meed_reply want[DIALOGUES], got[DIALOGUES];
    meed_arena_init_growing(&arena, "test", 1 << 24);
    struct meed_generate_options options = options_of(false);
    for (size_t i = 0; i < MEED_COUNT(shapes); i++) {
        memset(&judge, 0, sizeof judge);
        const struct meed_generate_hooks hooks = {NULL, ask_again, &judge};
        struct meed_generator *generator =
            open_generator(shapes[i].slots, shapes[i].keep, shapes[i].pages, 128);
        assert_int_equal(
            meed_generator_run(generator, prompts, DIALOGUES, &options, &hooks, &arena, got),
            MEED_OK);
        int64_t tokens = 0;
        for (int p = 0; p < DIALOGUES; p++) {
            assert_int_equal(judge.turns[p], 2);
            want[p] = i == 0 ? got[p] : want[p];
            assert_same(&got[p], &want[p]);
            tokens += prompts[p].length + judge.first[p].length + QUESTION + got[p].length;
        }
        assert_true(meed_generator_counts(generator).fed <= tokens);
        meed_generator_destroy(generator);
    }
    meed_arena_clear(&arena);
}

/* The same questions again: nothing but each prompt's last token is fed before its reply. */
static void generate_finds_prompts_held(void **state)
{
    (void)state;
    enum { COUNT = 8 };
    struct meed_arena arena;
    struct meed_prompt held[COUNT];
    struct meed_reply first[COUNT], again[COUNT];
    meed_arena_init_growing(&arena, "test", 1 << 24);
    struct meed_generate_options options = options_of(false);
    for (int p = 0; p < COUNT; p++) {
        held[p] = (struct meed_prompt){prompt_ids[p], 40, 0};
    }
    struct meed_generator *generator = open_generator(COUNT, 0, 0, 128);
    assert_int_equal(meed_generator_run(generator, held, COUNT, &options, NULL, &arena, first),
                     MEED_OK);
    int64_t before = meed_generator_counts(generator).fed;
    assert_int_equal(meed_generator_run(generator, held, COUNT, &options, NULL, &arena, again),
                     MEED_OK);
    int64_t fed = meed_generator_counts(generator).fed - before;
    for (int p = 0; p < COUNT; p++) {
        assert_same(&again[p], &first[p]);
        fed -= again[p].length + again[p].stopped;
    }
    assert_int_equal(fed, 0);
    meed_generator_destroy(generator);
    meed_arena_clear(&arena);
}

/* A conversation, all of it as the prompt each time: only what is new is fed. */
static void generate_keeps_a_conversation(void **state)
{
    (void)state;
    struct meed_arena arena;
    struct meed_reply fresh, kept;
    int32_t talk[POSITIONS];
    int32_t length = 0;
    int full = 0;
    meed_arena_init_growing(&arena, "test", 1 << 24);
    struct meed_generate_options options = options_of(false);
    options.capacity = 0; /* grows */
    options.slots = 1;
    struct meed_generator *generator = NULL;
    assert_int_equal(meed_generator_create(&net, &options, &generator), MEED_OK);
    for (int turn = 0; turn < 6; turn++) {
        memcpy(talk + length, prompt_ids[turn], 15 * sizeof *talk);
        length += 15;
        struct meed_prompt prompt = {talk, length, 0};
        options.seed = 5 + (uint64_t)turn;
        assert_int_equal(generate(&prompt, 1, options, &arena, &fresh), MEED_OK);
        int64_t before = meed_generator_counts(generator).fed;
        assert_int_equal(meed_generator_run(generator, &prompt, 1, &options, NULL, &arena, &kept),
                         MEED_OK);
        assert_same(&kept, &fresh);
        int64_t fed = meed_generator_counts(generator).fed - before;
        full += fed > 1 + 15 + kept.length; /* a reply's last token was never fed */
        if (kept.length > 0) {
            memcpy(talk + length, kept.ids, (size_t)kept.length * sizeof *talk);
        }
        length += kept.length;
    }
    assert_true(full <= 3); /* the first turn, and where the cache grew */
    meed_generator_destroy(generator);
    assert_int_equal(open_caches, 0);
    meed_arena_clear(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generate_does_not_depend_on_the_batch),
        cmocka_unit_test(generate_draws_by_seed_and_prompt),
        cmocka_unit_test(generate_streams_and_cancels),
        cmocka_unit_test(generate_keeps_limits),
        cmocka_unit_test(generate_feeds_a_common_prefix_once),
        cmocka_unit_test(generate_goes_on_with_a_dialogue),
        cmocka_unit_test(generate_finds_prompts_held),
        cmocka_unit_test(generate_keeps_a_conversation),
    };
    return cmocka_run_group_tests(tests, make_prompts, NULL);
}
