/* Runs coalitions through the network: see coalition.h.
 *
 * Work is (coalition, run) pairs in coalition-major order, packed into batches of batch_tokens
 * rows. On the stack path a batch may hold runs of several coalitions, each with its own row of
 * gates; on the merge path a batch ends with its coalition, whose weights are folded before. A
 * row's log-probability does not depend on the batch (net.h), and a sequence's sum is taken over
 * its own rows in token order in fp64, so neither the packing nor what else is scored shows in a
 * bit.
 *
 * Two things are never computed twice: coalitions with the same canonical members, and sequences
 * with the same ids. The latter is common: a dialogue scored on all its replies (likelihood) and on
 * its last one (contrast) is the same forward with two masks.
 */
#include "engine/coalition_internal.h"

#include <math.h>
#include <string.h>

static uint64_t bytes_hash(const void *bytes, size_t size)
{
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a */
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001B3u;
    }
    return hash ^ (hash >> 29);
}

/* Open addressing over row indices: slots [capacity] of -1, capacity a power of two > rows. */
struct row_set {
    int32_t *slots;
    size_t capacity;
};

static enum meed_status row_set_init(struct row_set *set, int32_t rows)
{
    set->capacity = 16;
    while (set->capacity < 2 * (size_t)rows) {
        set->capacity *= 2;
    }
    set->slots = meed_heap_alloc(set->capacity, sizeof *set->slots);
    if (!set->slots) {
        return MEED_NOMEM;
    }
    memset(set->slots, 0xFF, set->capacity * sizeof *set->slots);
    return MEED_OK;
}

/* --- runs ----------------------------------------------------------------------------------- */
static bool sequence_is_scored(const struct meed_sequence *sequence)
{
    for (int32_t t = 1; t < sequence->length; t++) {
        if (sequence->scored[t]) {
            return true;
        }
    }
    return false;
}

static bool ids_equal(const struct meed_sequence *x, const struct meed_sequence *y)
{
    return x->length == y->length &&
           memcmp(x->ids, y->ids, (size_t)x->length * sizeof *x->ids) == 0;
}

/* The run of sequence `idx`, made if its ids are new. */
static int32_t run_of(struct coalition_runs *runs, struct row_set *set,
                      const struct meed_sequence *sequence, int32_t idx, size_t *mask_bytes)
{
    size_t at = bytes_hash(sequence->ids, (size_t)sequence->length * sizeof *sequence->ids);
    for (;; at++) {
        int32_t *slot = &set->slots[at & (set->capacity - 1)];
        if (*slot < 0) {
            *slot = runs->count++;
            struct coalition_run *run = &runs->runs[*slot];
            run->sequence.ids = sequence->ids;
            run->sequence.length = sequence->length;
            run->sequence.scored = runs->masks + *mask_bytes;
            run->first = idx;
            *mask_bytes += (size_t)sequence->length;
            runs->rows += sequence->length - 1;
            runs->longest = MEED_MAX(runs->longest, sequence->length - 1);
            return *slot;
        }
        if (ids_equal(&runs->runs[*slot].sequence, sequence)) {
            return *slot;
        }
    }
}

