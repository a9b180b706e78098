/* See matmul_onednn.h.
 *
 * Layers, from below: `layout_*` and `plan_descriptor` hide the two API generations (v2 fills
 * structs, v3 creates opaque descriptors); a plan is one primitive with its memory objects, kept in
 * a cache per thread, because memory objects and scratchpads must not be shared and a lock-free
 * look-up costs nothing; `weights_*` are the packed copies, shared under a mutex; `run` cuts the
 * product into row pieces and, where those are too few, into chunks of columns.
 *
 * Row pieces have heights from a short list (TILE, multiples of 16 below it, 8, 4, 2, 1), so that a
 * new batch size compiles at most a handful of new primitives. Chunks of columns go through a small
 * buffer, since a strided destination would lose the batch-reduce kernels.
 */
#include "kernels/cpu/matmul_onednn.h"

#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <oneapi/dnnl/dnnl.h>
#include "base/buf.h"
#include "base/threads.h"
#include "kernels/cpu/cpu_scratch.h"

enum {
    TILE = 256,        /* rows of a full piece */
    CHUNK_MAX = 512,   /* columns of a chunk, */
    CHUNK_STEP = 64,   /* a multiple of these: packed layouts pad to them */
    PLAN_SLOTS = 2048, /* of a thread's cache */
    WEIGHT_SLOTS = 1024,
    PACK_ROWS = 64,     /* packing pays up to this many rows */
    PACK_AFTER = 3,     /* calls with the same B */
    PACK_MODEL_ROWS = 8 /* M for which the packed layout is chosen */
};
static const size_t pack_bytes_max = (size_t)1 << 30;

/* --- the two API generations ----------------------------------------------------------------- */
struct layout {
    dnnl_memory_desc_t md;
};
#if DNNL_VERSION_MAJOR >= 3
#define LAYOUT(l) ((l)->md)
typedef const_dnnl_memory_desc_t layout_ref;
#else
#define LAYOUT(l) (&(l)->md)
typedef const dnnl_memory_desc_t *layout_ref;
#endif

static dnnl_data_type_t data_type(enum meed_dtype dtype)
{
    return dtype == MEED_DTYPE_F32 ? dnnl_f32 : dnnl_bf16;
}

static bool layout_strided(struct layout *layout, enum meed_dtype dtype, int64_t rows, int64_t cols,
                           int64_t row_stride, int64_t col_stride)
{
    dnnl_dims_t dims = {rows, cols};
    dnnl_dims_t strides = {row_stride, col_stride};
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_create_with_strides(&layout->md, 2, dims, data_type(dtype), strides) ==
           dnnl_success;
#else
    return dnnl_memory_desc_init_by_strides(&layout->md, 2, dims, data_type(dtype), strides) ==
           dnnl_success;
#endif
}

static bool layout_any(struct layout *layout, enum meed_dtype dtype, int64_t rows, int64_t cols)
{
    dnnl_dims_t dims = {rows, cols};
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_create_with_tag(&layout->md, 2, dims, data_type(dtype),
                                            dnnl_format_tag_any) == dnnl_success;
#else
    return dnnl_memory_desc_init_by_tag(&layout->md, 2, dims, data_type(dtype),
                                        dnnl_format_tag_any) == dnnl_success;
#endif
}

static bool layout_clone(struct layout *layout, layout_ref from)
{
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_clone(&layout->md, from) == dnnl_success;
#else
    layout->md = *from;
    return true;
#endif
}

static void layout_clear(struct layout *layout)
{
#if DNNL_VERSION_MAJOR >= 3
    if (layout->md) {
        (void)dnnl_memory_desc_destroy(layout->md);
    }
#endif
    memset(layout, 0, sizeof *layout);
}

