/* See utility.h.
 *
 * A batch of coalitions between two writes to the cache is as many as fill CHUNK_BATCHES forwards:
 * enough that the last, half-empty forward of a chunk does not matter, few enough that a killed
 * process loses seconds. Coalitions that are not plain sets of up to 16 players have no mask; the
 * cache knows them by the hash of their members, shards do not know them.
 */
#include "evaluation/utility.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "base/clock.h"
#include "evaluation/utility_cache.h"

enum { CHUNK_BATCHES = 6, MAX_MASK_PLAYERS = 16 };

struct meed_utility {
    const struct meed_benchmark *benchmark;
    struct meed_coalition *coalition;
    struct meed_utility_cache *cache;
    struct meed_utility_shard *shard; /* NULL: one process does all */
    int32_t players;
    int32_t nodes; /* > 0: opened for derivatives */
    enum meed_coalition_path path;
    enum meed_block_format base;
    int32_t chunk; /* coalitions scored between two writes */
    uint8_t context[MEED_SHA256_BYTES];
    meed_coalition_progress_fn progress;
    void *progress_user;
    int64_t rows_before; /* done in the running call: by chunks before this one, or for slopes */
    int64_t rows_total;
    struct meed_utility_report report;
};

static enum meed_status adapter_mix(struct meed_sha256 *hash, const struct meed_adapter *adapter)
{
    uint8_t digest[MEED_SHA256_BYTES] = {0};
    if (adapter) {
        MEED_TRY(meed_adapter_hash(adapter, digest));
    }
    meed_sha256_update(hash, digest, sizeof digest);
    return MEED_OK;
}

static const char *path_word(const struct meed_utility *u)
{
    if (meed_coalition_streams(u->coalition)) {
        return "streamed merge";
    }
    return u->path == MEED_PATH_MERGE ? "merge" : "stack";
}

static enum meed_status context_hash(struct meed_utility *u, const struct meed_backend *be,
                                     const struct meed_checkpoint *checkpoint,
                                     const struct meed_adapter *global,
                                     const struct meed_adapter *const *clients, const double *p)
{
    struct meed_sha256 *hash = NULL;
    MEED_TRY(meed_sha256_create(&hash));
    char kind[160];
    int length = snprintf(kind, sizeof kind, "meed utility 1 %s %s %s %s base=%s players=%d",
                          MEED_RELEASE, be->name, path_word(u), meed_dtype_name(MEED_DTYPE_F32),
                          meed_block_format_name(u->base), u->players);
    meed_sha256_update(hash, kind, (size_t)length);
    meed_sha256_update(hash, checkpoint->hash, sizeof checkpoint->hash);
    meed_sha256_update(hash, u->benchmark->hash, sizeof u->benchmark->hash);
    meed_sha256_update(hash, p, (size_t)u->players * sizeof *p);
    enum meed_status st = adapter_mix(hash, global);
    for (int32_t k = 0; k < u->players && st == MEED_OK; k++) {
        st = adapter_mix(hash, clients[k]);
    }
    if (st != MEED_OK) {
        meed_sha256_destroy(hash);
        return st;
    }
    meed_sha256_final(hash, u->context);
    return MEED_OK;
}

static enum meed_status identity_adapter(struct meed_buf *text, const char *name, int32_t idx,
                                         const struct meed_adapter *adapter)
{
    uint8_t digest[MEED_SHA256_BYTES] = {0};
    char hex[MEED_SHA256_HEX_BYTES];
    if (adapter) {
        MEED_TRY(meed_adapter_hash(adapter, digest));
    }
    meed_sha256_hex(digest, hex);
    return idx < 0 ? meed_buf_printf(text, "%s %s\n", name, hex)
                   : meed_buf_printf(text, "%s-%d %s\n", name, idx + 1, hex);
}