enum meed_status meed_coalition_runs_init(const struct meed_sequence *sequences,
                                          int32_t sequence_count, struct coalition_runs *runs)
{
    enum meed_status st = MEED_OK;
    struct row_set set = {NULL, 0};
    size_t mask_bytes = 1;
    int32_t *last = NULL; /* [runs]: newest member, to keep members in order */
    *runs = (struct coalition_runs){0};
    for (int32_t s = 0; s < sequence_count; s++) {
        mask_bytes += (size_t)sequences[s].length;
    }
    size_t room = (size_t)sequence_count + 1;
    runs->runs = meed_heap_alloc(room, sizeof *runs->runs);
    runs->next = meed_heap_alloc(room, sizeof *runs->next);
    runs->masks = meed_heap_alloc(mask_bytes, 1);
    last = meed_heap_alloc(room, sizeof *last);
    if (!runs->runs || !runs->next || !runs->masks || !last) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(row_set_init(&set, sequence_count));
    mask_bytes = 0;
    for (int32_t s = 0; s < sequence_count; s++) {
        runs->next[s] = -1;
        if (!sequence_is_scored(&sequences[s])) {
            continue;
        }
        int32_t run = run_of(runs, &set, &sequences[s], s, &mask_bytes);
        for (int32_t t = 1; t < sequences[s].length; t++) {
            runs->runs[run].sequence.scored[t] |= sequences[s].scored[t] ? 1 : 0;
        }
        if (runs->runs[run].first != s) {
            runs->next[last[run]] = s;
        }
        last[run] = s;
    }
out:
    meed_heap_free(last);
    meed_heap_free(set.slots);
    if (st != MEED_OK) {
        meed_coalition_runs_clear(runs);
    }
    return st;
}

void meed_coalition_runs_clear(struct coalition_runs *runs)
{
    meed_heap_free(runs->runs);
    meed_heap_free(runs->next);
    meed_heap_free(runs->masks);
    *runs = (struct coalition_runs){0};
}

int64_t meed_coalition_rows(const struct meed_sequence *sequences, int32_t sequence_count)
{
    struct coalition_runs runs;
    if (meed_coalition_runs_init(sequences, sequence_count, &runs) != MEED_OK) {
        return 0;
    }
    int64_t rows = runs.rows;
    meed_coalition_runs_clear(&runs);
    return rows;
}

/* --- distinct coalitions -------------------------------------------------------------------- */
struct distinct {
    int32_t count;
    double *canonical; /* [count, clients] */
    int32_t *of;       /* [coalitions]: index into the distinct ones */
    int32_t *first;    /* [count]: the coalition that introduced it */
};

static void distinct_clear(struct distinct *distinct)
{
    meed_heap_free(distinct->canonical);
    meed_heap_free(distinct->of);
    meed_heap_free(distinct->first);
}

static enum meed_status members_check(const double *members, int32_t coalitions, int32_t clients)
{
    for (int64_t i = 0; i < (int64_t)coalitions * clients; i++) {
        if (!(members[i] >= 0) || !(members[i] <= 1)) {
            return MEED_FAIL(MEED_ARG, "member %d of coalition %d is %g; members lie in 0 to 1",
                             (int)(i % clients), (int)(i / clients), members[i]);
        }
    }
    return MEED_OK;
}

static enum meed_status distinct_init(const struct meed_coalition *c, const double *members,
                                      int32_t coalitions, struct distinct *distinct)
{
    enum meed_status st = MEED_OK;
    struct row_set set = {NULL, 0};
    size_t width = (size_t)c->count;
    MEED_TRY(members_check(members, coalitions, c->count));
    distinct->canonical = meed_heap_alloc(((size_t)coalitions + 1) * width, sizeof(double));
    distinct->of = meed_heap_alloc((size_t)coalitions + 1, sizeof(int32_t));
    distinct->first = meed_heap_alloc((size_t)coalitions + 1, sizeof(int32_t));
    if (!distinct->canonical || !distinct->of || !distinct->first) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(row_set_init(&set, coalitions));
    for (int32_t i = 0; i < coalitions; i++) {
        double *row = distinct->canonical + (size_t)distinct->count * width;
        meed_coalition_canonical(c, members + (size_t)i * width, row);
        for (size_t k = 0; k < width; k++) {
            row[k] += 0.0; /* -0 becomes 0: equal members have equal bytes */
        }
        size_t at = bytes_hash(row, width * sizeof *row);
        for (;; at++) {
            int32_t *slot = &set.slots[at & (set.capacity - 1)];
            if (*slot < 0) {
                distinct->first[distinct->count] = i;
                *slot = distinct->count++;
            }
            if (memcmp(distinct->canonical + (size_t)*slot * width, row, width * sizeof *row) ==
                0) {
                distinct->of[i] = *slot;
                break;
            }
        }
    }
out:
    meed_heap_free(set.slots);
    return st;
}