static bool descriptor_create(dnnl_engine_t engine, const struct layout *src,
                              const struct layout *weights, const struct layout *dst,
                              bool accumulate, dnnl_primitive_desc_t *descriptor)
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t sum = NULL;
    bool ok =
        dnnl_primitive_attr_create(&attr) == dnnl_success &&
        dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) == dnnl_success;
    if (ok && accumulate) {
        ok = dnnl_post_ops_create(&sum) == dnnl_success &&
#if DNNL_VERSION_MAJOR >= 3
             dnnl_post_ops_append_sum(sum, 1.0f, 0, dnnl_data_type_undef) == dnnl_success &&
#else
             dnnl_post_ops_append_sum(sum, 1.0f) == dnnl_success &&
#endif
             dnnl_primitive_attr_set_post_ops(attr, sum) == dnnl_success;
    }
#if DNNL_VERSION_MAJOR >= 3
    ok = ok && dnnl_matmul_primitive_desc_create(descriptor, engine, src->md, weights->md, NULL,
                                                 dst->md, attr) == dnnl_success;
#else
    dnnl_matmul_desc_t operation;
    ok =
        ok &&
        dnnl_matmul_desc_init(&operation, &src->md, &weights->md, NULL, &dst->md) == dnnl_success &&
        dnnl_primitive_desc_create(descriptor, &operation, attr, engine, NULL) == dnnl_success;
#endif
    if (sum) {
        (void)dnnl_post_ops_destroy(sum);
    }
    if (attr) {
        (void)dnnl_primitive_attr_destroy(attr);
    }
    return ok;
}

/* --- plans: primitives of one thread ---------------------------------------------------------- */
struct plan_key {
    int64_t m; /* 0: not a primitive but the verdict whether (n, k, …) is served */
    int64_t n;
    int64_t k;
    enum meed_matmul_kind kind;
    enum meed_dtype in;
    enum meed_dtype out;
    uint8_t accumulate;
    uint8_t packed;
    uint8_t used;
    uint8_t reserved;
};

struct plan {
    struct plan_key key;
    bool served;
    dnnl_primitive_t primitive;
    dnnl_memory_t src;
    dnnl_memory_t weights;
    dnnl_memory_t dst;
    dnnl_memory_t scratchpad;
    size_t scratchpad_bytes;
};

struct thread_plans {
    dnnl_stream_t stream;
    struct plan plans[PLAN_SLOTS];
    int count;
};

static pthread_once_t engine_once = PTHREAD_ONCE_INIT;
static dnnl_engine_t engine_shared; /* lives as long as the process */
static pthread_key_t plans_key;
/* One thread builds at a time: oneDNN shares compiled kernels through a cache of its own, and the
 * hand-over is invisible to ThreadSanitizer. Executing takes no lock. */
static pthread_mutex_t build_mutex = PTHREAD_MUTEX_INITIALIZER;
static MEED_THREAD_LOCAL struct thread_plans *plans_here;

static void plan_clear(struct plan *plan)
{
    dnnl_memory_t memories[] = {plan->src, plan->weights, plan->dst, plan->scratchpad};
    for (size_t i = 0; i < MEED_COUNT(memories); i++) {
        if (memories[i]) {
            (void)dnnl_memory_destroy(memories[i]);
        }
    }
    if (plan->primitive) {
        (void)dnnl_primitive_destroy(plan->primitive);
    }
    memset(plan, 0, sizeof *plan);
}

static void thread_plans_free(void *user)
{
    struct thread_plans *plans = user;
    for (int i = 0; i < PLAN_SLOTS; i++) {
        plan_clear(&plans->plans[i]);
    }
    if (plans->stream) {
        (void)dnnl_stream_destroy(plans->stream);
    }
    meed_heap_free(plans);
}

/* With AMX or AVX512-FP16 oneDNN sums a lone row in another order than the same row among many, and
 * a coalition's bits would depend on its batch; up to AVX512-BF16 it does not (parity.matmul). The
 * cap is refused where oneDNN was used before us or knows no x86: then it is not needed or cannot
 * be had. */
static void engine_open(void)
{
    MEED_ASSERT(pthread_key_create(&plans_key, thread_plans_free) == 0);
    (void)dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_bf16);
    if (dnnl_engine_create(&engine_shared, dnnl_cpu, 0) != dnnl_success) {
        engine_shared = NULL;
    }
}

