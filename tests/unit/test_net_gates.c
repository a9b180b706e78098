/* Gates: a stack of adapters, its coalitions, and what a little more of an adapter is worth.
 *
 * Goal: one stack serves every coalition of a batch at once, and its gate gradient is the
 * derivative that the valuation pays by. Method: three random adapters; one-hot gates against the
 * single adapter, fractional gates against merged weights, sequences under different gates against
 * each alone, and gradients against central differences of the summed log-likelihood.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "engine/net_decode.h"
#include "tests/support/small_net.h"

enum { MAX_ROWS = GOLDEN_SEQUENCES * GOLDEN_MAX_LENGTH, ADAPTERS = 3, SETS = 3 };

struct bench {
    struct small_machine machine;
    struct golden golden;
    struct meed_adapter *made[ADAPTERS];
    const struct meed_adapter *adapters[ADAPTERS];
};

/* Ranks 2, 3 and 5 on different projections: tails that are neither uniform nor a multiple of 8. */
static void bench_open(const char *family, struct bench *bench)
{
    static const meed_proj_set sets[ADAPTERS] = {
        MEED_PROJ_ALL, 1u << MEED_PROJ_Q | 1u << MEED_PROJ_V, MEED_PROJ_ALL & ~(1u << MEED_PROJ_O)};
    static const int32_t ranks[ADAPTERS] = {2, 3, 5};
    small_machine_open(2, &bench->machine);
    golden_open(MEED_SOURCE_DIR, family, &bench->golden);
    for (int i = 0; i < ADAPTERS; i++) {
        bench->made[i] = small_adapter(&bench->golden, sets[i], ranks[i], 40 + (uint64_t)i, 0.25f);
        bench->adapters[i] = bench->made[i];
    }
}

static void bench_close(struct bench *bench)
{
    for (int i = 0; i < ADAPTERS; i++) {
        meed_adapter_destroy(bench->made[i]);
    }
    golden_close(&bench->golden);
    small_machine_close(&bench->machine);
}

static void gates_one_hot_is_the_single_adapter(void **state)
{
    (void)state;
    struct bench bench;
    bench_open("llama_gqa", &bench);
    struct meed_batch *batch = bench.golden.batch;
    struct meed_net *stack =
        small_net(&bench.machine, &bench.golden, MEED_DTYPE_F32, false, bench.adapters, ADAPTERS);
    for (int i = 0; i < ADAPTERS; i++) {
        float gates[SETS * ADAPTERS] = {0}, got[MAX_ROWS], want[MAX_ROWS];
        for (int set = 0; set < SETS; set++) {
            gates[set * ADAPTERS + i] = 1.0f;
        }
        golden_ok(meed_net_set_gates(stack, gates, SETS));
        golden_ok(meed_net_score(stack, batch, got));
        struct meed_net *single =
            small_net(&bench.machine, &bench.golden, MEED_DTYPE_F32, false, &bench.adapters[i], 1);
        golden_ok(meed_net_score(single, batch, want));
        meed_net_destroy(single);
        assert_true(golden_worst(got, want, batch->loss_rows) < 1e-5);
    }
    meed_net_destroy(stack);
    bench_close(&bench);
}

static const float mixed[SETS * ADAPTERS] = {0.5f, 0.0f,  0.5f, 0.25f, 0.75f,
                                             0.0f, -0.5f, 1.0f, 0.5f};

/* Three sequences under three gate vectors in one batch: bit-equal to each alone, and equal to the
 * merged model of its coalition. */
static void gates_coalitions_share_a_batch(void **state)
{
    (void)state;
    struct bench bench;
    bench_open("qwen3", &bench);
    float together[MAX_ROWS], alone[MAX_ROWS], merged[MAX_ROWS];
    struct meed_batch *batch = NULL;
    golden_ok(meed_batch_create(MAX_ROWS, 1, &batch));
    struct meed_net *stack =
        small_net(&bench.machine, &bench.golden, MEED_DTYPE_F32, false, bench.adapters, ADAPTERS);
    struct meed_net *plain =
        small_net(&bench.machine, &bench.golden, MEED_DTYPE_F32, false, NULL, 0);
    golden_ok(meed_net_set_gates(stack, mixed, SETS));
    golden_ok(meed_net_score(stack, bench.golden.batch, together));
    const float *at = together;
    for (int s = 0; s < GOLDEN_SEQUENCES; s++) {
        meed_batch_reset(batch);
        assert_true(meed_batch_add(batch, &bench.golden.sequences[s], s));
        golden_ok(meed_net_score(stack, batch, alone));
        assert_memory_equal(at, alone, (size_t)batch->loss_rows * sizeof *alone);
        golden_ok(meed_net_merge(plain, stack, mixed + s * ADAPTERS));
        golden_ok(meed_net_score(plain, batch, merged));
        assert_true(golden_worst(merged, alone, batch->loss_rows) < 1e-5);
        at += batch->loss_rows;
    }
    meed_net_destroy(plain);
    meed_net_destroy(stack);
    meed_batch_destroy(batch);
    bench_close(&bench);
}

static double value(struct meed_net *net, const struct meed_batch *batch, const float *gates,
                    const float *weight)
{
    float logprob[MAX_ROWS];
    double sum = 0;
    golden_ok(meed_net_set_gates(net, gates, SETS));
    golden_ok(meed_net_score(net, batch, logprob));
    for (int32_t m = 0; m < batch->loss_rows; m++) {
        sum += (double)weight[m] * (double)logprob[m];
    }
    return sum;
}

