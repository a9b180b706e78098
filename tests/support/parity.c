/* See parity.h. */
#include "tests/support/parity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool parity_small;

static struct parity_block *block_add(struct parity *p, void *memory, bool device)
{
    assert_true(p->block_count < PARITY_BLOCKS);
    struct parity_block *block = &p->blocks[p->block_count++];
    *block = (struct parity_block){memory, device, {NULL, 0, 0, 0, MEED_DTYPE_F32}};
    return block;
}

static void *device_alloc(struct parity *p, size_t bytes)
{
    void *memory = NULL;
    assert_int_equal(p->be->alloc(p->be, bytes, &memory), MEED_OK);
    block_add(p, memory, true);
    return memory;
}

static void *host_alloc(struct parity *p, size_t bytes)
{
    void *memory = calloc(1, bytes + 1);
    assert_non_null(memory);
    block_add(p, memory, false);
    return memory;
}

double parity_unit(struct parity *p)
{
    return 2.0 * meed_rng_unit(&p->rng) - 1.0;
}

double *parity_doubles(struct parity *p, int64_t count)
{
    return host_alloc(p, (size_t)count * sizeof(double));
}

static size_t view_bytes(struct meed_mat mat)
{
    return (size_t)(mat.rows * mat.stride) * meed_dtype_bytes(mat.dtype);
}

static void *fetch(struct parity *p, const void *device, size_t bytes)
{
    void *host = host_alloc(p, bytes);
    assert_int_equal(p->be->copy_from(p->be, host, device, bytes), MEED_OK);
    assert_int_equal(p->be->sync(p->be), MEED_OK);
    return host;
}

struct meed_mat parity_mat(struct parity *p, int64_t rows, int64_t cols, int64_t pad,
                           enum meed_dtype dtype, double scale)
{
    struct meed_mat mat = meed_mat_view(NULL, rows, cols, cols + pad, dtype);
    size_t bytes = view_bytes(mat);
    char *host = host_alloc(p, bytes);
    memset(host, 0x7F, bytes);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) {
            float value = (float)(scale * parity_unit(p));
            if (dtype == MEED_DTYPE_F32) {
                ((float *)(void *)host)[i * mat.stride + j] = value;
            } else {
                ((meed_bf16 *)(void *)host)[i * mat.stride + j] = meed_bf16_from_f32(value);
            }
        }
    }
    mat.data = device_alloc(p, bytes);
    p->blocks[p->block_count - 1].view = mat;
    assert_int_equal(p->be->copy_to(p->be, mat.data, host, bytes), MEED_OK);
    return mat;
}

struct meed_mat parity_copy(struct parity *p, struct meed_mat mat)
{
    void *host = fetch(p, mat.data, view_bytes(mat));
    mat.data = device_alloc(p, view_bytes(mat));
    p->blocks[p->block_count - 1].view = mat;
    assert_int_equal(p->be->copy_to(p->be, mat.data, host, view_bytes(mat)), MEED_OK);
    return mat;
}

double *parity_values(struct parity *p, struct meed_mat mat)
{
    double *values = parity_doubles(p, mat.rows * mat.cols);
    if (mat.rows == 0 || mat.cols == 0) {
        return values;
    }
    size_t bytes = (size_t)((mat.rows - 1) * mat.stride + mat.cols) * meed_dtype_bytes(mat.dtype);
    const char *host = fetch(p, mat.data, bytes);
    for (int64_t i = 0; i < mat.rows; i++) {
        for (int64_t j = 0; j < mat.cols; j++) {
            int64_t at = i * mat.stride + j;
            values[i * mat.cols + j] =
                mat.dtype == MEED_DTYPE_F32
                    ? (double)((const float *)(const void *)host)[at]
                    : (double)meed_bf16_to_f32(((const meed_bf16 *)(const void *)host)[at]);
        }
    }
    return values;
}