/* What context_hash hashes, in lines that a person can compare. */
static enum meed_status identity_write(const struct meed_utility *u, const struct meed_backend *be,
                                       const struct meed_checkpoint *checkpoint,
                                       const struct meed_adapter *global,
                                       const struct meed_adapter *const *clients,
                                       int32_t coalitions, struct meed_buf *text)
{
    char model[MEED_SHA256_HEX_BYTES], benchmark[MEED_SHA256_HEX_BYTES];
    char context[MEED_SHA256_HEX_BYTES];
    meed_sha256_hex(checkpoint->hash, model);
    meed_sha256_hex(u->benchmark->hash, benchmark);
    meed_sha256_hex(u->context, context);
    MEED_TRY(meed_buf_printf(text,
                             "release %s\nbackend %s\nmodel %s\nbenchmark %s\n"
                             "adapters %d\n",
                             MEED_RELEASE, be->name, model, benchmark, u->players));
    MEED_TRY(identity_adapter(text, "global", -1, global));
    for (int32_t k = 0; k < u->players; k++) {
        MEED_TRY(identity_adapter(text, "adapter", k, clients[k]));
    }
    return meed_buf_printf(text, "method %d coalitions\npath %s\nbase %s\ncontext %s\n", coalitions,
                           path_word(u), meed_block_format_name(u->base), context);
}

static enum meed_status shard_open(struct meed_utility *u, const struct meed_backend *be,
                                   const struct meed_checkpoint *checkpoint,
                                   const struct meed_adapter *global,
                                   const struct meed_adapter *const *clients,
                                   const struct meed_utility_options *options)
{
    enum meed_status st = MEED_OK;
    struct meed_buf text;
    meed_buf_init(&text, 1 << 16);
    if (u->players > MAX_MASK_PLAYERS) {
        st = MEED_FAIL(MEED_LIMIT, "at most %d players can be valued in shards", MAX_MASK_PLAYERS);
        goto out;
    }
    MEED_TRY_OUT(
        identity_write(u, be, checkpoint, global, clients, options->coalitions_expected, &text));
    MEED_TRY_OUT(meed_utility_shard_open(&options->shard, text.data, u->context,
                                         u->benchmark->item_count, &u->shard));
out:
    meed_buf_clear(&text);
    return st;
}

/* The evaluator, with AUTO replaced by what the planner says for the whole valuation: a resumed run
 * has fewer coalitions left and must not choose again. */
static enum meed_status coalition_open(struct meed_utility *u, const struct meed_backend *be,
                                       const struct meed_checkpoint *checkpoint,
                                       const struct meed_adapter *global,
                                       const struct meed_adapter *const *clients, const double *p,
                                       const struct meed_utility_options *options)
{
    struct meed_coalition_options made = {
        .path = options->path,
        .dtype = MEED_DTYPE_F32,
        .base = options->base,
        .batch_tokens = options->batch_tokens,
    };
    MEED_TRY(meed_coalition_create(be, checkpoint, global, clients, u->players, p, &made,
                                   &u->coalition));
    u->nodes = options->nodes;
    u->path = options->nodes > 0
                  ? meed_coalition_slope_path(u->coalition, u->benchmark->tokens, options->nodes,
                                              u->benchmark->axis_count * MEED_UTILITY_FOLDS)
                  : meed_coalition_path_of(u->coalition, u->benchmark->tokens,
                                           options->coalitions_expected);
    made.streamed = options->nodes > 0 && u->path == MEED_PATH_MERGE;
    if (made.path != u->path || made.streamed) {
        meed_coalition_destroy(u->coalition);
        u->coalition = NULL;
        made.path = u->path;
        MEED_TRY(meed_coalition_create(be, checkpoint, global, clients, u->players, p, &made,
                                       &u->coalition));
    }
    return MEED_OK;
}

