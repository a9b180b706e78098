/* Error feedback: what is sent plus what is kept is what was trained, round after round; a residual
 * survives a change of gauge as a change of the product; nothing trained is nothing sent. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "client/compress.h"

enum { RANK = 4, ROUNDS = 6 };

static struct meed_adapter *toy_adapter(uint64_t seed)
{
    struct meed_model_config model = {.hidden = 24,
                                      .ffn = 40,
                                      .layers = 2,
                                      .heads = 4,
                                      .kv_heads = 2,
                                      .head_dim = 6,
                                      .vocab = 50};
    struct meed_lora_config lora = {.rank = RANK, .alpha = 8.0f, .targets = MEED_PROJ_ALL};
    struct meed_adapter *adapter = NULL;
    assert_int_equal(meed_adapter_create(&model, &lora, &adapter), MEED_OK);
    meed_adapter_init(adapter, seed);
    struct meed_rng rng = meed_rng_stream(seed, "toy b", 0);
    for (int32_t i = 0; i < adapter->module_count; i++) {
        for (int64_t j = 0; j < adapter->modules[i].n * RANK; j++) {
            adapter->modules[i].b[j] = (float)(0.1 * meed_rng_normal(&rng));
        }
    }
    return adapter;
}

static float *random_flat(int64_t count, uint64_t seed, double size)
{
    float *values = calloc((size_t)count, sizeof *values);
    assert_non_null(values);
    struct meed_rng rng = meed_rng_stream(seed, "toy delta", 0);
    for (int64_t i = 0; i < count; i++) {
        values[i] = (float)(size * meed_rng_normal(&rng));
    }
    return values;
}

static const struct meed_update_header header = {
    .run_id = "run", .client_id = "client", .round = 3, .seed = 5};

static void decode(const struct meed_adapter *shape, const struct meed_msg_codec *codec,
                   const struct meed_buf *packed, float *flat)
{
    struct meed_buf bytes;
    size_t count = 2 * (size_t)shape->module_count;
    struct meed_update_tensor *tensors = calloc(count, sizeof *tensors);
    char(*names)[MEED_ADAPTER_NAME_BYTES] = calloc(count, sizeof *names);
    assert_true(tensors && names);
    for (size_t i = 0; i < count; i++) {
        const struct meed_adapter_module *module = &shape->modules[i / 2];
        bool is_a = i % 2 == 0;
        meed_adapter_tensor_name(module, is_a ? 'A' : 'B', names[i]);
        tensors[i] = (struct meed_update_tensor){
            .name = names[i],
            .rows = (int32_t)(is_a ? module->r : module->n),
            .cols = (int32_t)(is_a ? module->k : module->r),
            .factor = is_a ? MEED_UPDATE_FACTOR_A : MEED_UPDATE_FACTOR_B,
            .values = flat,
        };
        flat += (int64_t)tensors[i].rows * tensors[i].cols;
    }
    meed_buf_init(&bytes, 1 << 24);
    assert_int_equal(meed_update_zstd_unpack(packed->data, packed->size, 1 << 24, &bytes), MEED_OK);
    assert_int_equal(meed_update_decode(bytes.data, bytes.size, &header, codec, tensors, count),
                     MEED_OK);
    meed_buf_clear(&bytes);
    free(names);
    free(tensors);
}

/* Goal: over six rounds Σ decoded = Σ trained − last residual, to fp32 rounding, for every codec.
 */
