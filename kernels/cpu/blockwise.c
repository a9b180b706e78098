/* Weights into blocks and back (block_format.h): the twin that says what the bits are.
 *
 * Packing happens once, at load. Unpacking runs before every product of a quantised network, so it
 * is the one worth vectors: VL bytes become VL codes, those become floats by conversion (int8) or
 * by a look-up in registers (four bits), times the scale. It reads 0.56 to 1.06 bytes and writes 2
 * or 4 an element; rows go to the pool.
 */
#include "kernels/cpu/isa.h"

#include <float.h>
#include "base/threads.h"
#include "kernels/cpu/vec.h"

typedef int8_t vb __attribute__((vector_size(VL)));
typedef uint8_t vc __attribute__((vector_size(VL)));

enum { GRAIN_ROWS = 8 };
static const float round_shift = 12582912.0f; /* 1.5·2²³: adding it leaves no fraction bits */

struct pack_job {
    struct meed_mat w;
    struct meed_blocks out;
    float bounds[MEED_BLOCK_BOOK - 1];
};

static float block_scale(const float *values, enum meed_block_format format)
{
    vf peak = {0};
    for (int i = 0; i < MEED_BLOCK; i += VL) {
        vf value = vf_load(values + i);
        peak = vf_max(peak, vf_max(value, -value));
    }
    float scale = vf_peak(peak) / meed_block_peak(format);
    return scale >= FLT_MIN ? scale : 0.0f;
}

VEC_INLINE vi integer_codes(vf ratio)
{
    return __builtin_convertvector((ratio + round_shift) - round_shift, vi);
}

VEC_INLINE vi nf4_codes(vf ratio, const float *bounds)
{
    vi code = {0};
    for (int i = 0; i + 1 < MEED_BLOCK_BOOK; i++) {
        code -= (vi)(ratio > vf_set1(bounds[i]));
    }
    return code;
}

static void block_encode(const struct pack_job *job, const float *values, float scale,
                         uint8_t *codes)
{
    vf divisor = vf_set1(scale > 0 ? scale : 1.0f);
    if (job->out.format == MEED_BLOCK_INT8) {
        for (int i = 0; i < MEED_BLOCK; i += VL) {
            vb code = __builtin_convertvector(integer_codes(vf_load(values + i) / divisor), vb);
            memcpy(codes + i, &code, VL);
        }
        return;
    }
    for (int i = 0; i < MEED_BLOCK_HALF; i += VL) {
        vf low = vf_load(values + i) / divisor;
        vf high = vf_load(values + MEED_BLOCK_HALF + i) / divisor;
        bool nf4 = job->out.format == MEED_BLOCK_NF4;
        vi first = nf4 ? nf4_codes(low, job->bounds) : integer_codes(low) + 8;
        vi second = nf4 ? nf4_codes(high, job->bounds) : integer_codes(high) + 8;
        vc byte = __builtin_convertvector(first | second << 4, vc);
        memcpy(codes + i, &byte, VL);
    }
}

static void pack_rows(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct pack_job *job = user;
    int64_t blocks = meed_blocks_per_row(job->w.cols);
    int64_t bytes = meed_block_bytes(job->out.format);
    for (int64_t at = begin * blocks; at < end * blocks; at++) {
        int64_t row = at / blocks, col = at % blocks * MEED_BLOCK;
        float values[MEED_BLOCK] = {0};
        vf_unpack_row(job->w.data, row * job->w.stride + col, job->w.dtype,
                      MEED_MIN(MEED_BLOCK, job->w.cols - col), values);
        float scale = block_scale(values, job->out.format);
        if (scale == 0) {
            memset(values, 0, sizeof values);
        }
        job->out.scales[at] = scale;
        block_encode(job, values, scale, job->out.codes + at * bytes);
    }
}