enum meed_status
meed_utility_create(const struct meed_backend *be, const struct meed_checkpoint *checkpoint,
                    const struct meed_benchmark *benchmark, const struct meed_adapter *global,
                    const struct meed_adapter *const *clients, int32_t players, const double *p,
                    const struct meed_utility_options *options, struct meed_utility **utility)
{
    enum meed_status st = MEED_OK;
    struct meed_utility *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->benchmark = benchmark;
    made->players = players;
    made->base = options->base;
    made->progress = options->progress;
    made->progress_user = options->progress_user;
    int64_t rows = MEED_MAX(benchmark->tokens, 1);
    int64_t chunk = ((int64_t)CHUNK_BATCHES * options->batch_tokens + rows - 1) / rows;
    made->chunk = (int32_t)MEED_MIN(chunk, 4096);
    MEED_TRY_OUT(coalition_open(made, be, checkpoint, global, clients, p, options));
    MEED_TRY_OUT(context_hash(made, be, checkpoint, global, clients, p));
    if (options->cache_path && !options->shard.folder) {
        MEED_TRY_OUT(meed_utility_cache_open(options->cache_path, made->context,
                                             benchmark->item_count, &made->cache));
    }
    if (options->shard.folder) {
        MEED_TRY_OUT(shard_open(made, be, checkpoint, global, clients, options));
    }
    *utility = made;
    made = NULL;
out:
    meed_utility_destroy(made);
    return st;
}

void meed_utility_destroy(struct meed_utility *utility)
{
    if (utility) {
        meed_coalition_destroy(utility->coalition);
        meed_utility_cache_close(utility->cache);
        meed_utility_shard_close(utility->shard);
        meed_heap_free(utility);
    }
}

static bool progress_relay(void *user, int64_t done, int64_t total)
{
    struct meed_utility *u = user;
    (void)total;
    return !u->progress || u->progress(u->progress_user, u->rows_before + done, u->rows_total);
}

/* Derivatives feed other rows than coalitions do: no sequence is shared. */
static bool slopes_relay(void *user, int64_t done, int64_t total)
{
    struct meed_utility *u = user;
    u->rows_before = done;
    return !u->progress || u->progress(u->progress_user, done, total);
}

/* One call of evaluate: canonical members of every coalition, and which are still to be scored. */
struct request {
    struct meed_utility *utility;
    int32_t coalitions;
    double *utilities; /* [coalitions, items]; NULL where only a shard's files are wanted */
    bool *found;       /* [coalitions]: known without scoring */
    double *canonical; /* [coalitions, players] */
    int32_t *same;     /* [coalitions]: earliest coalition with equal members, often itself */
    int32_t *open;     /* [open_count]: coalitions to score */
    int32_t open_count;
    int32_t *of_mask; /* [2^players]: 1 + earliest coalition of that mask; NULL beyond 16 players */
};

static void request_clear(struct request *r)
{
    meed_heap_free(r->canonical);
    meed_heap_free(r->same);
    meed_heap_free(r->open);
    meed_heap_free(r->of_mask);
    meed_heap_free(r->found);
}

/* Mask of a plain set; false for fractional members or too many players. */
static bool request_mask(const struct request *r, int32_t idx, uint32_t *mask)
{
    int32_t players = r->utility->players;
    const double *members = r->canonical + (int64_t)idx * players;
    *mask = 0;
    for (int32_t k = 0; k < players; k++) {
        if (players > MAX_MASK_PLAYERS || (members[k] != 0.0 && members[k] != 1.0)) {
            return false;
        }
        *mask |= members[k] == 1.0 ? 1u << k : 0u;
    }
    return true;
}

static enum meed_status request_key(const struct request *r, int32_t idx,
                                    struct meed_utility_key *key)
{
    struct meed_sha256 *hash = NULL;
    key->hashed = !request_mask(r, idx, &key->mask);
    if (!key->hashed) {
        return MEED_OK;
    }
    size_t players = (size_t)r->utility->players;
    MEED_TRY(meed_sha256_create(&hash));
    meed_sha256_update(hash, r->canonical + (size_t)idx * players, players * sizeof(double));
    meed_sha256_final(hash, key->hash);
    return MEED_OK;
}

