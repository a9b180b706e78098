/* Attention of new rows against a paged KV cache.
 *
 * A row of a decoding batch is bound by reading its slot's keys and values once, so nothing may be
 * packed or converted aside. A page keeps V as rows and K as columns: [G, D, 64] and [G, 64, D].
 * Both products, q·Kᵀ and p·V, then run along memory with the cache's own rows as vectors, and the
 * query heads of a group share every load. A run of rows (a prompt) packs the page once for all of
 * them and takes panel_gemm.
 *
 * Both ways every score is one chain over D and every output one chain over the positions, with the
 * softmax of attend.h a page at a time: a row's bits are those of the forward, and do not depend on
 * which way it took, how its prompt was cut, or what its pages are called.
 */
#include "kernels/cpu/attend.h"

#include "base/threads.h"
#include "kernels/cpu/cpu_scratch.h"

struct job {
    struct meed_mat qkv;
    struct meed_mat out;
    struct meed_attention_shape shape;
    struct meed_kv_layer cache;
    const int32_t *slots;
    const int32_t *positions;
    const int32_t *run_rows; /* first row of each run, and M behind the last */
};

/* Where a page's part of group g begins, in elements; k and v alike. */
static int64_t page_at(const struct job *job, int64_t slot, int64_t position, int64_t group)
{
    int64_t page = job->cache.table[slot * job->cache.slot_pages + position / MEED_KV_PAGE];
    MEED_ASSERT(page >= 0 && page < job->cache.pages);
    return (page * job->shape.kv_heads + group) * MEED_KV_PAGE * job->shape.head_dim;
}

static inline const char *at(const void *base, int64_t idx, enum meed_dtype dtype)
{
    return (const char *)base + idx * (int64_t)meed_dtype_bytes(dtype);
}

static void rows_append(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct job *job = user;
    const struct meed_kv_layer *cache = &job->cache;
    int64_t size = job->shape.head_dim;
    int64_t width = job->shape.kv_heads * size;
    for (int64_t m = begin; m < end; m++) {
        int64_t place = job->positions[m] % MEED_KV_PAGE;
        MEED_ASSERT(job->positions[m] >= 0);
        MEED_ASSERT(job->positions[m] < cache->slot_pages * MEED_KV_PAGE);
        for (int64_t g = 0; g < job->shape.kv_heads; g++) {
            int64_t from = m * job->qkv.stride + (job->shape.heads + g) * size;
            int64_t to = page_at(job, job->slots[m], job->positions[m], g);
            for (int64_t d = 0; d < size; d++) {
                elem_put(cache->k, to + d * MEED_KV_PAGE + place, cache->dtype,
                         elem_get(job->qkv.data, from + d, job->qkv.dtype));
            }
            for (int64_t d = 0; d < size; d += VL) {
                vf_put_n(cache->v, to + place * size + d, cache->dtype, size - d,
                         vf_get_n(job->qkv.data, from + width + d, job->qkv.dtype, size - d));
            }
        }
    }
}

/* --- one row: along memory -------------------------------------------------------------------- */

#if defined(__AVX512F__)
enum { STREAM_ROWS = 4, STREAM_VECTORS = 4 };
#else
enum { STREAM_ROWS = 2, STREAM_VECTORS = 4 }; /* of 16 registers */
#endif

/* c [rows, panel_cols(n)] += a [rows, depth]·src [depth, n], src read where it lies. `next`, where
 * given, is what will be read after it, as large: it is asked for on the way, because pages lie
 * anywhere and the processor cannot guess. */
struct stream {
    const float *a;
    int64_t a_stride;
    int64_t rows;
    int64_t depth;
    const char *src;
    int64_t n;
    float *c;
    int64_t c_stride;
    const char *next;
};

/* Rows [row, row + rows) and `vectors` vectors of columns from col. */
VEC_INLINE void stream_block(const struct stream *s, int rows, int vectors, int64_t row,
                             int64_t col, enum meed_dtype dtype)
{
    vf acc[STREAM_ROWS][STREAM_VECTORS];
    const float *a = s->a + row * s->a_stride;
    float *c = s->c + row * s->c_stride + col;
    int64_t row_bytes = s->n * (int64_t)meed_dtype_bytes(dtype);
    const char *next = row == 0 && col == 0 ? s->next : NULL;
    _Pragma("GCC unroll 4") for (int i = 0; i < rows; i++)
    {
        _Pragma("GCC unroll 4") for (int j = 0; j < vectors; j++)
        {
            acc[i][j] = vf_load(c + i * s->c_stride + j * VL);
        }
    }
    for (int64_t step = 0; step < s->depth; step++) {
        vf b[STREAM_VECTORS];
        for (int64_t ahead = 0; next && ahead < row_bytes; ahead += 64) {
            __builtin_prefetch(next + step * row_bytes + ahead);
        }
        _Pragma("GCC unroll 4") for (int j = 0; j < vectors; j++)
        {
            b[j] =
                vf_get_n(s->src, step * s->n + col + j * VL, dtype, vectors == 1 ? s->n - col : VL);
        }
        _Pragma("GCC unroll 4") for (int i = 0; i < rows; i++)
        {
            vf x = vf_set1(a[i * s->a_stride + step]);
            _Pragma("GCC unroll 4") for (int j = 0; j < vectors; j++)
            {
                acc[i][j] = vf_fma(x, b[j], acc[i][j]);
            }
        }
    }
    _Pragma("GCC unroll 4") for (int i = 0; i < rows; i++)
    {
        _Pragma("GCC unroll 4") for (int j = 0; j < vectors; j++)
        {
            vf_store(c + i * s->c_stride + j * VL, acc[i][j]);
        }
    }
}

