/* See utility.h.
 *
 * A batch of coalitions between two writes to the cache is as many as fill CHUNK_BATCHES forwards:
 * enough that the last, half-empty forward of a chunk does not matter, few enough that a killed
 * process loses seconds. Coalitions that are not plain sets (fractional members) have no mask and
 * pass the cache by.
 */
#include "evaluation/utility.h"

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
    int32_t players;
    enum meed_coalition_path path;
    int32_t chunk; /* coalitions scored between two writes */
    uint8_t context[MEED_SHA256_BYTES];
    meed_coalition_progress_fn progress;
    void *progress_user;
    int64_t rows_before; /* of chunks done in the running call */
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

static enum meed_status context_hash(struct meed_utility *u, const struct meed_backend *be,
                                     const struct meed_checkpoint *checkpoint,
                                     const struct meed_adapter *global,
                                     const struct meed_adapter *const *clients, const double *p)
{
    struct meed_sha256 *hash = NULL;
    MEED_TRY(meed_sha256_create(&hash));
    char kind[160];
    int length = snprintf(kind, sizeof kind, "meed utility 1 %s %s %s %s players=%d", MEED_RELEASE,
                          be->name, u->path == MEED_PATH_MERGE ? "merge" : "stack",
                          meed_dtype_name(MEED_DTYPE_F32), u->players);
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

/* The evaluator, with AUTO replaced by what the planner says for the whole valuation: a resumed run
 * has fewer coalitions left and must not choose again. */
static enum meed_status coalition_open(struct meed_utility *u, const struct meed_backend *be,
                                       const struct meed_checkpoint *checkpoint,
                                       const struct meed_adapter *global,
                                       const struct meed_adapter *const *clients, const double *p,
                                       const struct meed_utility_options *options)
{
    struct meed_coalition_options made = {
        .path = options->path, .dtype = MEED_DTYPE_F32, .batch_tokens = options->batch_tokens};
    MEED_TRY(meed_coalition_create(be, checkpoint, global, clients, u->players, p, &made,
                                   &u->coalition));
    u->path =
        meed_coalition_path_of(u->coalition, u->benchmark->tokens, options->coalitions_expected);
    if (made.path != u->path) {
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
    made->progress = options->progress;
    made->progress_user = options->progress_user;
    int64_t rows = MEED_MAX(benchmark->tokens, 1);
    int64_t chunk = ((int64_t)CHUNK_BATCHES * options->batch_tokens + rows - 1) / rows;
    made->chunk = (int32_t)MEED_MIN(chunk, 4096);
    MEED_TRY_OUT(coalition_open(made, be, checkpoint, global, clients, p, options));
    MEED_TRY_OUT(context_hash(made, be, checkpoint, global, clients, p));
    if (options->cache_path && players <= MAX_MASK_PLAYERS) {
        MEED_TRY_OUT(meed_utility_cache_open(options->cache_path, made->context,
                                             benchmark->item_count, &made->cache));
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
        meed_heap_free(utility);
    }
}

static bool progress_relay(void *user, int64_t done, int64_t total)
{
    struct meed_utility *u = user;
    (void)total;
    return !u->progress || u->progress(u->progress_user, u->rows_before + done, u->rows_total);
}

/* One call of evaluate: canonical members of every coalition, and which are still to be scored. */
struct request {
    const struct meed_utility *utility;
    int32_t coalitions;
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

static enum meed_status request_init(struct request *r, const double *members)
{
    const struct meed_utility *u = r->utility;
    size_t count = (size_t)r->coalitions;
    size_t masks = u->players <= MAX_MASK_PLAYERS ? (size_t)1 << u->players : 1;
    r->canonical = meed_heap_alloc(count * (size_t)u->players + 1, sizeof(double));
    r->same = meed_heap_alloc(count + 1, sizeof(int32_t));
    r->open = meed_heap_alloc(count + 1, sizeof(int32_t));
    r->of_mask = meed_heap_alloc(masks, sizeof(int32_t));
    if (!r->canonical || !r->same || !r->open || !r->of_mask) {
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

/* Reads what the cache holds; the rest is open. */
static enum meed_status request_look_up(struct request *r, double *utilities)
{
    const struct meed_utility *u = r->utility;
    for (int32_t i = 0; i < r->coalitions; i++) {
        uint32_t mask;
        bool found = false;
        if (r->same[i] == i && u->cache && request_mask(r, i, &mask)) {
            double *row = utilities + (int64_t)i * u->benchmark->item_count;
            MEED_TRY(meed_utility_cache_get(u->cache, mask, row, &found));
        }
        if (r->same[i] == i && !found) {
            r->open[r->open_count++] = i;
        }
    }
    return MEED_OK;
}

/* Scratch of one chunk, packed row by row. */
struct chunk {
    double *members;   /* [chunk, players] */
    double *sums;      /* [chunk, sequences] */
    double *utilities; /* [chunk, items] */
    uint32_t *masks;   /* [chunk] */
};

static void chunk_clear(struct chunk *chunk)
{
    meed_heap_free(chunk->members);
    meed_heap_free(chunk->sums);
    meed_heap_free(chunk->utilities);
    meed_heap_free(chunk->masks);
}

static enum meed_status chunk_init(struct chunk *chunk, const struct meed_utility *u)
{
    size_t rows = (size_t)u->chunk;
    chunk->members = meed_heap_alloc(rows * (size_t)u->players, sizeof(double));
    chunk->sums = meed_heap_alloc(rows * (size_t)u->benchmark->sequence_count, sizeof(double));
    chunk->utilities = meed_heap_alloc(rows * (size_t)u->benchmark->item_count, sizeof(double));
    chunk->masks = meed_heap_alloc(rows, sizeof(uint32_t));
    return chunk->members && chunk->sums && chunk->utilities && chunk->masks ? MEED_OK : MEED_NOMEM;
}

static enum meed_status chunk_score(struct meed_utility *u, const struct request *r,
                                    struct chunk *chunk, int32_t begin, int32_t count,
                                    double *utilities)
{
    const struct meed_benchmark *b = u->benchmark;
    bool cacheable = u->cache != NULL;
    for (int32_t i = 0; i < count; i++) {
        int32_t idx = r->open[begin + i];
        memcpy(chunk->members + (int64_t)i * u->players, r->canonical + (int64_t)idx * u->players,
               (size_t)u->players * sizeof(double));
        cacheable = request_mask(r, idx, &chunk->masks[i]) && cacheable;
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
        memcpy(utilities + (int64_t)r->open[begin + i] * b->item_count, row,
               (size_t)b->item_count * sizeof *row);
    }
    return cacheable ? meed_utility_cache_put(u->cache, chunk->masks, count, chunk->utilities)
                     : MEED_OK;
}

static enum meed_status utility_evaluate(void *user, const double *members, int32_t coalitions,
                                         double *utilities)
{
    enum meed_status st = MEED_OK;
    struct meed_utility *u = user;
    size_t items = (size_t)u->benchmark->item_count;
    struct request r = {.utility = u, .coalitions = coalitions};
    struct chunk chunk = {NULL, NULL, NULL, NULL};
    MEED_TRY_OUT(request_init(&r, members));
    MEED_TRY_OUT(request_look_up(&r, utilities));
    MEED_TRY_OUT(chunk_init(&chunk, u));
    u->rows_before = 0;
    u->rows_total = r.open_count * u->benchmark->tokens;
    for (int32_t begin = 0; begin < r.open_count; begin += u->chunk) {
        int32_t count = MEED_MIN(u->chunk, r.open_count - begin);
        MEED_TRY_OUT(chunk_score(u, &r, &chunk, begin, count, utilities));
    }
    for (int32_t i = 0; i < coalitions; i++) {
        memmove(utilities + (size_t)i * items, utilities + (size_t)r.same[i] * items,
                items * sizeof *utilities);
    }
out:
    chunk_clear(&chunk);
    request_clear(&r);
    return st;
}

static bool utility_is_null(void *user, int32_t player)
{
    return meed_coalition_is_null(((const struct meed_utility *)user)->coalition, player);
}

struct meed_game meed_utility_game(struct meed_utility *utility)
{
    return (struct meed_game){.user = utility,
                              .players = utility->players,
                              .items = utility->benchmark->item_count,
                              .evaluate = utility_evaluate,
                              .is_null = utility_is_null};
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