static enum meed_status request_init(struct request *r, const double *members)
{
    const struct meed_utility *u = r->utility;
    size_t count = (size_t)r->coalitions;
    size_t masks = u->players <= MAX_MASK_PLAYERS ? (size_t)1 << u->players : 1;
    r->canonical = meed_heap_alloc(count * (size_t)u->players + 1, sizeof(double));
    r->same = meed_heap_alloc(count + 1, sizeof(int32_t));
    r->open = meed_heap_alloc(count + 1, sizeof(int32_t));
    r->of_mask = meed_heap_alloc(masks, sizeof(int32_t));
    r->found = meed_heap_alloc(count + 1, sizeof(bool));
    if (!r->canonical || !r->same || !r->open || !r->of_mask || !r->found) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < r->coalitions; i++) {
        int64_t at = (int64_t)i * u->players;
        uint32_t mask;
        meed_coalition_canonical(u->coalition, members + at, r->canonical + at);
        r->same[i] = i;
        if (request_mask(r, i, &mask)) {
            r->same[i] = r->of_mask[mask] ? r->of_mask[mask] - 1 : i;
            r->of_mask[mask] = r->same[i] + 1;
        }
    }
    return MEED_OK;
}

static double *request_row(const struct request *r, int32_t idx)
{
    return r->utilities + (int64_t)idx * r->utility->benchmark->item_count;
}

/* A meed_utility_shard_row_fn; user is the request. */
static void row_take(void *user, uint32_t members, const double *utilities)
{
    struct request *r = user;
    struct meed_utility *u = r->utility;
    int32_t idx = (members >> u->players) == 0 ? r->of_mask[members] - 1 : -1;
    if (idx < 0 || r->found[idx]) {
        return;
    }
    r->found[idx] = true;
    if (r->utilities) {
        memcpy(request_row(r, idx), utilities,
               (size_t)u->benchmark->item_count * sizeof *utilities);
        u->report.evaluations++;
        u->report.tokens += u->benchmark->tokens;
    } else {
        u->report.found++;
    }
}

/* Reads what cache or shards hold; the rest is open, of a shard only what is its own. */
static enum meed_status request_look_up(struct request *r)
{
    const struct meed_utility *u = r->utility;
    int32_t ordinal = 0;
    if (u->shard) {
        MEED_TRY(meed_utility_shard_each(u->shard, row_take, r));
    }
    for (int32_t i = 0; i < r->coalitions; i++) {
        if (r->same[i] != i) {
            continue;
        }
        bool own = !u->shard || meed_utility_shard_merges(u->shard) ||
                   meed_utility_shard_owns(u->shard, ordinal);
        ordinal++;
        if (u->cache) {
            struct meed_utility_key key;
            MEED_TRY(request_key(r, i, &key));
            MEED_TRY(meed_utility_cache_get(u->cache, &key, request_row(r, i), &r->found[i]));
        }
        if (!r->found[i] && own) {
            r->open[r->open_count++] = i;
        }
    }
    return MEED_OK;
}

/* The error of a merge that lacks something: which shards to run. */
static enum meed_status missing_fail(const struct request *r)
{
    enum { NAMED_MOST = 8 };
    const struct meed_utility *u = r->utility;
    int32_t count = meed_utility_shard_count(u->shard), named = 0, ordinal = 0;
    char list[256] = "";
    size_t used = 0;
    bool *lacking = meed_heap_alloc((size_t)count, sizeof *lacking);
    if (!lacking) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < r->coalitions; i++) {
        if (r->same[i] == i) {
            lacking[ordinal % count] |= !r->found[i];
            ordinal++;
        }
    }
    for (int32_t s = 0; s < count; s++) {
        if (lacking[s] && named++ < NAMED_MOST) {
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%d/%d", used ? ", " : "",
                                     s + 1, count);
        }
    }
    meed_heap_free(lacking);
    return MEED_FAIL(MEED_STATE, "%d of %d coalitions are not scored yet; run --shard %s%s first",
                     r->open_count, ordinal, list, named > NAMED_MOST ? " and others" : "");
}