/* --- networks ------------------------------------------------------------------------------- */
static void nets_drop(struct meed_coalition *c)
{
    meed_net_destroy(c->stack);
    meed_net_destroy(c->merged);
    meed_net_dense_destroy(c->dense);
    meed_batch_destroy(c->batch);
    meed_heap_free(c->logprob);
    meed_heap_free(c->batch_coalition);
    meed_heap_free(c->batch_run);
    meed_heap_free(c->batch_gates);
    c->stack = c->merged = NULL;
    c->dense = NULL;
    c->batch = NULL;
    c->logprob = c->batch_gates = NULL;
    c->batch_coalition = c->batch_run = NULL;
    c->rows_capacity = 0;
}

static enum meed_status nets_make(struct meed_coalition *c, int32_t rows, bool backward)
{
    bool merge = c->path == MEED_PATH_MERGE;
    bool streamed = meed_coalition_streams(c);
    int32_t sequences = rows / 8 + 1;
    struct meed_net_options options = {
        .dtype = c->options.dtype,
        .base = c->options.base,
        .max_rows = merge ? 8 : rows, /* on the merge path the stack only lends its factors */
        .max_sequences = merge ? 1 : sequences,
        .backward = !merge && backward,
        .adapters = streamed ? NULL : c->slots,
        .adapter_count = streamed ? 0 : c->slot_count,
    };
    MEED_TRY(meed_net_create(c->be, c->checkpoint, &options, &c->stack));
    if (merge) {
        options.max_rows = rows;
        options.max_sequences = sequences;
        options.backward = backward;
        options.adapters = NULL;
        options.adapter_count = 0;
        MEED_TRY(meed_net_create(c->be, c->checkpoint, &options, &c->merged));
    }
    if (streamed) {
        MEED_TRY(meed_net_dense_create(c->stack, c->slots, c->slot_count, &c->dense));
    }
    MEED_TRY(meed_batch_create(rows, sequences, &c->batch));
    c->logprob = meed_heap_alloc((size_t)rows, sizeof(float));
    c->batch_coalition = meed_heap_alloc((size_t)sequences, sizeof(int32_t));
    c->batch_run = meed_heap_alloc((size_t)sequences, sizeof(int32_t));
    c->batch_gates =
        meed_heap_alloc((size_t)sequences * ((size_t)c->slot_count + 1), sizeof(float));
    if (!c->logprob || !c->batch_coalition || !c->batch_run || !c->batch_gates) {
        return MEED_NOMEM;
    }
    c->rows_capacity = rows;
    c->backward = backward;
    return MEED_OK;
}

enum meed_status meed_coalition_nets_ready(struct meed_coalition *c, int32_t longest, bool backward)
{
    int32_t rows = MEED_MAX(c->options.batch_tokens, longest);
    if (c->rows_capacity >= rows && (c->backward || !backward)) {
        return MEED_OK;
    }
    nets_drop(c);
    enum meed_status st = nets_make(c, rows, backward);
    if (st != MEED_OK) {
        nets_drop(c);
    }
    return st;
}

/* --- scoring -------------------------------------------------------------------------------- */
struct scoring {
    struct meed_coalition *c;
    const struct meed_sequence *sequences;
    int32_t sequence_count;
    struct coalition_runs runs;
    struct distinct distinct;
    double *sums;       /* [distinct, sequence_count] */
    int32_t gate_sets;  /* in the batch being packed */
    int32_t packed_for; /* coalition of the newest gate set */
    int64_t rows_done;
    int64_t rows_total;
    meed_coalition_progress_fn progress;
    void *user;
};

