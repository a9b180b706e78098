/* See generate.h. One loop: fill free slots, compose a batch, decode, pick a token for every slot
 * whose prompt is complete. A batch holds first one row for every slot that is replying, so replies
 * never wait for prompts; what is left of max_rows goes to prompts in slot order. With slots ≤
 * max_rows both always move.
 *
 * All memory is laid out before the loop (twice the same function: measured, then reserved), but
 * for the finished replies, which go to the caller's arena.
 */
#include "engine/generate.h"

#include <string.h>
#include "base/rng.h"
#include "engine/sampler.h"

struct slot {
    int32_t prompt_idx; /* -1: free */
    int32_t fed;        /* positions in the cache */
    int32_t length;     /* tokens of the reply so far */
    int32_t max_length; /* of the reply */
    int32_t *reply;     /* [max_new_tokens] */
    struct meed_rng rng;
};

struct run {
    struct meed_net *net;
    const struct meed_prompt *prompts;
    int32_t count;
    const struct meed_generate_options *options;
    struct meed_sampler_options sampler;
    struct meed_arena *arena; /* the caller's */
    meed_generate_token_fn on_token;
    void *user;
    int32_t vocab;
    int32_t max_positions;
    int32_t slot_count;
    int32_t next_prompt;
    int32_t busy;

    struct meed_kv_cache *cache;
    struct slot *slots;  /* [slot_count] */
    int32_t *ids;        /* [max_rows] the batch */
    int32_t *row_slots;  /* [max_rows] */
    int32_t *positions;  /* [max_rows] */
    int32_t *want_rows;  /* [slot_count] */
    int32_t *want_slots; /* [slot_count] */
    int32_t rows;
    int32_t wants;
    float *logits;                   /* [slot_count, V] */
    struct meed_sampler_item *items; /* [V] */
    struct meed_reply *replies;      /* [count] */
};

struct meed_generate_options meed_generate_defaults(void)
{
    return (struct meed_generate_options){
        .max_new_tokens = 256,
        .top_p = 1.0f,
        .seed = 1,
        .slots = 8,
        .max_rows = 128,
    };
}

/* --- checks and memory ----------------------------------------------------------------------- */
static enum meed_status check_prompt(const struct run *run, int32_t idx)
{
    const struct meed_prompt *prompt = &run->prompts[idx];
    if (prompt->length < 1) {
        return MEED_FAIL(MEED_ARG, "prompt %d is empty", (int)idx);
    }
    if (prompt->length >= run->max_positions) {
        return MEED_FAIL(MEED_LIMIT,
                         "prompt %d has %d tokens; the model has %d positions, which leaves none "
                         "for a reply",
                         (int)idx, (int)prompt->length, (int)run->max_positions);
    }
    for (int32_t i = 0; i < prompt->length; i++) {
        if (prompt->ids[i] < 0 || prompt->ids[i] >= run->vocab) {
            return MEED_FAIL(MEED_ARG,
                             "prompt %d holds the id %d; the model knows 0 to %d: tokenizer and "
                             "model do not belong together",
                             (int)idx, (int)prompt->ids[i], (int)run->vocab - 1);
        }
    }
    return MEED_OK;
}

static enum meed_status check(const struct run *run)
{
    const struct meed_generate_options *options = run->options;
    MEED_TRY(meed_sampler_check(&run->sampler));
    if (options->max_new_tokens < 0 || options->slots < 1 || options->max_rows < 1) {
        return MEED_FAIL(MEED_ARG,
                         "generation needs max_new_tokens ≥ 0, slots ≥ 1 and max_rows ≥ 1, not "
                         "%d, %d and %d",
                         (int)options->max_new_tokens, (int)options->slots, (int)options->max_rows);
    }
    for (int32_t i = 0; i < run->count; i++) {
        MEED_TRY(check_prompt(run, i));
    }
    return MEED_OK;
}

static enum meed_status take(struct meed_arena *scratch, size_t count, size_t item_bytes,
                             void **block)
{
    return meed_arena_alloc_array(scratch, count, item_bytes, block);
}