VEC_INLINE void stream_columns(const struct stream *s, int vectors, int64_t col,
                               enum meed_dtype dtype)
{
    int64_t row = 0;
    for (; STREAM_ROWS == 4 && row + 4 <= s->rows; row += 4) {
        stream_block(s, STREAM_ROWS, vectors, row, col, dtype);
    }
    for (; row + 2 <= s->rows; row += 2) {
        stream_block(s, 2, vectors, row, col, dtype);
    }
    if (row < s->rows) {
        stream_block(s, 1, vectors, row, col, dtype);
    }
}

VEC_INLINE void stream_run(const struct stream *s, enum meed_dtype dtype)
{
    int64_t col = 0;
    for (; col + STREAM_VECTORS * VL <= s->n; col += STREAM_VECTORS * VL) {
        stream_columns(s, STREAM_VECTORS, col, dtype);
    }
    for (; col < s->n; col += VL) {
        stream_columns(s, 1, col, dtype);
    }
}

static void stream_f32(const struct stream *s)
{
    stream_run(s, MEED_DTYPE_F32);
}
static void stream_bf16(const struct stream *s)
{
    stream_run(s, MEED_DTYPE_BF16);
}

/* --- a run of rows and one group ----------------------------------------------------------------
 */

/* Pair h·rows + i is head h of the group and row i of the run. */
struct run {
    const struct job *job;
    int64_t row; /* of the batch */
    int64_t rows;
    int64_t group;
    int64_t heads; /* of the group */
    int64_t size;
    int64_t width; /* panel_cols(size) */
    int64_t first; /* position of the first row */
    float *q;      /* [pairs, D], scaled */
    float *out;    /* [pairs, width] */
    float *score;  /* [pairs, 64] */
    float *peak;   /* [pairs] */
    float *sum;    /* [pairs] */
    float *packed; /* a page of k or v, for panel_gemm */
};

static struct run run_make(const struct job *job, int64_t row, int64_t rows, int64_t group)
{
    int64_t heads = job->shape.heads / job->shape.kv_heads;
    int64_t size = job->shape.head_dim;
    struct run r = {.job = job, .row = row, .rows = rows, .group = group, .heads = heads};
    int64_t pairs = heads * rows;
    r.size = size;
    r.width = panel_cols(size);
    r.first = job->positions[row];
    int64_t page = MEED_KV_PAGE * r.width;
    r.score = meed_cpu_scratch_floats(
        MEED_SCRATCH_TILE, (size_t)(pairs * (MEED_KV_PAGE + 2 * r.width + 2) + page + VL));
    r.out = r.score + pairs * MEED_KV_PAGE;
    r.packed = r.out + pairs * r.width;
    r.q = r.packed + page;
    r.peak = r.q + pairs * r.width;
    r.sum = r.peak + pairs;
    memset(r.out, 0, (size_t)(pairs * r.width) * sizeof *r.out);
    for (int64_t p = 0; p < pairs; p++) {
        int64_t from = (row + p % rows) * job->qkv.stride + (group * heads + p / rows) * size;
        vf_unpack_row(job->qkv.data, from, job->qkv.dtype, size, r.q + p * size);
        for (int64_t d = 0; d < size; d++) {
            r.q[p * size + d] *= job->shape.scale;
        }
        r.peak[p] = -__builtin_inff();
        r.sum[p] = 0.0f;
    }
    return r;
}

/* First position that a row sees. */
static int64_t floor_of(const struct job *job, int64_t position)
{
    return job->shape.window > 0 ? MEED_MAX(0, position - job->shape.window + 1) : 0;
}

/* Scores of the page at `key` become weights; rows that see nothing of it get zeros. */
static void run_softmax(struct run *r, int64_t key)
{
    for (int64_t p = 0; p < r->heads * r->rows; p++) {
        float *score = r->score + p * MEED_KV_PAGE;
        int64_t position = r->first + p % r->rows;
        int64_t begin = MEED_MAX(0, floor_of(r->job, position) - key);
        int64_t end = MEED_MIN(MEED_KV_PAGE, position - key + 1);
        bool seen = begin < end;
        for (int64_t j = 0; j < MEED_KV_PAGE && end - begin < MEED_KV_PAGE; j++) {
            score[j] = !seen ? 0.0f : j >= begin && j < end ? score[j] : -__builtin_inff();
        }
        if (seen) {
            MEED_TWIN(attend_softmax)
            (score, MEED_KV_PAGE, r->peak + p, r->sum + p, r->out + p * r->width, r->width);
        }
    }
}