/* Scratch of one chunk, packed row by row. */
struct chunk {
    double *members;               /* [chunk, players] */
    double *sums;                  /* [chunk, sequences] */
    double *utilities;             /* [chunk, items] */
    uint32_t *masks;               /* [chunk]: for shards */
    struct meed_utility_key *keys; /* [chunk]: for the cache */
};

static void chunk_clear(struct chunk *chunk)
{
    meed_heap_free(chunk->members);
    meed_heap_free(chunk->sums);
    meed_heap_free(chunk->utilities);
    meed_heap_free(chunk->masks);
    meed_heap_free(chunk->keys);
}

static enum meed_status chunk_init(struct chunk *chunk, const struct meed_utility *u)
{
    size_t rows = (size_t)u->chunk;
    chunk->members = meed_heap_alloc(rows * (size_t)u->players, sizeof(double));
    chunk->sums = meed_heap_alloc(rows * (size_t)u->benchmark->sequence_count, sizeof(double));
    chunk->utilities = meed_heap_alloc(rows * (size_t)u->benchmark->item_count, sizeof(double));
    chunk->masks = meed_heap_alloc(rows, sizeof(uint32_t));
    chunk->keys = meed_heap_alloc(rows, sizeof *chunk->keys);
    bool got = chunk->members && chunk->sums && chunk->utilities && chunk->masks && chunk->keys;
    return got ? MEED_OK : MEED_NOMEM;
}

static enum meed_status chunk_score(struct meed_utility *u, const struct request *r,
                                    struct chunk *chunk, int32_t begin, int32_t count)
{
    const struct meed_benchmark *b = u->benchmark;
    bool masked = true;
    for (int32_t i = 0; i < count; i++) {
        int32_t idx = r->open[begin + i];
        memcpy(chunk->members + (int64_t)i * u->players, r->canonical + (int64_t)idx * u->players,
               (size_t)u->players * sizeof(double));
        MEED_TRY(request_key(r, idx, &chunk->keys[i]));
        chunk->masks[i] = chunk->keys[i].mask;
        masked = masked && !chunk->keys[i].hashed;
    }
    int64_t start_ns = meed_clock_monotonic_ns();
    MEED_TRY(meed_coalition_score(u->coalition, chunk->members, count, b->sequences,
                                  b->sequence_count, chunk->sums, progress_relay, u));
    u->report.seconds += meed_clock_seconds_since(start_ns);
    u->report.evaluations += count;
    u->report.tokens += count * b->tokens;
    u->rows_before += count * b->tokens;
    for (int32_t i = 0; i < count; i++) {
        double *row = chunk->utilities + (int64_t)i * b->item_count;
        meed_benchmark_items(b, chunk->sums + (int64_t)i * b->sequence_count, row);
        if (r->utilities) {
            memcpy(request_row(r, r->open[begin + i]), row, (size_t)b->item_count * sizeof *row);
        }
    }
    if (u->cache) {
        MEED_TRY(meed_utility_cache_put(u->cache, chunk->keys, count, chunk->utilities));
    }
    return u->shard && masked
               ? meed_utility_shard_put(u->shard, chunk->masks, count, chunk->utilities)
               : MEED_OK;
}

static enum meed_status request_score(struct request *r)
{
    enum meed_status st = MEED_OK;
    struct meed_utility *u = r->utility;
    struct chunk chunk = {.members = NULL};
    MEED_TRY_OUT(chunk_init(&chunk, u));
    u->rows_before = 0;
    u->rows_total = r->open_count * u->benchmark->tokens;
    for (int32_t begin = 0; begin < r->open_count; begin += u->chunk) {
        MEED_TRY_OUT(chunk_score(u, r, &chunk, begin, MEED_MIN(u->chunk, r->open_count - begin)));
    }
out:
    chunk_clear(&chunk);
    return st;
}