/* Adds up the log-probabilities of batch sequence `idx`, whose rows begin at *cursor. */
static void sums_collect(struct scoring *s, int32_t idx, int32_t *cursor)
{
    const struct coalition_run *run = &s->runs.runs[s->c->batch_run[idx]];
    double *sums = s->sums + (int64_t)s->c->batch_coalition[idx] * s->sequence_count;
    int32_t begin = *cursor;
    for (int32_t member = run->first; member >= 0; member = s->runs.next[member]) {
        double sum = 0;
        *cursor = begin;
        for (int32_t t = 1; t < run->sequence.length; t++) {
            if (run->sequence.scored[t]) {
                double logprob = s->c->logprob[(*cursor)++];
                sum += s->sequences[member].scored[t] ? logprob : 0.0;
            }
        }
        sums[member] = sum;
    }
}

static enum meed_status batch_flush(struct scoring *s)
{
    struct meed_coalition *c = s->c;
    if (c->batch->sequences == 0) {
        return MEED_OK;
    }
    bool merge = c->path == MEED_PATH_MERGE;
    if (!merge && c->slot_count > 0) {
        MEED_TRY(meed_net_set_gates(c->stack, c->batch_gates, s->gate_sets));
    }
    MEED_TRY(meed_net_score(merge ? c->merged : c->stack, c->batch, c->logprob));
    int32_t cursor = 0;
    for (int32_t i = 0; i < c->batch->sequences; i++) {
        sums_collect(s, i, &cursor);
    }
    MEED_ASSERT(cursor == c->batch->loss_rows);
    s->rows_done += c->batch->rows;
    s->gate_sets = 0;
    s->packed_for = -1;
    meed_batch_reset(c->batch);
    if (s->progress && !s->progress(s->user, s->rows_done, s->rows_total)) {
        return MEED_FAIL(MEED_CANCELLED, "the valuation was stopped");
    }
    return MEED_OK;
}

static void gates_write(struct meed_coalition *c, const double *canonical, float *to)
{
    const double *gates = meed_coalition_gates(c, canonical);
    for (int32_t slot = 0; slot < c->slot_count; slot++) {
        to[slot] = (float)gates[slot];
    }
}

/* Puts one run of one coalition into the batch, flushing first if it does not fit. */
static enum meed_status pair_pack(struct scoring *s, int32_t coalition, int32_t run)
{
    struct meed_coalition *c = s->c;
    const struct meed_sequence *sequence = &s->runs.runs[run].sequence;
    for (int attempt = 0; attempt < 2; attempt++) {
        bool opens = s->packed_for != coalition;
        int32_t gate_set = opens ? s->gate_sets : s->gate_sets - 1;
        int32_t place = c->batch->sequences;
        if (meed_batch_add(c->batch, sequence, gate_set)) {
            if (opens) {
                const double *members = s->distinct.canonical + (int64_t)coalition * c->count;
                gates_write(c, members, c->batch_gates + (int64_t)gate_set * c->slot_count);
                s->gate_sets++;
                s->packed_for = coalition;
            }
            c->batch_coalition[place] = coalition;
            c->batch_run[place] = run;
            return MEED_OK;
        }
        MEED_TRY(batch_flush(s));
    }
    return MEED_FAIL(MEED_BUG, "a sequence of %d tokens does not fit an empty batch",
                     sequence->length);
}

/* The weights of a coalition, folded into the merged network. */
static enum meed_status coalition_merge(struct meed_coalition *c, const double *canonical)
{
    if (!c->dense) {
        gates_write(c, canonical, c->batch_gates);
        return meed_net_merge(c->merged, c->stack, c->batch_gates);
    }
    meed_net_dense_zero(c->dense);
    MEED_TRY(
        meed_net_dense_add(c->dense, c->slots, meed_coalition_gates(c, canonical), c->slot_count));
    return meed_net_dense_shift(c->merged, c->stack, c->dense, 1.0f);
}