/* c += a·page, for all pairs of the run. */
static void run_product(const struct run *r, const struct stream *s)
{
    enum meed_dtype dtype = r->job->cache.dtype;
    if (r->rows > 1) {
        MEED_TWIN(panel_pack)(s->src, dtype, s->n, false, s->depth, s->n, r->packed);
        MEED_TWIN(panel_gemm)
        (s->a, s->a_stride, 1, s->rows, s->depth, r->packed, s->n, s->c, s->c_stride);
    } else {
        (dtype == MEED_DTYPE_F32 ? stream_f32 : stream_bf16)(s);
    }
}

static void run_attend(struct run *r)
{
    const struct job *job = r->job;
    const struct meed_kv_layer *cache = &job->cache;
    int64_t slot = job->slots[r->row];
    int64_t pairs = r->heads * r->rows;
    int64_t last = r->first + r->rows;
    int64_t begin = floor_of(job, r->first) / MEED_KV_PAGE * MEED_KV_PAGE;
    for (int64_t key = begin; key < last; key += MEED_KV_PAGE) {
        int64_t keys = MEED_MIN(MEED_KV_PAGE, last - key);
        int64_t page = page_at(job, slot, key, r->group);
        const char *k = at(cache->k, page, cache->dtype);
        const char *v = at(cache->v, page, cache->dtype);
        const char *next = NULL;
        if (key + MEED_KV_PAGE < last) {
            next = at(cache->k, page_at(job, slot, key + MEED_KV_PAGE, r->group), cache->dtype);
        }
        memset(r->score, 0, (size_t)(pairs * MEED_KV_PAGE) * sizeof *r->score);
        run_product(r, &(struct stream){r->q, r->size, pairs, r->size, k, MEED_KV_PAGE, r->score,
                                        MEED_KV_PAGE, v});
        run_softmax(r, key);
        run_product(r, &(struct stream){r->score, MEED_KV_PAGE, pairs, keys, v, r->size, r->out,
                                        r->width, next});
    }
}

static void tasks_run(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct job *job = user;
    int64_t groups = job->shape.kv_heads;
    for (int64_t task = begin; task < end; task++) {
        int64_t row = job->run_rows[task / groups];
        struct run r = run_make(job, row, job->run_rows[task / groups + 1] - row, task % groups);
        run_attend(&r);
        for (int64_t p = 0; p < r.heads * r.rows; p++) {
            int64_t to =
                (row + p % r.rows) * job->out.stride + (r.group * r.heads + p / r.rows) * r.size;
            for (int64_t d = 0; d < r.size; d += VL) {
                vf_put_n(job->out.data, to + d, job->out.dtype, r.size - d,
                         vf_load(r.out + p * r.width + d) / r.sum[p]);
            }
        }
    }
}

void MEED_TWIN(attention_decode)(const struct meed_backend *be, struct meed_mat qkv,
                                 struct meed_attention_shape shape, struct meed_kv_layer cache,
                                 const int32_t *slots, const int32_t *positions,
                                 const struct meed_tail *tail, struct meed_mat out)
{
    int64_t r = tail && tail->a.data ? tail->a.rows : 0;
    MEED_ASSERT(shape.heads > 0 && shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0);
    MEED_ASSERT(qkv.cols == (int64_t)(shape.heads + 2 * shape.kv_heads) * shape.head_dim);
    MEED_ASSERT(out.cols == (int64_t)shape.heads * shape.head_dim + r);
    MEED_ASSERT(out.rows == qkv.rows && out.dtype == qkv.dtype);
    struct job job = {qkv, out, shape, cache, slots, positions, NULL};
    meed_pool_for(be->pool, qkv.rows, 64, rows_append, &job);
    int32_t *run_rows =
        meed_cpu_scratch_get(MEED_SCRATCH_SHARED_A, (size_t)(qkv.rows + 1) * sizeof(int32_t));
    int64_t runs = 0;
    for (int64_t m = 0; m < qkv.rows; m++) {
        bool continues = m > 0 && slots[m] == slots[m - 1] &&
                         positions[m] == positions[m - 1] + 1 && positions[m] % MEED_KV_PAGE != 0;
        if (!continues) {
            run_rows[runs++] = (int32_t)m;
        }
    }
    run_rows[runs] = (int32_t)qkv.rows;
    job.run_rows = run_rows;
    meed_pool_for(be->pool, runs * shape.kv_heads, 1, tasks_run, &job);
    MEED_TWIN(lora_down)(be, out, (int64_t)shape.heads * shape.head_dim, tail);
}