/* NULL where oneDNN cannot be used at all. */
static struct thread_plans *thread_plans_get(void)
{
    if (plans_here) {
        return plans_here;
    }
    pthread_once(&engine_once, engine_open);
    if (!engine_shared) {
        return NULL;
    }
    omp_set_num_threads(1); /* before anything else of oneDNN on this thread */
    struct thread_plans *plans = meed_heap_alloc(1, sizeof *plans);
    if (!plans) {
        return NULL;
    }
    if (dnnl_stream_create(&plans->stream, engine_shared, dnnl_stream_default_flags) !=
            dnnl_success ||
        pthread_setspecific(plans_key, plans) != 0) {
        thread_plans_free(plans);
        return NULL;
    }
    plans_here = plans;
    return plans;
}

static bool operand_layouts(const struct plan_key *key, struct layout *src, struct layout *weights,
                            struct layout *dst)
{
    bool transposed = key->kind == MEED_MATMUL_NT;
    memset(src, 0, sizeof *src);
    memset(weights, 0, sizeof *weights);
    memset(dst, 0, sizeof *dst);
    bool ok = layout_strided(src, key->in, key->m, key->k, key->k, 1) &&
              layout_strided(dst, key->out, key->m, key->n, key->n, 1);
    if (key->packed) {
        return ok && layout_any(weights, key->in, key->k, key->n);
    }
    return ok && layout_strided(weights, key->in, key->k, key->n, transposed ? 1 : key->n,
                                transposed ? key->k : 1);
}

static void layouts_clear(struct layout *src, struct layout *weights, struct layout *dst)
{
    layout_clear(src);
    layout_clear(weights);
    layout_clear(dst);
}

static bool is_batch_reduce(dnnl_primitive_desc_t descriptor)
{
    const char *name = NULL;
    return dnnl_primitive_desc_query(descriptor, dnnl_query_impl_info_str, 0, (void *)&name) ==
               dnnl_success &&
           name && strncmp(name, "brg", 3) == 0;
}

/* A descriptor for key, or NULL where oneDNN offers no batch-reduce kernel. For packed keys the
 * weights' layout is the one chosen at PACK_MODEL_ROWS, whatever m is; it comes back in `packed`
 * (may be NULL), to be cleared by the caller. */
static dnnl_primitive_desc_t plan_descriptor(const struct plan_key *key, struct layout *packed)
{
    struct layout src;
    struct layout weights;
    struct layout dst;
    dnnl_primitive_desc_t descriptor = NULL;
    struct plan_key model = *key;
    model.m = key->packed ? PACK_MODEL_ROWS : key->m;
    bool ok = operand_layouts(&model, &src, &weights, &dst) &&
              descriptor_create(engine_shared, &src, &weights, &dst, key->accumulate, &descriptor);
    layouts_clear(&src, &weights, &dst);
    if (ok && key->packed) {
        struct layout chosen = {0};
        ok = layout_clone(&chosen,
                          dnnl_primitive_desc_query_md(descriptor, dnnl_query_weights_md, 0));
        (void)dnnl_primitive_desc_destroy(descriptor);
        descriptor = NULL;
        ok = operand_layouts(key, &src, &weights, &dst) && ok;
        ok = ok &&
             descriptor_create(engine_shared, &src, &chosen, &dst, key->accumulate, &descriptor);
        layouts_clear(&src, &weights, &dst);
        if (ok && packed) {
            *packed = chosen;
        } else {
            layout_clear(&chosen);
        }
    }
    if (descriptor && (!ok || !is_batch_reduce(descriptor))) {
        (void)dnnl_primitive_desc_destroy(descriptor);
        descriptor = NULL;
    }
    return descriptor;
}

static bool plan_build(struct plan *plan)
{
    dnnl_primitive_desc_t descriptor = plan_descriptor(&plan->key, NULL);
    if (!descriptor) {
        return false;
    }
    static const dnnl_query_t queries[] = {dnnl_query_src_md, dnnl_query_weights_md,
                                           dnnl_query_dst_md, dnnl_query_scratchpad_md};
    dnnl_memory_t *memories[] = {&plan->src, &plan->weights, &plan->dst, &plan->scratchpad};
    bool ok = dnnl_primitive_create(&plan->primitive, descriptor) == dnnl_success;
    for (size_t i = 0; ok && i < MEED_COUNT(queries); i++) {
        layout_ref layout = dnnl_primitive_desc_query_md(descriptor, queries[i], 0);
        if (queries[i] == dnnl_query_scratchpad_md) {
            plan->scratchpad_bytes = dnnl_memory_desc_get_size(layout);
        }
        ok = dnnl_memory_create(memories[i], layout, engine_shared, DNNL_MEMORY_NONE) ==
             dnnl_success;
    }
    (void)dnnl_primitive_desc_destroy(descriptor);
    return ok;
}

