/* See generate.h. One loop: take pages for those who wait for a neighbour's prompt, fill free
 * slots, compose a batch, decode, hand on the token of every sequence whose prompt is complete. A
 * batch holds first one row for every sequence that is replying, so replies never wait for prompts;
 * what is left of max_rows goes to prompts in the order of sequences. With slots ≤ max_rows both
 * always move.
 *
 * A sequence is a row of the cache with the ids fed into it. Prompts look for their longest common
 * beginning among all of them, those still under way included: a prompt that shares at least a page
 * with one that is being fed waits for it. A waiting sequence has no rows; the one it waits for is
 * active, so nobody takes its pages away, and what it waits for is part of that prompt, so it
 * comes.
 */
#include "engine/generate.h"

#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "base/rng.h"
#include "engine/net_decode.h"

struct sequence {
    int32_t *ids;  /* [capacity]: the prompt, then the reply as far as it was fed */
    int32_t known; /* of them */
    int32_t fed;   /* positions in the cache */
    int32_t gate_set;
    int64_t used; /* step of the last row */

    int32_t prompt_idx; /* −1: held only */
    uint32_t turn;
    int32_t prompt_length;
    int32_t length;     /* tokens of the reply so far */
    int32_t max_length; /* of the reply */
    int32_t *reply;     /* [capacity] */
    uint64_t key;       /* of the random stream */
    int32_t source;     /* −1, or the sequence that is being fed what this one will share */
    int32_t share;      /* positions */
};

struct meed_generator {
    struct meed_net *net;
    struct meed_generate_options options; /* as at creation */
    struct meed_generator_counts counts;
    int32_t sequence_count; /* slots + keep */
    int32_t capacity;
    struct meed_kv_cache *cache; /* NULL before the first run */
    struct sequence *sequences;  /* [sequence_count] */
    int32_t *tokens;             /* ids and replies of all sequences */
    int32_t *ids;                /* [max_rows] the batch */
    int32_t *row_slots;          /* [max_rows] */
    int32_t *positions;          /* [max_rows] */
    int32_t *want_rows;          /* [slots] */
    int32_t *gate_sets;          /* [max_rows] */
    int32_t *want_gate_sets;     /* [slots] */
    struct sequence **want_of;   /* [slots] */
    uint64_t *keys;              /* [slots] */
    int32_t *draws;              /* [slots] */
    int32_t *drawn;              /* [slots] */
};