static void compress_feeds_errors_back(void **state)
{
    (void)state;
    static const struct meed_msg_codec codecs[] = {
        {MEED_VALUE_F32, 1.0, 1.0, 64, 0},   {MEED_VALUE_BF16, 1.0, 1.0, 64, 3},
        {MEED_VALUE_INT8, 1.0, 1.0, 64, 3},  {MEED_VALUE_INT8, 0.1, 0.2, 64, 0},
        {MEED_VALUE_INT4, 0.05, 0.1, 32, 3},
    };
    struct meed_adapter *global = toy_adapter(1), *trained = NULL;
    int64_t count = meed_adapter_value_count(global);
    assert_int_equal(meed_adapter_clone(global, &trained), MEED_OK);
    for (size_t c = 0; c < MEED_COUNT(codecs); c++) {
        float *residual = calloc((size_t)count, sizeof *residual);
        float *decoded = calloc((size_t)count, sizeof *decoded);
        double *sum = calloc((size_t)count, sizeof *sum);
        assert_true(residual && decoded && sum);
        for (uint64_t round = 0; round < ROUNDS; round++) {
            struct meed_compress_job job = {.header = &header,
                                            .codec = &codecs[c],
                                            .global = global,
                                            .trained = trained,
                                            .trained_factors = MEED_FACTOR_A | MEED_FACTOR_B};
            struct meed_buf bytes;
            float *delta = random_flat(count, 100 * c + round, 0.01);
            meed_buf_init(&bytes, 1 << 24);
            meed_adapter_from_flat(trained, global->modules[0].a);
            meed_adapter_add_flat(trained, delta);
            assert_int_equal(meed_compress_update(&job, residual, &bytes, NULL), MEED_OK);
            decode(global, &codecs[c], &bytes, decoded);
            for (int64_t i = 0; i < count; i++) {
                sum[i] += (double)(trained->modules[0].a[i] - global->modules[0].a[i]) -
                          (double)decoded[i];
            }
            meed_buf_clear(&bytes);
            free(delta);
        }
        double kept = 0.0;
        for (int64_t i = 0; i < count; i++) {
            assert_true(fabs(sum[i] - (double)residual[i]) < 1e-7);
            kept += fabs(sum[i]);
        }
        assert_int_equal(kept > 0.0, codecs[c].values != MEED_VALUE_F32);
        free(sum);
        free(decoded);
        free(residual);
    }
    meed_adapter_destroy(trained);
    meed_adapter_destroy(global);
}

/* Goal: an unchanged adapter is a message of header and trailer; decoded it is zero everywhere. */
static void compress_sends_nothing_for_nothing(void **state)
{
    (void)state;
    static const struct meed_msg_codec codec = {MEED_VALUE_INT8, 1.0, 1.0, 64, 0};
    struct meed_adapter *global = toy_adapter(1), *copy = NULL;
    int64_t count = meed_adapter_value_count(global);
    float *residual = calloc((size_t)count, sizeof *residual);
    float *decoded = random_flat(count, 1, 1.0);
    struct meed_buf bytes;
    struct meed_update_stats stats;
    assert_non_null(residual);
    meed_buf_init(&bytes, 1 << 24);
    assert_int_equal(meed_adapter_clone(global, &copy), MEED_OK);
    struct meed_compress_job job = {.header = &header,
                                    .codec = &codec,
                                    .global = global,
                                    .trained = copy,
                                    .trained_factors = MEED_FACTOR_A | MEED_FACTOR_B};
    assert_int_equal(meed_compress_update(&job, residual, &bytes, &stats), MEED_OK);
    assert_int_equal(bytes.size, MEED_UPDATE_HEADER_BYTES + MEED_SHA256_BYTES);
    decode(global, &codec, &bytes, decoded);
    meed_adapter_add_flat(copy, decoded);
    assert_true(meed_adapter_equal(global, copy));
    meed_buf_clear(&bytes);
    free(decoded);
    free(residual);
    meed_adapter_destroy(copy);
    meed_adapter_destroy(global);
}