static enum meed_status utility_evaluate(void *user, const double *members, int32_t coalitions,
                                         double *utilities)
{
    enum meed_status st = MEED_OK;
    struct meed_utility *u = user;
    size_t items = (size_t)u->benchmark->item_count;
    struct request r = {.utility = u, .coalitions = coalitions, .utilities = utilities};
    MEED_TRY_OUT(request_init(&r, members));
    MEED_TRY_OUT(request_look_up(&r));
    if (u->shard && r.open_count > 0) {
        st = missing_fail(&r);
        goto out;
    }
    MEED_TRY_OUT(request_score(&r));
    for (int32_t i = 0; i < coalitions; i++) {
        memmove(utilities + (size_t)i * items, utilities + (size_t)r.same[i] * items,
                items * sizeof *utilities);
    }
out:
    request_clear(&r);
    return st;
}

enum meed_status meed_utility_score_shard(struct meed_utility *utility, const double *members,
                                          int32_t coalitions)
{
    enum meed_status st = MEED_OK;
    struct request r = {.utility = utility, .coalitions = coalitions};
    MEED_TRY_OUT(request_init(&r, members));
    MEED_TRY_OUT(request_look_up(&r));
    st = request_score(&r);
    MEED_KEEP_FIRST(st, meed_utility_shard_flush(utility->shard));
out:
    request_clear(&r);
    return st;
}

static bool utility_is_null(void *user, int32_t player)
{
    return meed_coalition_is_null(((const struct meed_utility *)user)->coalition, player);
}

static int32_t utility_twin_of(void *user, int32_t player)
{
    return meed_coalition_twin_of(((const struct meed_utility *)user)->coalition, player);
}

/* --- derivatives ------------------------------------------------------------------------------ */

/* Item slopes from those of every sequence. */
static enum meed_status gradient_by_gates(struct meed_utility *u, const double *nodes,
                                          const double *weights, int32_t count, double *phi)
{
    const struct meed_benchmark *b = u->benchmark;
    double *slopes =
        meed_heap_alloc((size_t)b->sequence_count * (size_t)u->players, sizeof *slopes);
    if (!slopes) {
        return MEED_NOMEM;
    }
    enum meed_status st = meed_coalition_slopes(u->coalition, nodes, weights, count, b->sequences,
                                                b->sequence_count, slopes, slopes_relay, u);
    for (int32_t i = 0; i < b->item_count && st == MEED_OK; i++) {
        const struct meed_benchmark_item *item = &b->items[i];
        const double *plus = slopes + (int64_t)item->plus * u->players;
        const double *minus = item->minus >= 0 ? slopes + (int64_t)item->minus * u->players : NULL;
        for (int32_t k = 0; k < u->players; k++) {
            double slope = plus[k] / b->scored_tokens[item->plus];
            slope -= minus ? minus[k] / b->scored_tokens[item->minus] : 0;
            phi[(int64_t)k * b->item_count + i] = slope;
        }
    }
    meed_heap_free(slopes);
    return st;
}

/* The split of every axis: strata (its categories, or all as one where they are too many), and each
 * stratum into as many folds. */
struct folds {
    int32_t strata[MEED_BENCHMARK_MAX_AXES];
    int32_t each[MEED_BENCHMARK_MAX_AXES];                       /* folds of a stratum */
    double stretch[MEED_BENCHMARK_MAX_AXES][MEED_UTILITY_FOLDS]; /* of a stratum: stratum_stretch */
    double share[MEED_BENCHMARK_MAX_AXES][MEED_UTILITY_FOLDS];   /* Σ coefficients of a fold */
    int32_t *of_item;     /* [items]: stratum · each + fold */
    double *coefficients; /* [1 + axes, items] */
};