static void gates_gradient_is_the_difference_quotient(void **state)
{
    (void)state;
    static const char *const families[] = {"llama_gqa", "qwen2", "qwen3"};
    const float step = 1.0f / 64; /* h² error ~1e-4 of the value, rounding error ~1e-5 */
    for (size_t f = 0; f < MEED_COUNT(families); f++) {
        struct bench bench;
        bench_open(families[f], &bench);
        const struct meed_batch *batch = bench.golden.batch;
        float weight[MAX_ROWS], logprob[MAX_ROWS];
        double got[SETS * ADAPTERS] = {0}, worst = 0, largest = 0;
        struct meed_net *net = small_net(&bench.machine, &bench.golden, MEED_DTYPE_F32, true,
                                         bench.adapters, ADAPTERS);
        for (int32_t m = 0; m < batch->loss_rows; m++) {
            weight[m] = 0.5f + (float)(m % 3);
        }
        golden_ok(meed_net_set_gates(net, mixed, SETS));
        golden_ok(meed_net_backward(net, batch, weight, 0, logprob, NULL, got));
        for (int i = 0; i < SETS * ADAPTERS; i++) {
            float gates[SETS * ADAPTERS];
            memcpy(gates, mixed, sizeof gates);
            gates[i] = mixed[i] + step;
            double above = value(net, batch, gates, weight);
            gates[i] = mixed[i] - step;
            double below = value(net, batch, gates, weight);
            double want = (above - below) / (2 * (double)step);
            worst = fmax(worst, fabs(got[i] - want));
            largest = fmax(largest, fabs(want));
        }
        printf("  %-10s gate gradients up to %.2f, worst deviation %.1e\n", families[f], largest,
               worst);
        assert_true(worst <= 2e-3 * largest);
        meed_net_destroy(net);
        bench_close(&bench);
    }
}

/* Calls add up, and an adapter that reaches no score has gradient zero exactly. */
static void gates_gradient_accumulates(void **state)
{
    (void)state;
    struct bench bench;
    bench_open("llama_tied", &bench);
    float weight[MAX_ROWS], logprob[MAX_ROWS];
    double once[SETS * ADAPTERS] = {0}, twice[SETS * ADAPTERS] = {0};
    for (int32_t i = 0; i < bench.made[1]->module_count; i++) {
        struct meed_adapter_module *module = &bench.made[1]->modules[i];
        memset(module->b, 0, (size_t)(module->n * module->r) * sizeof(float));
    }
    struct meed_net *net =
        small_net(&bench.machine, &bench.golden, MEED_DTYPE_F32, true, bench.adapters, ADAPTERS);
    for (int m = 0; m < MAX_ROWS; m++) {
        weight[m] = 1.0f;
    }
    golden_ok(meed_net_set_gates(net, mixed, SETS));
    golden_ok(meed_net_backward(net, bench.golden.batch, weight, 0, logprob, NULL, once));
    for (int i = 0; i < 2; i++) {
        golden_ok(meed_net_backward(net, bench.golden.batch, weight, 0, logprob, NULL, twice));
    }
    for (int i = 0; i < SETS * ADAPTERS; i++) {
        assert_true(fabs(twice[i] - 2 * once[i]) <= 1e-12 * fabs(twice[i]));
        assert_true(i % ADAPTERS != 1 || fpclassify(once[i]) == FP_ZERO);
    }
    meed_net_destroy(net);
    bench_close(&bench);
}

/* Decoding follows the first gate set: the logits of the first sequence, token by token. */
static void gates_decode_with_the_first_set(void **state)
{
    (void)state;
    enum { CAPACITY = 32 };
    struct bench bench;
    bench_open("llama_gqa", &bench);
    struct meed_batch *batch = bench.golden.batch;
    int64_t vocab = bench.golden.checkpoint->config.vocab;
    float *want = meed_heap_alloc((size_t)(batch->rows * vocab), sizeof *want);
    float *got = meed_heap_alloc((size_t)vocab, sizeof *got);
    struct meed_kv_cache *cache = NULL;
    struct meed_net *net =
        small_net(&bench.machine, &bench.golden, MEED_DTYPE_F32, false, bench.adapters, ADAPTERS);
    golden_ok(meed_net_set_gates(net, mixed, SETS));
    golden_ok(meed_net_logits(net, batch, want));
    golden_ok(meed_kv_cache_create(net, 1, CAPACITY, 0, &cache));
    const int32_t zero = 0;
    for (int32_t t = 0; t < batch->starts[1]; t++) {
        const struct meed_decode_rows row = {
            1, &bench.golden.ids[0][t], &zero, &t, 1, &zero, NULL, NULL};
        golden_ok(meed_net_decode(net, cache, &row, got));
        assert_true(golden_worst(got, want + t * vocab, vocab) < 1e-5);
    }
    meed_kv_cache_destroy(cache);
    meed_net_destroy(net);
    meed_heap_free(want);
    meed_heap_free(got);
    bench_close(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gates_one_hot_is_the_single_adapter),
        cmocka_unit_test(gates_coalitions_share_a_batch),
        cmocka_unit_test(gates_gradient_is_the_difference_quotient),
        cmocka_unit_test(gates_gradient_accumulates),
        cmocka_unit_test(gates_decode_with_the_first_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