/* Goal: a factor that is not trained sends nothing and keeps its residual. */
static void compress_respects_trained_factors(void **state)
{
    (void)state;
    static const struct meed_msg_codec codec = {MEED_VALUE_INT8, 1.0, 1.0, 64, 0};
    struct meed_adapter *global = toy_adapter(1), *trained = toy_adapter(2);
    int64_t count = meed_adapter_value_count(global), begin = 0;
    float *residual = random_flat(count, 3, 0.01), *before = random_flat(count, 3, 0.01);
    float *decoded = random_flat(count, 1, 1.0);
    struct meed_buf bytes;
    meed_buf_init(&bytes, 1 << 24);
    struct meed_compress_job job = {.header = &header,
                                    .codec = &codec,
                                    .global = global,
                                    .trained = trained,
                                    .trained_factors = MEED_FACTOR_B};
    assert_int_equal(meed_compress_update(&job, residual, &bytes, NULL), MEED_OK);
    decode(global, &codec, &bytes, decoded);
    for (int32_t i = 0; i < global->module_count; i++) {
        int64_t a = global->modules[i].r * global->modules[i].k;
        int64_t b = global->modules[i].n * global->modules[i].r;
        assert_memory_equal(residual + begin, before + begin, (size_t)a * sizeof(float));
        assert_memory_not_equal(residual + begin + a, before + begin + a,
                                (size_t)b * sizeof(float));
        for (int64_t j = begin; j < begin + a; j++) {
            assert_true(decoded[j] == 0.0f);
        }
        begin += a + b;
    }
    meed_buf_clear(&bytes);
    free(decoded);
    free(before);
    free(residual);
    meed_adapter_destroy(trained);
    meed_adapter_destroy(global);
}

/* E[i, j] of B·eA + eB·A for one module. */
static double product_change(const struct meed_adapter_module *module, const float *residual,
                             int64_t n, int64_t k)
{
    const float *ea = residual, *eb = residual + module->r * module->k;
    double sum = 0.0;
    for (int64_t p = 0; p < module->r; p++) {
        sum += (double)module->b[n * module->r + p] * (double)ea[p * module->k + k] +
               (double)eb[n * module->r + p] * (double)module->a[p * module->k + k];
    }
    return sum;
}

/* The same W written as (B·Q⁻¹, Q·A) with a lower triangular Q: B' = B·Q⁻¹ solves B'·Q = B. */
static void change_gauge(struct meed_adapter *adapter)
{
    static const double q[RANK][RANK] = {
        {2.0, 0, 0, 0}, {0.5, 1.0, 0, 0}, {-0.3, 0.2, 0.7, 0}, {0.1, -0.4, 0.6, 1.5}};
    for (int32_t i = 0; i < adapter->module_count; i++) {
        struct meed_adapter_module *module = &adapter->modules[i];
        for (int64_t k = 0; k < module->k; k++) {
            double column[RANK];
            for (int p = 0; p < RANK; p++) {
                column[p] = 0.0;
                for (int s = 0; s < RANK; s++) {
                    column[p] += q[p][s] * (double)module->a[s * module->k + k];
                }
            }
            for (int p = 0; p < RANK; p++) {
                module->a[p * module->k + k] = (float)column[p];
            }
        }
        for (int64_t n = 0; n < module->n; n++) {
            for (int p = RANK - 1; p >= 0; p--) {
                double value = (double)module->b[n * RANK + p];
                for (int s = p + 1; s < RANK; s++) {
                    value -= (double)module->b[n * RANK + s] * q[s][p];
                }
                module->b[n * RANK + p] = (float)(value / q[p][p]);
            }
        }
    }
}

/* Goal: after the global adapter was rewritten as another pair with the same product, the carried
 * residual still means the same change of the product. */