static void folds_clear(struct folds *f)
{
    meed_heap_free(f->of_item);
    meed_heap_free(f->coefficients);
}

/* With J folds of departure d_f from the stratum's value, random groups estimate the variance of
 * that value as Σd²/(J(J−1)). The bootstrap finds Σ_h s²/(C²(m_h−1))·Σd²/J in items that depart by
 * s·d_f, over the stratum's C categories h of m_h dialogues; s makes the two equal. */
static double stratum_stretch(const int32_t *members, const int32_t *stratum_of, int32_t categories,
                              int32_t stratum, int32_t folds)
{
    double spread = 0;
    int32_t count = 0;
    for (int32_t c = 0; c < categories; c++) {
        if (members[c] > 0 && stratum_of[c] == stratum) {
            spread += 1.0 / (members[c] - 1);
            count++;
        }
    }
    return folds > 1 ? count / sqrt((folds - 1) * spread) : 0;
}

static void axis_split(const struct meed_benchmark *b, int32_t axis, struct folds *f)
{
    const double *coefficients = f->coefficients + (size_t)(1 + axis) * (size_t)b->item_count;
    int32_t members[MEED_BENCHMARK_MAX_CATEGORIES] = {0};
    int32_t stratum_of[MEED_BENCHMARK_MAX_CATEGORIES] = {0};
    int32_t seen[MEED_BENCHMARK_MAX_CATEGORIES] = {0};
    int32_t strata = 0, fewest = MEED_UTILITY_FOLDS;
    for (int32_t i = 0; i < b->item_count; i++) {
        members[b->items[i].category] += b->items[i].axis == axis ? 1 : 0;
    }
    for (int32_t c = 0; c < b->category_count; c++) {
        stratum_of[c] = members[c] > 0 ? strata++ : 0;
        fewest = members[c] > 0 ? MEED_MIN(fewest, members[c]) : fewest;
    }
    if (strata > MEED_UTILITY_FOLDS / 2) {
        memset(stratum_of, 0, sizeof stratum_of);
        strata = 1;
    }
    f->strata[axis] = strata;
    f->each[axis] = MEED_MIN(fewest, MEED_UTILITY_FOLDS / MEED_MAX(strata, 1));
    for (int32_t h = 0; h < strata; h++) {
        f->stretch[axis][h] =
            stratum_stretch(members, stratum_of, b->category_count, h, f->each[axis]);
    }
    for (int32_t i = 0; i < b->item_count; i++) {
        int32_t c = b->items[i].category;
        if (b->items[i].axis == axis) {
            f->of_item[i] = stratum_of[c] * f->each[axis] + seen[c]++ % f->each[axis];
            f->share[axis][f->of_item[i]] += coefficients[i];
        }
    }
}

static enum meed_status folds_init(const struct meed_benchmark *b, struct folds *f)
{
    size_t items = (size_t)b->item_count;
    f->of_item = meed_heap_alloc(items, sizeof *f->of_item);
    f->coefficients = meed_heap_alloc(items * (size_t)(1 + b->axis_count), sizeof(double));
    if (!f->of_item || !f->coefficients) {
        return MEED_NOMEM;
    }
    meed_benchmark_coefficients(b, f->coefficients);
    for (int32_t a = 0; a < b->axis_count; a++) {
        axis_split(b, a, f);
    }
    return MEED_OK;
}

/* Weights of sequences in the axis value, fold by fold: rows [axes · FOLDS, sequences]. */
static void fold_weights_fill(const struct meed_benchmark *b, const struct folds *f, double *rows)
{
    for (int32_t i = 0; i < b->item_count; i++) {
        const struct meed_benchmark_item *item = &b->items[i];
        double coefficient = f->coefficients[(int64_t)(1 + item->axis) * b->item_count + i];
        double *row =
            rows + (int64_t)(item->axis * MEED_UTILITY_FOLDS + f->of_item[i]) * b->sequence_count;
        row[item->plus] += coefficient / b->scored_tokens[item->plus];
        if (item->minus >= 0) {
            row[item->minus] -= coefficient / b->scored_tokens[item->minus];
        }
    }
}

