/* Inner products of adapters against the definition: ΔW formed, multiplied, summed in long double.
 *
 * Goal: equal to 1e-13 of the norms at ranks below, at and above a tile and at long dimensions off
 * the block size; the same bits for any number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include "base/rng.h"
#include "server/adapter_product.h"

static const struct meed_model_config model = {.hidden = 44,
                                               .ffn = 140,
                                               .layers = 2,
                                               .heads = 2,
                                               .kv_heads = 1,
                                               .head_dim = 22,
                                               .vocab = 32,
                                               .max_positions = 64};

static struct meed_adapter *adapter_of(int32_t rank, uint64_t seed)
{
    struct meed_adapter *adapter = NULL;
    struct meed_lora_config lora = {
        .rank = rank, .alpha = 2, .targets = 1u << MEED_PROJ_Q | 1u << MEED_PROJ_DOWN};
    assert_int_equal(meed_adapter_create(&model, &lora, &adapter), MEED_OK);
    struct meed_rng rng = meed_rng_stream(seed, "adapter product", 0);
    for (int32_t m = 0; m < adapter->module_count; m++) {
        struct meed_adapter_module *module = &adapter->modules[m];
        for (int64_t i = 0; i < module->r * module->k; i++) {
            module->a[i] = (float)meed_rng_normal(&rng);
        }
        for (int64_t i = 0; i < module->n * module->r; i++) {
            module->b[i] = (float)meed_rng_normal(&rng);
        }
    }
    return adapter;
}

static long double element(const struct meed_adapter_module *module, int64_t n, int64_t k)
{
    long double sum = 0;
    for (int64_t j = 0; j < module->r; j++) {
        sum += (long double)module->b[n * module->r + j] * module->a[j * module->k + k];
    }
    return sum * module->scale;
}

static double defined_product(const struct meed_adapter *x, const struct meed_adapter *y)
{
    long double sum = 0;
    for (int32_t m = 0; m < x->module_count; m++) {
        for (int64_t n = 0; n < x->modules[m].n; n++) {
            for (int64_t k = 0; k < x->modules[m].k; k++) {
                sum += element(&x->modules[m], n, k) * element(&y->modules[m], n, k);
            }
        }
    }
    return (double)sum;
}

static void equals_the_definition(void **state)
{
    (void)state;
    static const int32_t ranks[] = {1, 3, 8, 13, 16};
    struct meed_adapter *adapters[MEED_COUNT(ranks)];
    struct meed_adapter_pair pairs[MEED_COUNT(ranks) * MEED_COUNT(ranks)];
    struct meed_adapter_pair again[MEED_COUNT(pairs)];
    int32_t count = 0;
    for (size_t i = 0; i < MEED_COUNT(ranks); i++) {
        adapters[i] = adapter_of(ranks[i], i);
    }
    for (size_t i = 0; i < MEED_COUNT(ranks); i++) {
        for (size_t j = 0; j < MEED_COUNT(ranks); j++, count++) {
            pairs[count] = (struct meed_adapter_pair){adapters[i], adapters[j], NAN, NULL};
            again[count] = pairs[count];
        }
    }
    struct meed_pool *pool = NULL;
    assert_int_equal(meed_pool_create(3, &pool), MEED_OK);
    meed_adapter_products(pairs, count, NULL);
    meed_adapter_products(again, count, pool);
    for (int32_t p = 0; p < count; p++) {
        double want = defined_product(pairs[p].x, pairs[p].y);
        double size =
            sqrt(defined_product(pairs[p].x, pairs[p].x) * defined_product(pairs[p].y, pairs[p].y));
        assert_true(fabs(pairs[p].product - want) <= 1e-13 * size);
        assert_memory_equal(&pairs[p].product, &again[p].product, sizeof(double));
    }
    meed_pool_destroy(pool);
    for (size_t i = 0; i < MEED_COUNT(ranks); i++) {
        meed_adapter_destroy(adapters[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_the_definition)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