static void compress_carries_through_a_gauge(void **state)
{
    (void)state;
    struct meed_adapter *old = toy_adapter(1), *fresh = NULL;
    int64_t count = meed_adapter_value_count(old);
    float *before = random_flat(count, 9, 0.01), *after = random_flat(count, 9, 0.01);
    assert_int_equal(meed_adapter_clone(old, &fresh), MEED_OK);
    change_gauge(fresh);
    assert_int_equal(meed_compress_carry(old, fresh, after), MEED_OK);
    const float *x = before, *y = after;
    double error = 0.0, size = 0.0;
    for (int32_t i = 0; i < old->module_count; i++) {
        const struct meed_adapter_module *p = &old->modules[i], *q = &fresh->modules[i];
        for (int64_t n = 0; n < p->n; n++) {
            for (int64_t k = 0; k < p->k; k++) {
                double want = product_change(p, x, n, k), got = product_change(q, y, n, k);
                error += (got - want) * (got - want);
                size += want * want;
            }
        }
        x += p->r * (p->k + p->n);
        y += p->r * (p->k + p->n);
    }
    print_message("carried with a relative error of %.1e\n", sqrt(error / size));
    assert_true(error < 1e-3 * 1e-3 * size);
    free(after);
    free(before);
    meed_adapter_destroy(fresh);
    meed_adapter_destroy(old);
}

/* Goal: carrying enlarges a residual fourfold at most, whatever the new adapter, B = 0 included;
 * other shapes drop it. */
static void compress_carry_is_bounded(void **state)
{
    (void)state;
    struct meed_adapter *old = toy_adapter(1), *fresh = toy_adapter(2), *other = NULL;
    int64_t count = meed_adapter_value_count(old), ranks[14];
    for (int kind = 0; kind < 2; kind++) {
        float *before = random_flat(count, 9, 0.01), *after = random_flat(count, 9, 0.01);
        double x = 0.0, y = 0.0;
        if (kind == 1) {
            meed_adapter_init(fresh, 4); /* B = 0 */
        }
        assert_int_equal(meed_compress_carry(old, fresh, after), MEED_OK);
        for (int32_t i = 0; i < old->module_count; i++) {
            ranks[i] = 3;
        }
        for (int64_t i = 0; i < count; i++) {
            assert_true(isfinite(after[i]));
            x += (double)before[i] * (double)before[i];
            y += (double)after[i] * (double)after[i];
        }
        assert_true(y <= 16.0001 * x);
        free(before);
        free(after);
    }
    assert_int_equal(meed_adapter_create_like(old, ranks, &other), MEED_OK);
    float *residual = random_flat(meed_adapter_value_count(other), 9, 1.0);
    assert_int_equal(meed_compress_carry(old, other, residual), MEED_OK);
    for (int64_t i = 0; i < meed_adapter_value_count(other); i++) {
        assert_true(residual[i] == 0.0f);
    }
    free(residual);
    meed_adapter_destroy(other);
    meed_adapter_destroy(fresh);
    meed_adapter_destroy(old);
}

/* Goal: the residual's file comes back bit for bit, and not at all if a bit or the size differs. */
static void compress_file_is_checked(void **state)
{
    (void)state;
    char path[] = "/tmp/meed-compress-XXXXXX";
    float values[5] = {1.0f, -0.0f, 3e-39f, -7.5f, 0.1f}, back[6] = {0};
    struct meed_buf bytes;
    assert_int_equal(close(mkstemp(path)), 0);
    assert_int_equal(meed_compress_save(values, 5, path), MEED_OK);
    assert_int_equal(meed_compress_load(path, 5, back), MEED_OK);
    assert_memory_equal(values, back, sizeof values);
    assert_int_equal(meed_compress_load(path, 6, back), MEED_INTEGRITY);
    meed_buf_init(&bytes, 1 << 20);
    assert_int_equal(meed_file_read(path, &bytes), MEED_OK);
    bytes.data[6] ^= 1;
    assert_int_equal(meed_file_write_atomic(path, bytes.data, bytes.size), MEED_OK);
    assert_int_equal(meed_compress_load(path, 5, back), MEED_INTEGRITY);
    unlink(path);
    assert_int_equal(meed_compress_load(path, 5, back), MEED_NOT_FOUND);
    meed_buf_clear(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compress_feeds_errors_back),
        cmocka_unit_test(compress_sends_nothing_for_nothing),
        cmocka_unit_test(compress_respects_trained_factors),
        cmocka_unit_test(compress_carries_through_a_gauge),
        cmocka_unit_test(compress_carry_is_bounded),
        cmocka_unit_test(compress_file_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