/* Pseudo-values of the items of one client: slopes [axes · FOLDS] apart by `players`. */
static void pseudo_values_fill(const struct meed_benchmark *b, const struct folds *f,
                               const double *slopes, int32_t players, double *phi)
{
    double value[MEED_BENCHMARK_MAX_AXES][MEED_UTILITY_FOLDS] = {{0}};
    for (int32_t a = 0; a < b->axis_count; a++) {
        for (int32_t h = 0; h < f->strata[a]; h++) {
            double sum = 0, share = 0;
            for (int32_t fold = h * f->each[a]; fold < (h + 1) * f->each[a]; fold++) {
                sum += slopes[(int64_t)(a * MEED_UTILITY_FOLDS + fold) * players];
                share += f->share[a][fold];
            }
            value[a][h] = sum / share;
        }
    }
    for (int32_t i = 0; i < b->item_count; i++) {
        int32_t a = b->items[i].axis, fold = f->of_item[i], h = fold / f->each[a];
        double of_fold = slopes[(int64_t)(a * MEED_UTILITY_FOLDS + fold) * players];
        phi[i] = value[a][h] + f->stretch[a][h] * (of_fold / f->share[a][fold] - value[a][h]);
    }
}

static enum meed_status gradient_by_projection(struct meed_utility *u, const double *nodes,
                                               const double *weights, int32_t count, double *phi)
{
    enum meed_status st = MEED_OK;
    const struct meed_benchmark *b = u->benchmark;
    struct folds folds = {.of_item = NULL};
    int32_t groups = b->axis_count * MEED_UTILITY_FOLDS;
    double *rows = meed_heap_alloc((size_t)groups * (size_t)b->sequence_count, sizeof *rows);
    double *slopes = meed_heap_alloc((size_t)groups * (size_t)u->players, sizeof *slopes);
    if (!rows || !slopes) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(folds_init(b, &folds));
    fold_weights_fill(b, &folds, rows);
    MEED_TRY_OUT(meed_coalition_project(u->coalition, nodes, weights, count, b->sequences,
                                        b->sequence_count, rows, groups, slopes, slopes_relay, u));
    for (int32_t k = 0; k < u->players; k++) {
        pseudo_values_fill(b, &folds, slopes + k, u->players, phi + (int64_t)k * b->item_count);
    }
out:
    folds_clear(&folds);
    meed_heap_free(rows);
    meed_heap_free(slopes);
    return st;
}

static enum meed_status utility_gradient(void *user, const double *nodes, const double *weights,
                                         int32_t count, double *phi)
{
    struct meed_utility *u = user;
    int64_t start_ns = meed_clock_monotonic_ns();
    u->rows_before = 0;
    MEED_TRY(u->path == MEED_PATH_MERGE ? gradient_by_projection(u, nodes, weights, count, phi)
                                        : gradient_by_gates(u, nodes, weights, count, phi));
    u->report.seconds += meed_clock_seconds_since(start_ns);
    u->report.tokens += u->rows_before;
    return MEED_OK;
}

struct meed_game meed_utility_game(struct meed_utility *utility)
{
    return (struct meed_game){.user = utility,
                              .players = utility->players,
                              .items = utility->benchmark->item_count,
                              .evaluate = utility_evaluate,
                              .is_null = utility_is_null,
                              .twin_of = utility_twin_of,
                              .gradient = utility->nodes > 0 ? utility_gradient : NULL};
}

struct meed_utility_report meed_utility_report_of(const struct meed_utility *utility)
{
    return utility->report;
}

enum meed_coalition_path meed_utility_path(const struct meed_utility *utility)
{
    return utility->path;
}

const uint8_t *meed_utility_context(const struct meed_utility *utility)
{
    return utility->context;
}