/* Whether every height of the list has a batch-reduce kernel: only then are rows independent. */
static bool verdict_build(const struct plan_key *key)
{
    static const int64_t heights[] = {1, 2, 4, 8, 16, 48, 64, 128, TILE};
    for (size_t i = 0; i < MEED_COUNT(heights); i++) {
        struct plan_key probe = *key;
        probe.m = heights[i];
        dnnl_primitive_desc_t descriptor = plan_descriptor(&probe, NULL);
        if (!descriptor) {
            return false;
        }
        (void)dnnl_primitive_desc_destroy(descriptor);
    }
    return true;
}

static struct plan *plan_get(struct thread_plans *plans, struct plan_key key)
{
    key.used = 1;
    uint64_t hash = (uint64_t)key.m * 0x9E3779B97F4A7C15u;
    hash = (hash ^ (uint64_t)key.n) * 0xBF58476D1CE4E5B9u;
    hash = (hash ^ (uint64_t)key.k ^ (hash >> 31)) * 0x94D049BB133111EBu;
    hash ^= ((uint64_t)key.kind << 4) | ((uint64_t)key.in << 3) | ((uint64_t)key.out << 2) |
            ((uint64_t)key.accumulate << 1) | key.packed;
    hash ^= hash >> 29;
    size_t slot = hash % PLAN_SLOTS;
    while (plans->plans[slot].key.used) {
        if (memcmp(&plans->plans[slot].key, &key, sizeof key) == 0) {
            return &plans->plans[slot];
        }
        slot = (slot + 1) % PLAN_SLOTS;
    }
    if (plans->count >= PLAN_SLOTS * 3 / 4) { /* never in steady state: start over */
        for (int i = 0; i < PLAN_SLOTS; i++) {
            plan_clear(&plans->plans[i]);
        }
        plans->count = 0;
        slot = hash % PLAN_SLOTS;
    }
    struct plan *plan = &plans->plans[slot];
    plan->key = key;
    plans->count++;
    pthread_mutex_lock(&build_mutex);
    plan->served = key.m == 0 ? verdict_build(&key) : plan_build(plan);
    pthread_mutex_unlock(&build_mutex);
    return plan;
}

static void plan_execute(struct thread_plans *plans, struct plan *plan, const void *src,
                         const void *weights, void *dst)
{
    void *scratchpad = meed_cpu_scratch_get(MEED_SCRATCH_LIBRARY, plan->scratchpad_bytes + 64);
    bool ok =
        dnnl_memory_set_data_handle(plan->src, (void *)(uintptr_t)src) == dnnl_success &&
        dnnl_memory_set_data_handle(plan->weights, (void *)(uintptr_t)weights) == dnnl_success &&
        dnnl_memory_set_data_handle(plan->dst, dst) == dnnl_success &&
        dnnl_memory_set_data_handle(plan->scratchpad, scratchpad) == dnnl_success;
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, plan->src},
                              {DNNL_ARG_WEIGHTS, plan->weights},
                              {DNNL_ARG_DST, plan->dst},
                              {DNNL_ARG_SCRATCHPAD, plan->scratchpad}};
    ok = ok && dnnl_primitive_execute(plan->primitive, plans->stream, MEED_COUNT(args), args) ==
                   dnnl_success;
    MEED_ASSERT(ok);
}

/* --- packed weights --------------------------------------------------------------------------- */
struct weights {
    const char *b; /* NULL: free slot */
    size_t b_bytes;
    int64_t n;
    int64_t k;
    int64_t chunk; /* columns of a chunk */
    enum meed_dtype dtype;
    int uses;
    bool refused;
    char *packed; /* chunks one after another, each of its plain size */
};