float *parity_floats(struct parity *p, int64_t count, double scale)
{
    return parity_mat(p, 1, count, 0, MEED_DTYPE_F32, scale).data;
}

double *parity_from_floats(struct parity *p, const float *device, int64_t count)
{
    struct meed_mat view = {NULL, 1, count, count, MEED_DTYPE_F32};
    view.data = (void *)(uintptr_t)device;
    return parity_values(p, view);
}

int32_t *parity_ints(struct parity *p, const int32_t *values, int64_t count)
{
    size_t bytes = (size_t)count * sizeof *values;
    int32_t *device = device_alloc(p, bytes);
    assert_int_equal(p->be->copy_to(p->be, device, values, bytes), MEED_OK);
    return device;
}

void parity_same(const char *what, const void *a, const void *b, size_t bytes)
{
    const unsigned char *left = a;
    const unsigned char *right = b;
    for (size_t i = 0; i < bytes; i++) {
        if (left[i] != right[i]) {
            fail_msg("%s: byte %zu of %zu differs (%02x, %02x)", what, i, bytes, left[i], right[i]);
        }
    }
}

void parity_same_rows(struct parity *p, const char *what, struct meed_mat a, struct meed_mat b)
{
    assert_true(a.rows == b.rows && a.cols == b.cols);
    int kept = p->block_count;
    parity_same(what, parity_values(p, a), parity_values(p, b),
                (size_t)(a.rows * a.cols) * sizeof(double));
    while (p->block_count > kept) {
        free(p->blocks[--p->block_count].memory);
    }
}

void parity_record_bytes(struct parity *p, const void *host, size_t bytes)
{
    if (bytes > 0) {
        assert_int_equal(meed_buf_append(&p->record, host, bytes), MEED_OK);
    }
}

void parity_record(struct parity *p, struct meed_mat mat)
{
    parity_record_bytes(p, parity_values(p, mat), (size_t)(mat.rows * mat.cols) * sizeof(double));
}

void parity_close(struct parity *p, const char *what, struct meed_mat got, const double *want,
                  double nmse_max, double bf16_factor)
{
    char title[160];
    snprintf(title, sizeof title, "%s, %s, %s, [%lld, %lld]", what, p->be->name,
             meed_dtype_name(got.dtype), (long long)got.rows, (long long)got.cols);
    const double *values = parity_values(p, got);
    if (got.dtype == MEED_DTYPE_F32) {
        close_check(title, values, want, got.rows * got.cols, nmse_max);
    } else {
        close_check_bf16(title, values, want, got.rows * got.cols, bf16_factor);
    }
    parity_record(p, got);
}

static void padding_check(struct parity *p, const struct parity_block *block)
{
    struct meed_mat view = block->view;
    size_t item = meed_dtype_bytes(view.dtype);
    const unsigned char *host = fetch(p, view.data, view_bytes(view));
    for (int64_t i = 0; i < view.rows; i++) {
        for (size_t j = (size_t)view.cols * item; j < (size_t)view.stride * item; j++) {
            assert_int_equal(host[(size_t)(i * view.stride) * item + j], 0x7F);
        }
    }
}

void parity_release(struct parity *p)
{
    int blocks = p->block_count;
    for (int i = 0; i < blocks; i++) {
        if (p->blocks[i].view.data && p->blocks[i].view.stride > p->blocks[i].view.cols) {
            padding_check(p, &p->blocks[i]);
        }
    }
    for (int i = 0; i < p->block_count; i++) {
        if (p->blocks[i].device) {
            p->be->free(p->be, p->blocks[i].memory);
        } else {
            free(p->blocks[i].memory);
        }
    }
    p->block_count = 0;
}

void parity_case_run(parity_case_fn body, const struct meed_backend *be, struct meed_buf *record)
{
    struct parity *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->be = be;
    p->rng = meed_rng_stream(1, "parity", 0);
    meed_buf_init(&p->record, (size_t)1 << 30);
    body(p);
    parity_release(p);
    *record = p->record;
    free(p);
}