static enum meed_status coalition_pack(struct scoring *s, int32_t coalition)
{
    struct meed_coalition *c = s->c;
    if (c->path == MEED_PATH_MERGE) {
        MEED_TRY(batch_flush(s));
        MEED_TRY(coalition_merge(c, s->distinct.canonical + (int64_t)coalition * c->count));
    }
    for (int32_t run = 0; run < s->runs.count; run++) {
        MEED_TRY(pair_pack(s, coalition, run));
    }
    return MEED_OK;
}

enum meed_status meed_coalition_check_sequences(const struct meed_model_config *config,
                                                const struct meed_sequence *sequences,
                                                int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        if (sequences[i].length - 1 > config->max_positions) {
            return MEED_FAIL(MEED_LIMIT, "sequence %d has %d tokens; the model has %d positions", i,
                             sequences[i].length, config->max_positions);
        }
        for (int32_t t = 0; t < sequences[i].length; t++) {
            if (sequences[i].ids[t] < 0 || sequences[i].ids[t] >= config->vocab) {
                return MEED_FAIL(MEED_ARG, "token %d of sequence %d is %d; the vocabulary has %d",
                                 t, i, sequences[i].ids[t], config->vocab);
            }
        }
    }
    return MEED_OK;
}

/* Hands the distinct sums to every coalition that asked for them; refuses what is not finite. */
static enum meed_status sums_deliver(const struct scoring *s, int32_t coalitions, double *sums)
{
    size_t width = (size_t)s->sequence_count;
    for (int64_t i = 0; i < (int64_t)s->distinct.count * s->sequence_count; i++) {
        if (!isfinite(s->sums[i])) {
            return MEED_FAIL(MEED_NUMERIC,
                             "the log-likelihood of sequence %d is not finite in coalition %d; an "
                             "adapter holds values that the model cannot carry",
                             (int)(i % s->sequence_count),
                             s->distinct.first[i / s->sequence_count]);
        }
    }
    for (int32_t i = 0; i < coalitions; i++) {
        memcpy(sums + (size_t)i * width, s->sums + (size_t)s->distinct.of[i] * width,
               width * sizeof *sums);
    }
    return MEED_OK;
}

enum meed_status meed_coalition_score(struct meed_coalition *coalition, const double *members,
                                      int32_t coalitions, const struct meed_sequence *sequences,
                                      int32_t sequence_count, double *sums,
                                      meed_coalition_progress_fn progress, void *user)
{
    enum meed_status st = MEED_OK;
    struct scoring s = {.c = coalition,
                        .sequences = sequences,
                        .sequence_count = sequence_count,
                        .packed_for = -1,
                        .progress = progress,
                        .user = user};
    if (coalitions <= 0 || sequence_count <= 0) {
        return MEED_OK;
    }
    MEED_TRY(
        meed_coalition_check_sequences(&coalition->checkpoint->config, sequences, sequence_count));
    MEED_TRY_OUT(meed_coalition_runs_init(sequences, sequence_count, &s.runs));
    MEED_TRY_OUT(distinct_init(coalition, members, coalitions, &s.distinct));
    s.sums = meed_heap_alloc((size_t)s.distinct.count * (size_t)sequence_count, sizeof(double));
    if (!s.sums) {
        st = MEED_NOMEM;
        goto out;
    }
    s.rows_total = s.runs.rows * s.distinct.count;
    if (coalition->path == MEED_PATH_AUTO) {
        coalition->path = meed_coalition_path_of(coalition, s.runs.rows, s.distinct.count);
    }
    MEED_TRY_OUT(meed_coalition_nets_ready(coalition, s.runs.longest, false));
    meed_batch_reset(coalition->batch);
    for (int32_t i = 0; i < s.distinct.count; i++) {
        MEED_TRY_OUT(coalition_pack(&s, i));
    }
    MEED_TRY_OUT(batch_flush(&s));
    st = sums_deliver(&s, coalitions, sums);
out:
    meed_heap_free(s.sums);
    distinct_clear(&s.distinct);
    meed_coalition_runs_clear(&s.runs);
    return st;
}