struct meed_matmul_onednn {
    pthread_mutex_t mutex;
    struct weights weights[WEIGHT_SLOTS];
    int count; /* slots in use are the first ones */
    size_t packed_bytes;
};

enum meed_status meed_matmul_onednn_create(struct meed_matmul_onednn **state)
{
    struct meed_matmul_onednn *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    pthread_mutex_init(&made->mutex, NULL);
    *state = made;
    return MEED_OK;
}

static void weights_drop(struct meed_matmul_onednn *state, int idx)
{
    struct weights *weights = &state->weights[idx];
    if (weights->packed) {
        state->packed_bytes -= weights->b_bytes;
        free(weights->packed);
    }
    *weights = state->weights[--state->count];
    memset(&state->weights[state->count], 0, sizeof *weights);
}

void meed_matmul_onednn_destroy(struct meed_matmul_onednn *state)
{
    if (!state) {
        return;
    }
    while (state->count > 0) {
        weights_drop(state, state->count - 1);
    }
    pthread_mutex_destroy(&state->mutex);
    meed_heap_free(state);
}

void meed_matmul_onednn_forget(struct meed_matmul_onednn *state, const void *address)
{
    uintptr_t at = (uintptr_t)address;
    pthread_mutex_lock(&state->mutex);
    for (int i = state->count - 1; i >= 0; i--) {
        uintptr_t begin = (uintptr_t)state->weights[i].b;
        if (at >= begin && at < begin + state->weights[i].b_bytes) {
            weights_drop(state, i);
        }
    }
    pthread_mutex_unlock(&state->mutex);
}

/* Reorders one chunk [n, k] of B; false where the packed layout pads (its size would differ). */
static bool chunk_pack(struct thread_plans *plans, struct plan_key key, const char *from, char *to)
{
    struct layout packed = {0};
    struct layout src;
    struct layout plain;
    struct layout dst;
    dnnl_primitive_desc_t descriptor = plan_descriptor(&key, &packed);
    if (!descriptor) {
        return false;
    }
    (void)dnnl_primitive_desc_destroy(descriptor);
    key.packed = 0;
    dnnl_primitive_desc_t reorder_descriptor = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t from_memory = NULL;
    dnnl_memory_t to_memory = NULL;
    size_t size = (size_t)(key.n * key.k) * meed_dtype_bytes(key.in);
    bool ok =
        operand_layouts(&key, &src, &plain, &dst) &&
        dnnl_memory_desc_get_size(LAYOUT(&packed)) == size &&
        dnnl_reorder_primitive_desc_create(&reorder_descriptor, LAYOUT(&plain), engine_shared,
                                           LAYOUT(&packed), engine_shared, NULL) == dnnl_success &&
        dnnl_primitive_create(&reorder, reorder_descriptor) == dnnl_success &&
        dnnl_memory_create(&from_memory, LAYOUT(&plain), engine_shared, (void *)(uintptr_t)from) ==
            dnnl_success &&
        dnnl_memory_create(&to_memory, LAYOUT(&packed), engine_shared, to) == dnnl_success;
    if (ok) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from_memory}, {DNNL_ARG_TO, to_memory}};
        ok = dnnl_primitive_execute(reorder, plans->stream, MEED_COUNT(args), args) == dnnl_success;
    }
    if (from_memory) {
        (void)dnnl_memory_destroy(from_memory);
    }
    if (to_memory) {
        (void)dnnl_memory_destroy(to_memory);
    }
    if (reorder) {
        (void)dnnl_primitive_destroy(reorder);
    }
    if (reorder_descriptor) {
        (void)dnnl_primitive_desc_destroy(reorder_descriptor);
    }
    layouts_clear(&src, &plain, &dst);
    layout_clear(&packed);
    return ok;
}

/* Columns of a chunk such that every thread gets as many: 576 on two threads are 320 and 256, and
 * not 512 and 64. */