/* One call of meed_generator_run. */
struct run {
    struct meed_generator *g;
    const struct meed_prompt *prompts;
    int32_t count;
    const struct meed_generate_options *options;
    const struct meed_generate_hooks *hooks;
    struct meed_arena *arena;   /* the caller's */
    struct meed_reply *replies; /* [count], the run's own */
    int32_t next_prompt;
    int32_t busy;
    int32_t rows; /* of the batch */
    int32_t wants;
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

/* --- checks ----------------------------------------------------------------------------------- */
static int32_t max_positions(const struct meed_generator *g)
{
    int32_t most = meed_net_config(g->net)->max_positions;
    return g->options.capacity > 0 ? MEED_MIN(g->options.capacity, most) : most;
}

static enum meed_status check_prompt(const struct meed_generator *g,
                                     const struct meed_prompt *prompt, int32_t idx)
{
    int32_t vocab = meed_net_config(g->net)->vocab;
    if (prompt->length < 1) {
        return MEED_FAIL(MEED_ARG, "prompt %d is empty", (int)idx);
    }
    if (prompt->length >= max_positions(g)) {
        return MEED_FAIL(MEED_LIMIT,
                         "prompt %d has %d tokens; the model has %d positions, which leaves none "
                         "for a reply",
                         (int)idx, (int)prompt->length, (int)max_positions(g));
    }
    if (prompt->gate_set < 0 || prompt->gate_set >= MEED_MAX(1, meed_net_gate_sets(g->net))) {
        return MEED_FAIL(MEED_ARG, "prompt %d asks for gate set %d of %d", (int)idx,
                         (int)prompt->gate_set, (int)meed_net_gate_sets(g->net));
    }
    for (int32_t i = 0; i < prompt->length; i++) {
        if (prompt->ids[i] < 0 || prompt->ids[i] >= vocab) {
            return MEED_FAIL(MEED_ARG,
                             "prompt %d holds the id %d; the model knows 0 to %d: tokenizer and "
                             "model do not belong together",
                             (int)idx, (int)prompt->ids[i], (int)vocab - 1);
        }
    }
    return MEED_OK;
}

static enum meed_status check_drawing(const struct meed_generate_options *options)
{
    if (!(options->temperature >= 0.0f) || !isfinite(options->temperature)) {
        return MEED_FAIL(MEED_ARG, "the temperature must be 0 or more, not %g",
                         (double)options->temperature);
    }
    if (!(options->top_p > 0.0f && options->top_p <= 1.0f)) {
        return MEED_FAIL(MEED_ARG, "top-p must be above 0 and at most 1, not %g",
                         (double)options->top_p);
    }
    if (options->top_k < 0) {
        return MEED_FAIL(MEED_ARG, "top-k must be 0 (off) or more, not %d", (int)options->top_k);
    }
    if (options->max_new_tokens < 0) {
        return MEED_FAIL(MEED_ARG, "generation needs max_new_tokens ≥ 0, not %d",
                         (int)options->max_new_tokens);
    }
    return MEED_OK;
}

/* --- memory ----------------------------------------------------------------------------------- */
enum meed_status meed_generator_create(struct meed_net *net,
                                       const struct meed_generate_options *options,
                                       struct meed_generator **generator)
{
    enum meed_status st = MEED_NOMEM;
    if (options->slots < 1 || options->max_rows < 1 || options->keep < 0 || options->capacity < 0 ||
        options->pages < 0) {
        return MEED_FAIL(MEED_ARG,
                         "generation needs slots ≥ 1, max_rows ≥ 1 and keep, capacity, pages ≥ 0, "
                         "not %d, %d, %d, %d and %d",
                         (int)options->slots, (int)options->max_rows, (int)options->keep,
                         (int)options->capacity, (int)options->pages);
    }
    struct meed_generator *g = meed_heap_alloc(1, sizeof *g);
    if (!g) {
        return MEED_NOMEM;
    }
    g->net = net;
    g->options = *options;
    g->options.slots = MEED_MIN(options->slots, options->max_rows);
    g->sequence_count = g->options.slots + options->keep;
    size_t rows = (size_t)options->max_rows;
    size_t slots = (size_t)g->options.slots;
    g->sequences = meed_heap_alloc((size_t)g->sequence_count, sizeof *g->sequences);
    g->ids = meed_heap_alloc(rows, sizeof *g->ids);
    g->row_slots = meed_heap_alloc(rows, sizeof *g->row_slots);
    g->positions = meed_heap_alloc(rows, sizeof *g->positions);
    g->want_rows = meed_heap_alloc(slots, sizeof *g->want_rows);
    g->gate_sets = meed_heap_alloc(rows, sizeof *g->gate_sets);
    g->want_gate_sets = meed_heap_alloc(slots, sizeof *g->want_gate_sets);
    g->want_of = meed_heap_alloc(slots, sizeof *g->want_of);
    g->keys = meed_heap_alloc(slots, sizeof *g->keys);
    g->draws = meed_heap_alloc(slots, sizeof *g->draws);
    g->drawn = meed_heap_alloc(slots, sizeof *g->drawn);
    if (g->sequences && g->ids && g->row_slots && g->positions && g->want_rows && g->gate_sets &&
        g->want_gate_sets && g->want_of && g->keys && g->draws && g->drawn) {
        *generator = g;
        st = MEED_OK;
    } else {
        meed_generator_destroy(g);
    }
    return st;
}

void meed_generator_destroy(struct meed_generator *generator)
{
    if (!generator) {
        return;
    }
    void *const blocks[] = {generator->sequences, generator->tokens,    generator->ids,
                            generator->row_slots, generator->positions, generator->want_rows,
                            generator->want_of,   generator->keys,      generator->draws,
                            generator->drawn,     generator->gate_sets, generator->want_gate_sets};
    meed_kv_cache_destroy(generator->cache);
    for (size_t i = 0; i < MEED_COUNT(blocks); i++) {
        meed_heap_free(blocks[i]);
    }
    meed_heap_free(generator);
}

void meed_generator_forget(struct meed_generator *generator)
{
    for (int32_t s = 0; s < generator->sequence_count && generator->cache; s++) {
        struct sequence *sequence = &generator->sequences[s];
        meed_kv_cache_truncate(generator->cache, s, 0);
        sequence->known = sequence->fed = 0;
        sequence->prompt_idx = -1;
        sequence->source = -1;
    }
}

struct meed_generator_counts meed_generator_counts(const struct meed_generator *generator)
{
    struct meed_generator_counts counts = generator->counts;
    counts.graphs = generator->cache ? meed_kv_cache_graph_steps(generator->cache) : 0;
    return counts;
}

/* A cache whose sequences may have `capacity` positions, at least; what was held is dropped if the
 * old one is too small. Sizes double, so a growing conversation is fed anew seldom. */
static enum meed_status make_room(struct meed_generator *g, int32_t capacity)
{
    if (g->cache && capacity <= g->capacity) {
        return MEED_OK;
    }
    capacity = MEED_MIN(MEED_MAX(capacity, 2 * g->capacity), max_positions(g));
    meed_kv_cache_destroy(g->cache);
    meed_heap_free(g->tokens);
    g->cache = NULL;
    g->capacity = 0;
    g->tokens =
        meed_heap_alloc(2 * (size_t)g->sequence_count * (size_t)capacity, sizeof *g->tokens);
    if (!g->tokens) {
        return MEED_NOMEM;
    }
    int64_t pages = g->options.pages;
    if (pages == 0) { /* held sequences live on what the slots leave */
        pages = (int64_t)g->options.slots * ((capacity + MEED_KV_PAGE - 1) / MEED_KV_PAGE);
    }
    MEED_TRY(meed_kv_cache_create(g->net, g->sequence_count, capacity,
                                  (int32_t)MEED_MIN(pages, INT32_MAX), &g->cache));
    g->capacity = capacity;
    for (int32_t s = 0; s < g->sequence_count; s++) {
        int32_t *ids = g->tokens + 2 * (size_t)s * (size_t)capacity;
        g->sequences[s] =
            (struct sequence){.ids = ids, .reply = ids + capacity, .prompt_idx = -1, .source = -1};
    }
    return MEED_OK;
}

/* Positions that the longest prompt and its reply can need. */
static int32_t wanted_capacity(const struct run *run)
{
    int32_t longest = 0;
    if (run->g->options.capacity > 0) {
        return max_positions(run->g);
    }
    for (int32_t i = 0; i < run->count; i++) {
        longest = MEED_MAX(longest, run->prompts[i].length);
    }
    int32_t room = max_positions(run->g) - longest;
    return longest + MEED_MIN(room, run->options->max_new_tokens);
}

/* --- admission -------------------------------------------------------------------------------- */

/* How much of a prompt a sequence holds or will hold; the last token is always fed, for its
 * logits. */
static int32_t common_length(const struct sequence *sequence, const struct meed_prompt *prompt)
{
    int32_t most = MEED_MIN(sequence->known, prompt->length - 1);
    int32_t same = 0;
    if (sequence->gate_set != prompt->gate_set) {
        return 0;
    }
    while (same < most && sequence->ids[same] == prompt->ids[same]) {
        same++;
    }
    return same;
}

/* The sequence with the longest common beginning; −1 if none has any. */
static int32_t find_source(const struct meed_generator *g, const struct meed_prompt *prompt,
                           int32_t *length)
{
    int32_t source = -1;
    *length = 0;
    for (int32_t s = 0; s < g->sequence_count; s++) {
        int32_t same = common_length(&g->sequences[s], prompt);
        if (same > *length) {
            source = s;
            *length = same;
        }
    }
    return source;
}

/* A sequence for a new prompt: an empty one, or the one that was used longest ago; but the source
 * itself where cutting it loses no more than that, or than what is shared. */
static int32_t find_place(const struct meed_generator *g, int32_t source, int32_t share)
{
    int32_t place = -1;
    for (int32_t s = 0; s < g->sequence_count; s++) {
        const struct sequence *at = &g->sequences[s];
        const struct sequence *best = &g->sequences[MEED_MAX(place, 0)];
        if (at->prompt_idx >= 0 || s == source) {
            continue;
        }
        if (place < 0 || (best->fed > 0 && (at->fed == 0 || at->used < best->used))) {
            place = s;
        }
    }
    if (source >= 0 && g->sequences[source].prompt_idx < 0) {
        int32_t lost = g->sequences[source].fed - share;
        if (place < 0 || lost <= MEED_MAX(share, g->sequences[place].fed)) {
            return source;
        }
    }
    return place;
}

/* Takes the pages that a sequence waits for, once they are fed. */
static void share_if_fed(struct meed_generator *g, int32_t s)
{
    struct sequence *sequence = &g->sequences[s];
    if (sequence->source >= 0 && g->sequences[sequence->source].fed >= sequence->share) {
        meed_kv_cache_share(g->cache, sequence->source, s, sequence->share);
        sequence->fed = sequence->share;
        sequence->source = -1;
        g->counts.shared += sequence->share;
    }
}

/* Puts a prompt into a sequence; busy counts it. */
static void admit(struct run *run, const struct meed_prompt *prompt, int32_t idx, uint32_t turn)
{
    struct meed_generator *g = run->g;
    int32_t share;
    int32_t source = find_source(g, prompt, &share);
    int32_t place = find_place(g, source, share);
    struct sequence *sequence = &g->sequences[place];
    if (source >= 0 && g->sequences[source].fed < share) {
        const struct sequence *from = &g->sequences[source];
        share = share - from->fed >= MEED_KV_PAGE ? share : from->fed;
    }
    if (source == place) {
        meed_kv_cache_truncate(g->cache, place, share);
        sequence->fed = share;
        g->counts.shared += share;
        source = -1;
    } else {
        meed_kv_cache_truncate(g->cache, place, 0);
        sequence->fed = 0;
    }
    memcpy(sequence->ids, prompt->ids, (size_t)prompt->length * sizeof *prompt->ids);
    sequence->known = prompt->length;
    sequence->gate_set = prompt->gate_set;
    sequence->prompt_idx = idx;
    sequence->turn = turn;
    sequence->prompt_length = prompt->length;
    sequence->length = 0;
    sequence->max_length = MEED_MIN(run->options->max_new_tokens, g->capacity - prompt->length);
    int32_t period = run->options->stream_period;
    uint32_t stream = (uint32_t)(period > 0 ? idx % period : idx);
    sequence->key =
        meed_rng_stream(run->options->seed, "generate", (uint64_t)turn << 32 | stream).key;
    sequence->source = share > 0 ? source : -1;
    sequence->share = share;
    share_if_fed(g, place);
    run->busy++;
}

static void fill_slots(struct run *run)
{
    while (run->busy < run->g->options.slots && run->next_prompt < run->count) {
        int32_t idx = run->next_prompt++;
        admit(run, &run->prompts[idx], idx, 0);
    }
}

/* --- the batch -------------------------------------------------------------------------------- */
static void add_row(struct run *run, int32_t s)
{
    struct meed_generator *g = run->g;
    struct sequence *sequence = &g->sequences[s];
    g->ids[run->rows] = sequence->ids[sequence->fed];
    g->row_slots[run->rows] = s;
    g->gate_sets[run->rows] = sequence->gate_set;
    g->positions[run->rows] = sequence->fed++;
    sequence->used = g->counts.steps;
    run->rows++;
}

static void want_last_row(struct run *run, int32_t s)
{
    struct meed_generator *g = run->g;
    struct sequence *sequence = &g->sequences[s];
    g->want_rows[run->wants] = run->rows - 1;
    g->want_gate_sets[run->wants] = sequence->gate_set;
    g->want_of[run->wants] = sequence;
    g->keys[run->wants] = sequence->key;
    g->draws[run->wants++] = sequence->length;
}

/* Held sequences go, the longest unused first, until `pages` are free or none is left. */
static void free_pages(struct meed_generator *g, int32_t pages)
{
    while (meed_kv_cache_free_pages(g->cache) < pages) {
        int32_t oldest = -1;
        for (int32_t s = 0; s < g->sequence_count; s++) {
            const struct sequence *at = &g->sequences[s];
            if (at->prompt_idx < 0 && at->fed > 0 &&
                (oldest < 0 || at->used < g->sequences[oldest].used)) {
                oldest = s;
            }
        }
        if (oldest < 0) {
            return;
        }
        meed_kv_cache_truncate(g->cache, oldest, 0);
        g->sequences[oldest].known = g->sequences[oldest].fed = 0;
    }
}

static void compose(struct run *run)
{
    struct meed_generator *g = run->g;
    run->rows = 0;
    run->wants = 0;
    for (int32_t s = 0; s < g->sequence_count; s++) {
        struct sequence *sequence = &g->sequences[s];
        if (sequence->prompt_idx >= 0 && sequence->length > 0) {
            add_row(run, s);
            want_last_row(run, s);
        }
    }
    for (int32_t s = 0; s < g->sequence_count; s++) {
        struct sequence *sequence = &g->sequences[s];
        if (sequence->prompt_idx < 0 || sequence->length > 0 || sequence->source >= 0) {
            continue;
        }
        while (sequence->fed < sequence->prompt_length && run->rows < g->options.max_rows) {
            add_row(run, s);
            if (sequence->fed == sequence->prompt_length) {
                want_last_row(run, s);
            }
        }
    }
    /* A row may begin a page, or copy one that is shared. */
    int32_t pages = 0;
    for (int32_t i = 0; i < run->rows; i++) {
        bool first = i == 0 || g->row_slots[i] != g->row_slots[i - 1];
        pages += first || g->positions[i] % MEED_KV_PAGE == 0 ? 1 : 0;
    }
    free_pages(g, pages);
}

/* --- replies ---------------------------------------------------------------------------------- */
static bool is_stop(const struct meed_generate_options *options, int32_t token)
{
    for (int32_t i = 0; i < options->stop_count; i++) {
        if (options->stop_ids[i] == token) {
            return true;
        }
    }
    return false;
}

/* Hands the reply over; the sequence is held only, or goes on with its dialogue's next prompt. */
static enum meed_status finish(struct run *run, struct sequence *sequence, bool stopped)
{
    void *ids;
    size_t bytes = (size_t)sequence->length * sizeof(int32_t);
    int32_t idx = sequence->prompt_idx;
    struct meed_prompt next = {.gate_set = sequence->gate_set};
    MEED_TRY(meed_arena_alloc(run->arena, bytes, &ids));
    if (bytes > 0) {
        memcpy(ids, sequence->reply, bytes);
    }
    run->replies[idx] = (struct meed_reply){ids, sequence->length, stopped};
    sequence->prompt_idx = -1;
    sequence->known = sequence->fed;
    run->busy--;
    if (run->hooks->on_turn) {
        MEED_TRY(run->hooks->on_turn(run->hooks->user, idx, &run->replies[idx], &next));
    }
    if (next.length > 0) {
        MEED_TRY(check_prompt(run->g, &next, idx));
        if (next.length >= run->g->capacity) {
            return MEED_FAIL(MEED_LIMIT,
                             "prompt %d has %d tokens at turn %u; the generator has room for %d "
                             "positions: raise its capacity",
                             (int)idx, (int)next.length, sequence->turn + 1, (int)run->g->capacity);
        }
        admit(run, &next, idx, sequence->turn + 1);
    }
    return MEED_OK;
}

static enum meed_status advance(struct run *run, struct sequence *sequence, int32_t token)
{
    if (is_stop(run->options, token)) {
        return finish(run, sequence, true);
    }
    sequence->reply[sequence->length++] = token;
    sequence->ids[sequence->known++] = token;
    const struct meed_generate_hooks *hooks = run->hooks;
    if (hooks->on_token && !hooks->on_token(hooks->user, sequence->prompt_idx, token)) {
        return MEED_FAIL(MEED_CANCELLED, "generation was cancelled");
    }
    return sequence->length == sequence->max_length ? finish(run, sequence, false) : MEED_OK;
}

static enum meed_status loop(struct run *run)
{
    struct meed_generator *g = run->g;
    const struct meed_sample_rule rule = {run->options->temperature, run->options->top_p,
                                          run->options->top_k};
    for (fill_slots(run); run->busy > 0; fill_slots(run)) {
        compose(run);
        const struct meed_decode_rows rows = {run->rows,    g->ids,           g->row_slots,
                                              g->positions, run->wants,       g->want_rows,
                                              g->gate_sets, g->want_gate_sets};
        MEED_TRY(
            meed_net_decode_sample(g->net, g->cache, &rows, &rule, g->keys, g->draws, g->drawn));
        g->counts.steps++;
        g->counts.fed += run->rows;
        for (int32_t s = 0; s < g->sequence_count; s++) {
            share_if_fed(g, s); /* before a source may end and lose its pages */
        }
        for (int32_t w = 0; w < run->wants; w++) {
            MEED_TRY(advance(run, g->want_of[w], g->drawn[w]));
        }
    }
    return MEED_OK;
}

/* What was under way is held as far as it was fed. */
static void stop_all(struct meed_generator *g)
{
    for (int32_t s = 0; s < g->sequence_count; s++) {
        struct sequence *sequence = &g->sequences[s];
        sequence->prompt_idx = -1;
        sequence->source = -1;
        sequence->known = sequence->fed;
    }
}

enum meed_status meed_generator_run(struct meed_generator *generator,
                                    const struct meed_prompt *prompts, int32_t count,
                                    const struct meed_generate_options *options,
                                    const struct meed_generate_hooks *hooks,
                                    struct meed_arena *arena, struct meed_reply *replies)
{
    static const struct meed_generate_hooks none = {NULL, NULL, NULL};
    struct run run = {.g = generator,
                      .prompts = prompts,
                      .count = count,
                      .options = options,
                      .hooks = hooks ? hooks : &none,
                      .arena = arena};
    MEED_TRY(check_drawing(options));
    for (int32_t i = 0; i < count; i++) {
        MEED_TRY(check_prompt(generator, &prompts[i], i));
    }
    if (count < 1 || options->max_new_tokens == 0) {
        for (int32_t i = 0; i < count; i++) {
            replies[i] = (struct meed_reply){NULL, 0, false};
        }
        return MEED_OK;
    }
    MEED_TRY(make_room(generator, wanted_capacity(&run)));
    run.replies = meed_heap_alloc((size_t)count, sizeof *run.replies);
    if (!run.replies) {
        return MEED_NOMEM;
    }
    enum meed_status st = loop(&run);
    if (st == MEED_OK) {
        memcpy(replies, run.replies, (size_t)count * sizeof *replies);
    }
    stop_all(generator);
    if (st != MEED_OK && st != MEED_CANCELLED) {
        meed_generator_forget(generator);
    }
    meed_heap_free(run.replies);
    return st;
}

enum meed_status meed_generate(struct meed_net *net, const struct meed_prompt *prompts,
                               int32_t count, const struct meed_generate_options *options,
                               struct meed_arena *arena, struct meed_reply *replies,
                               meed_generate_token_fn on_token, void *user)
{
    struct meed_generate_options sized = *options;
    const struct meed_generate_hooks hooks = {on_token, NULL, user};
    struct meed_generator *generator = NULL;
    sized.slots = MEED_MIN(options->slots, MEED_MAX(count, 1));
    MEED_TRY(meed_generator_create(net, &sized, &generator));
    enum meed_status st =
        meed_generator_run(generator, prompts, count, options, &hooks, arena, replies);
    meed_generator_destroy(generator);
    return st;
}