void MEED_TWIN(block_pack)(const struct meed_backend *be, struct meed_mat w, struct meed_blocks out)
{
    MEED_ASSERT(out.format != MEED_BLOCK_NONE && out.rows == w.rows && out.cols == w.cols);
    struct pack_job job = {.w = w, .out = out};
    meed_block_bounds(job.bounds);
    meed_pool_for(be->pool, w.rows, GRAIN_ROWS, pack_rows, &job);
}

struct unpack_job {
    struct meed_blocks blocks;
    struct meed_mat tail;
    struct meed_mat out;
    float book[MEED_BLOCK_BOOK];
};

VEC_INLINE vf book_values(const float *book, vi code)
{
    if (VL >= 8) {
        return vf_pick(vf_load(book), vf_load(book + MEED_BLOCK_BOOK - VL), code);
    }
    vf value = {0};
    for (int lane = 0; lane < VL; lane++) {
        value[lane] = book[code[lane]];
    }
    return value;
}

/* The block's elements that lie in the row: `count` of them go to element `to` of out. */
static void block_decode(const struct unpack_job *job, const uint8_t *codes, float scale,
                         int64_t to, int64_t count)
{
    const struct meed_mat *out = &job->out;
    vf factor = vf_set1(scale);
    if (job->blocks.format == MEED_BLOCK_INT8) {
        for (int64_t i = 0; i < count; i += VL) {
            vb code;
            memcpy(&code, codes + i, VL);
            vf value = __builtin_convertvector(__builtin_convertvector(code, vi), vf);
            vf_put_n(out->data, to + i, out->dtype, count - i, factor * value);
        }
        return;
    }
    for (int64_t i = 0; i < MEED_BLOCK_HALF && i < count; i += VL) {
        vc byte;
        memcpy(&byte, codes + i, VL);
        vi code = __builtin_convertvector(byte, vi);
        vf_put_n(out->data, to + i, out->dtype, MEED_MIN(MEED_BLOCK_HALF, count) - i,
                 factor * book_values(job->book, code & 15));
        if (i + MEED_BLOCK_HALF < count) {
            vf_put_n(out->data, to + MEED_BLOCK_HALF + i, out->dtype, count - MEED_BLOCK_HALF - i,
                     factor * book_values(job->book, code >> 4));
        }
    }
}

static void unpack_rows(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct unpack_job *job = user;
    int64_t cols = job->blocks.cols, blocks = meed_blocks_per_row(cols);
    int64_t bytes = meed_block_bytes(job->blocks.format);
    size_t tail_bytes = (size_t)job->tail.cols * meed_dtype_bytes(job->tail.dtype);
    for (int64_t row = begin; row < end; row++) {
        for (int64_t b = 0; b < blocks; b++) {
            int64_t at = row * blocks + b, col = b * MEED_BLOCK;
            block_decode(job, job->blocks.codes + at * bytes, job->blocks.scales[at],
                         row * job->out.stride + col, MEED_MIN(MEED_BLOCK, cols - col));
        }
        if (tail_bytes > 0) {
            struct meed_mat to =
                meed_mat_rows(meed_mat_cols(job->out, cols, job->tail.cols), row, 1);
            memcpy(to.data, meed_mat_rows(job->tail, row, 1).data, tail_bytes);
        }
    }
}

void MEED_TWIN(block_unpack)(const struct meed_backend *be, struct meed_blocks blocks,
                             struct meed_mat tail, struct meed_mat out)
{
    MEED_ASSERT(blocks.format != MEED_BLOCK_NONE && out.rows == blocks.rows);
    MEED_ASSERT(out.cols == blocks.cols + tail.cols);
    MEED_ASSERT(tail.cols == 0 || (tail.rows == out.rows && tail.dtype == out.dtype));
    be->forget(be, out.data);
    struct unpack_job job = {.blocks = blocks, .tail = tail, .out = out};
    meed_block_book(blocks.format, job.book);
    meed_pool_for(be->pool, out.rows, GRAIN_ROWS, unpack_rows, &job);
}