static int64_t chunk_of(int64_t n, int threads)
{
    int64_t most = (int64_t)CHUNK_MAX * threads;
    int64_t chunks = (n + most - 1) / most * threads;
    int64_t chunk = (n + chunks - 1) / chunks;
    return (chunk + CHUNK_STEP - 1) / CHUNK_STEP * CHUNK_STEP;
}

static bool weights_pack(struct meed_matmul_onednn *state, struct weights *weights,
                         struct thread_plans *plans, struct plan_key key)
{
    int64_t chunk = weights->chunk;
    if (state->packed_bytes + weights->b_bytes > pack_bytes_max) {
        return false;
    }
    char *packed = aligned_alloc(64, (weights->b_bytes + 63) / 64 * 64);
    bool ok = packed != NULL;
    key.packed = 1;
    key.m = PACK_MODEL_ROWS;
    for (int64_t col = 0; ok && col < weights->n; col += chunk) {
        size_t at = (size_t)(col * weights->k) * meed_dtype_bytes(weights->dtype);
        key.n = MEED_MIN(chunk, weights->n - col);
        struct plan_key verdict = key;
        verdict.m = 0;
        ok = plan_get(plans, verdict)->served &&
             chunk_pack(plans, key, weights->b + at, packed + at);
    }
    if (!ok) {
        free(packed);
        return false;
    }
    weights->packed = packed;
    state->packed_bytes += weights->b_bytes;
    return true;
}

/* The packed copy of B for a product with few rows, or NULL; counts the call. */
static const char *weights_find(struct meed_matmul_onednn *state, struct thread_plans *plans,
                                struct meed_mat b, struct plan_key key, int64_t chunk)
{
    const char *packed = NULL;
    pthread_mutex_lock(&state->mutex);
    int idx = 0;
    while (idx < state->count &&
           !(state->weights[idx].b == b.data && state->weights[idx].n == b.rows &&
             state->weights[idx].k == b.cols && state->weights[idx].dtype == b.dtype &&
             state->weights[idx].chunk == chunk)) {
        idx++;
    }
    if (idx == state->count && idx < WEIGHT_SLOTS) {
        state->weights[state->count++] =
            (struct weights){.b = b.data,
                             .b_bytes = (size_t)(b.rows * b.cols) * meed_dtype_bytes(b.dtype),
                             .n = b.rows,
                             .k = b.cols,
                             .chunk = chunk,
                             .dtype = b.dtype};
    }
    if (idx < WEIGHT_SLOTS) {
        struct weights *weights = &state->weights[idx];
        if (!weights->packed && !weights->refused && ++weights->uses >= PACK_AFTER) {
            weights->refused = !weights_pack(state, weights, plans, key);
        }
        packed = weights->packed;
    }
    pthread_mutex_unlock(&state->mutex);
    return packed;
}

/* --- one product ------------------------------------------------------------------------------ */
struct job {
    struct meed_mat a;
    struct meed_mat b;
    struct meed_mat c;
    struct plan_key key; /* m and n are the task's */
    const char *packed;
    int64_t tile; /* rows of a full piece */
    int64_t full; /* full pieces */
    int64_t pieces;
    int64_t chunk; /* columns of a chunk; N where there is one */
    int64_t chunks;
};

/* Piece idx of the rows: full tiles, then a multiple of 16, then powers of two. */
static void piece_bounds(const struct job *job, int64_t idx, int64_t *row, int64_t *rows)
{
    *row = MEED_MIN(idx, job->full) * job->tile;
    *rows = job->tile;
    for (int64_t i = job->full; i <= idx; i++) {
        int64_t left = job->c.rows - *row;
        *rows = left >= 16 ? left / 16 * 16 : left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (i < idx) {
            *row += *rows;
        }
    }
}

static void rows_move(char *to, size_t to_stride, const char *from, size_t from_stride,
                      size_t bytes, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++) {
        memcpy(to + (size_t)i * to_stride, from + (size_t)i * from_stride, bytes);
    }
}