static enum meed_status layout(struct run *run, struct meed_arena *scratch)
{
    size_t rows = (size_t)run->options->max_rows;
    size_t slots = (size_t)run->slot_count;
    size_t vocab = (size_t)run->vocab;
    size_t longest = (size_t)MEED_MIN(run->options->max_new_tokens, run->max_positions);
    void *block[10];
    MEED_TRY(take(scratch, rows, sizeof *run->ids, &block[0]));
    MEED_TRY(take(scratch, rows, sizeof *run->row_slots, &block[1]));
    MEED_TRY(take(scratch, rows, sizeof *run->positions, &block[2]));
    MEED_TRY(take(scratch, slots, sizeof *run->want_rows, &block[3]));
    MEED_TRY(take(scratch, slots, sizeof *run->want_slots, &block[4]));
    MEED_TRY(take(scratch, slots * vocab, sizeof *run->logits, &block[5]));
    MEED_TRY(take(scratch, vocab, sizeof *run->items, &block[6]));
    MEED_TRY(take(scratch, (size_t)run->count, sizeof *run->replies, &block[7]));
    MEED_TRY(take(scratch, slots, sizeof *run->slots, &block[8]));
    MEED_TRY(take(scratch, slots * longest, sizeof *run->ids, &block[9]));
    run->ids = block[0];
    run->row_slots = block[1];
    run->positions = block[2];
    run->want_rows = block[3];
    run->want_slots = block[4];
    run->logits = block[5];
    run->items = block[6];
    run->replies = block[7];
    run->slots = block[8];
    for (size_t i = 0; run->slots && i < slots; i++) {
        run->slots[i].prompt_idx = -1;
        run->slots[i].reply = (int32_t *)block[9] + i * longest;
    }
    return MEED_OK;
}

/* Positions that the longest prompt and its reply can need. */
static int32_t cache_capacity(const struct run *run)
{
    int32_t longest = 0;
    for (int32_t i = 0; i < run->count; i++) {
        longest = MEED_MAX(longest, run->prompts[i].length);
    }
    int32_t room = run->max_positions - longest;
    return longest + MEED_MIN(room, run->options->max_new_tokens);
}

/* --- the loop -------------------------------------------------------------------------------- */
static void fill_slots(struct run *run)
{
    for (int32_t s = 0; s < run->slot_count && run->next_prompt < run->count; s++) {
        struct slot *slot = &run->slots[s];
        if (slot->prompt_idx < 0) {
            int32_t idx = run->next_prompt++;
            slot->prompt_idx = idx;
            slot->fed = 0;
            slot->length = 0;
            slot->max_length = MEED_MIN(run->options->max_new_tokens,
                                        run->max_positions - run->prompts[idx].length);
            slot->rng = meed_rng_stream(run->options->seed, "generate", (uint64_t)idx);
            run->busy++;
        }
    }
}

static void add_row(struct run *run, int32_t s, int32_t id)
{
    run->ids[run->rows] = id;
    run->row_slots[run->rows] = s;
    run->positions[run->rows] = run->slots[s].fed++;
    run->rows++;
}

static void want_last_row(struct run *run, int32_t s)
{
    run->want_rows[run->wants] = run->rows - 1;
    run->want_slots[run->wants++] = s;
}

static void compose(struct run *run)
{
    run->rows = 0;
    run->wants = 0;
    for (int32_t s = 0; s < run->slot_count; s++) {
        struct slot *slot = &run->slots[s];
        if (slot->prompt_idx >= 0 && slot->length > 0) {
            add_row(run, s, slot->reply[slot->length - 1]);
            want_last_row(run, s);
        }
    }
    for (int32_t s = 0; s < run->slot_count; s++) {
        struct slot *slot = &run->slots[s];
        if (slot->prompt_idx < 0 || slot->length > 0) {
            continue;
        }
        const struct meed_prompt *prompt = &run->prompts[slot->prompt_idx];
        while (slot->fed < prompt->length && run->rows < run->options->max_rows) {
            add_row(run, s, prompt->ids[slot->fed]);
            if (slot->fed == prompt->length) {
                want_last_row(run, s);
            }
        }
    }
}