static void tasks_run(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct job *job = user;
    struct thread_plans *plans = thread_plans_get();
    MEED_ASSERT(plans);
    size_t in = meed_dtype_bytes(job->a.dtype);
    size_t out = meed_dtype_bytes(job->c.dtype);
    for (int64_t task = begin; task < end; task++) {
        int64_t row;
        int64_t rows;
        /* Packed, all pieces of a chunk follow each other: it is read from memory once. */
        bool by_chunk = job->packed != NULL;
        piece_bounds(job, by_chunk ? task % job->pieces : task / job->chunks, &row, &rows);
        int64_t col = (by_chunk ? task / job->pieces : task % job->chunks) * job->chunk;
        struct plan_key key = job->key;
        key.m = rows;
        key.n = MEED_MIN(job->chunk, job->c.cols - col);
        struct plan *plan = plan_get(plans, key);
        MEED_ASSERT(plan->served);
        const char *a = (const char *)job->a.data + (size_t)(row * job->a.stride) * in;
        const char *b = job->packed ? job->packed : (const char *)job->b.data;
        b += (size_t)(col * job->key.k) * in; /* chunks exist for NT alone */
        size_t c_stride = (size_t)job->c.stride * out;
        char *c = (char *)job->c.data + (size_t)row * c_stride + (size_t)col * out;
        size_t width = (size_t)key.n * out;
        if (c_stride == width) {
            plan_execute(plans, plan, a, b, c);
            continue;
        }
        char *dense = meed_cpu_scratch_get(MEED_SCRATCH_TILE, (size_t)rows * width);
        if (key.accumulate) {
            rows_move(dense, width, c, c_stride, width, rows);
        }
        plan_execute(plans, plan, a, b, dense);
        rows_move(c, c_stride, dense, width, width, rows);
    }
}

static bool served(struct thread_plans *plans, struct plan_key key, int64_t n)
{
    key.m = 0;
    key.n = n;
    return plan_get(plans, key)->served;
}

/* Cuts the product: pieces of rows, and chunks of columns where pieces are too few. */
static void job_cut(struct job *job, struct thread_plans *plans, int threads)
{
    int64_t chunk = chunk_of(job->c.cols, threads);
    job->tile = TILE;
    while (job->tile > 32 && job->c.rows < 2 * job->tile * threads && threads > 1) {
        job->tile /= 2;
    }
    job->full = job->c.rows / job->tile;
    int64_t left = job->c.rows % job->tile;
    job->pieces = job->full + (left >= 16) + __builtin_popcount((unsigned)(left % 16));
    job->chunk = job->c.cols;
    bool split = job->packed || (threads > 1 && job->pieces < 2 * threads &&
                                 job->key.kind == MEED_MATMUL_NT && job->c.cols > chunk);
    int64_t last = job->c.cols % chunk ? job->c.cols % chunk : chunk;
    if (split && (job->packed || (served(plans, job->key, MEED_MIN(chunk, job->c.cols)) &&
                                  served(plans, job->key, last)))) {
        job->chunk = chunk;
    }
    job->chunks = (job->c.cols + job->chunk - 1) / job->chunk;
}

bool meed_matmul_onednn_run(struct meed_pool *pool, struct meed_matmul_onednn *state,
                            enum meed_matmul_kind kind, struct meed_mat a, struct meed_mat b,
                            bool accumulate, struct meed_mat c)
{
    if (a.stride != a.cols || b.stride != b.cols || a.cols == 0) {
        return false;
    }
    struct thread_plans *plans = thread_plans_get();
    if (!plans) {
        return false;
    }
    struct job job = {.a = a, .b = b, .c = c};
    job.key =
        (struct plan_key){0, c.cols, a.cols, kind, a.dtype, c.dtype, (uint8_t)accumulate, 0, 0, 0};
    if (!served(plans, job.key, c.cols)) {
        return false;
    }
    if (kind == MEED_MATMUL_NT && c.rows <= PACK_ROWS) {
        int64_t chunk = chunk_of(c.cols, meed_pool_thread_count(pool));
        job.packed = weights_find(state, plans, b, job.key, chunk);
        job.key.packed = job.packed != NULL;
    }
    job_cut(&job, plans, meed_pool_thread_count(pool));
    meed_pool_for(pool, job.pieces * job.chunks, job.packed ? job.pieces : 1, tasks_run, &job);
    return true;
}