static bool is_stop(const struct meed_generate_options *options, int32_t token)
{
    for (int32_t i = 0; i < options->stop_count; i++) {
        if (options->stop_ids[i] == token) {
            return true;
        }
    }
    return false;
}

/* Hands the reply over and frees the slot. */
static enum meed_status finish(struct run *run, struct slot *slot, bool stopped)
{
    void *ids;
    size_t bytes = (size_t)slot->length * sizeof(int32_t);
    MEED_TRY(meed_arena_alloc(run->arena, bytes, &ids));
    if (bytes > 0) {
        memcpy(ids, slot->reply, bytes);
    }
    run->replies[slot->prompt_idx] = (struct meed_reply){ids, slot->length, stopped};
    slot->prompt_idx = -1;
    run->busy--;
    return MEED_OK;
}

static enum meed_status advance(struct run *run, struct slot *slot, const float *logits)
{
    int32_t token = 0;
    double unit = meed_rng_unit(&slot->rng);
    MEED_TRY(meed_sampler_pick(&run->sampler, logits, run->vocab, unit, run->items, &token));
    if (is_stop(run->options, token)) {
        return finish(run, slot, true);
    }
    slot->reply[slot->length++] = token;
    if (run->on_token && !run->on_token(run->user, slot->prompt_idx, token)) {
        return MEED_FAIL(MEED_CANCELLED, "generation was cancelled");
    }
    return slot->length == slot->max_length ? finish(run, slot, false) : MEED_OK;
}

static enum meed_status loop(struct run *run)
{
    for (fill_slots(run); run->busy > 0; fill_slots(run)) {
        compose(run);
        MEED_TRY(meed_net_decode(run->net, run->cache, run->rows, run->ids, run->row_slots,
                                 run->positions, run->want_rows, run->wants, run->logits));
        for (int32_t w = 0; w < run->wants; w++) {
            MEED_TRY(advance(run, &run->slots[run->want_slots[w]],
                             run->logits + (size_t)w * (size_t)run->vocab));
        }
    }
    return MEED_OK;
}

enum meed_status meed_generate(struct meed_net *net, const struct meed_prompt *prompts,
                               int32_t count, const struct meed_generate_options *options,
                               struct meed_arena *arena, struct meed_reply *replies,
                               meed_generate_token_fn on_token, void *user)
{
    struct run run = {
        .net = net,
        .prompts = prompts,
        .count = count,
        .options = options,
        .sampler = {options->temperature, options->top_p, options->top_k},
        .arena = arena,
        .on_token = on_token,
        .user = user,
        .vocab = meed_net_config(net)->vocab,
        .max_positions = meed_net_config(net)->max_positions,
    };
    MEED_TRY(check(&run));
    if (count < 1 || options->max_new_tokens == 0) {
        for (int32_t i = 0; i < count; i++) {
            replies[i] = (struct meed_reply){NULL, 0, false};
        }
        return MEED_OK;
    }
    run.slot_count = MEED_MIN(MEED_MIN(options->slots, count), options->max_rows);
    struct meed_arena scratch;
    enum meed_status st;
    meed_arena_init(&scratch, "generation");
    MEED_TRY_OUT(layout(&run, &scratch));
    MEED_TRY_OUT(meed_arena_reserve(&scratch));
    MEED_TRY_OUT(layout(&run, &scratch));
    MEED_TRY_OUT(meed_kv_cache_create(net, run.slot_count, cache_capacity(&run), &run.cache));
    MEED_TRY_OUT(loop(&run));
    memcpy(replies, run.replies, (size_t)count * sizeof *replies);
out:
    meed_kv_cache_destroy(run.cache);
    meed_arena_clear(&scratch);
    return st;
}
