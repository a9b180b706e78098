/* Properties of a network that no golden file shows: invariance, gradients of parts, refusals.
 *
 * Goal: a sequence's log-likelihoods are the same bits alone or in any batch, on one thread or two;
 * adapters on a part of the projections learn what they would learn among all; dropout is a
 * function of its key; wrong input ends in a status with a sentence. Method: golden models with
 * random adapters, compared with memcmp or against a second way to the same numbers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include "base/buf.h"
#include "tests/support/small_net.h"

enum { MAX_ROWS = GOLDEN_SEQUENCES * GOLDEN_MAX_LENGTH };

static const char *const some_families[] = {"llama_gqa", "qwen2", "qwen3"};

/* Every order and grouping of the three sequences gives the bits that each has alone. */
static void check_invariance(const struct golden *golden, struct meed_net *net)
{
    static const int orders[][GOLDEN_SEQUENCES] = {{0, 1, 2}, {2, 0, 1}, {1, 2, -1}, {2, 1, 0}};
    float alone[GOLDEN_SEQUENCES][MAX_ROWS], together[MAX_ROWS];
    int32_t counts[GOLDEN_SEQUENCES];
    struct meed_batch *batch = NULL;
    golden_ok(meed_batch_create(MAX_ROWS, GOLDEN_SEQUENCES, &batch));
    for (int s = 0; s < GOLDEN_SEQUENCES; s++) {
        meed_batch_reset(batch);
        assert_true(meed_batch_add(batch, &golden->sequences[s], 0));
        golden_ok(meed_net_score(net, batch, alone[s]));
        counts[s] = batch->loss_rows;
    }
    for (size_t o = 0; o < MEED_COUNT(orders); o++) {
        meed_batch_reset(batch);
        for (int i = 0; i < GOLDEN_SEQUENCES && orders[o][i] >= 0; i++) {
            assert_true(meed_batch_add(batch, &golden->sequences[orders[o][i]], 0));
        }
        golden_ok(meed_net_score(net, batch, together));
        const float *at = together;
        for (int i = 0; i < GOLDEN_SEQUENCES && orders[o][i] >= 0; i++) {
            int s = orders[o][i];
            assert_memory_equal(at, alone[s], (size_t)counts[s] * sizeof *at);
            at += counts[s];
        }
    }
    meed_batch_destroy(batch);
}

static void net_score_ignores_the_batch_around(void **state)
{
    (void)state;
    struct small_machine machine;
    small_machine_open(2, &machine);
    for (size_t i = 0; i < MEED_COUNT(some_families); i++) {
        struct golden golden;
        golden_open(MEED_SOURCE_DIR, some_families[i], &golden);
        for (int dtype = MEED_DTYPE_F32; dtype <= MEED_DTYPE_BF16; dtype++) {
            const struct meed_adapter *adapters[] = {golden.adapter};
            struct meed_net *net =
                small_net(&machine, &golden, (enum meed_dtype)dtype, false, adapters, 1);
            check_invariance(&golden, net);
            meed_net_destroy(net);
        }
        golden_close(&golden);
    }
    small_machine_close(&machine);
}

/* The own micro-kernels of the lesser instruction sets promise the same. */
static void net_score_ignores_the_batch_on_any_processor(void **state)
{
    static const char *const isas[] = {"avx2", "generic"};
    for (size_t i = 0; i < MEED_COUNT(isas); i++) {
        struct meed_backend *probe = NULL;
        if (meed_backend_open_cpu(NULL, isas[i], &probe) != MEED_OK) {
            printf("  cpu-%s SKIPPED: this processor lacks it\n", isas[i]);
            continue;
        }
        meed_backend_close(probe);
        small_machine_isa = isas[i];
        net_score_ignores_the_batch_around(state);
    }
    small_machine_isa = NULL;
}

/* Scores and gradients with 1 and 2 threads, bit for bit; and a training net scores like another.
 */
static void net_bits_ignore_the_threads(void **state)
{
    (void)state;
    struct golden golden;
    golden_open(MEED_SOURCE_DIR, "qwen3", &golden);
    const struct meed_adapter *adapters[] = {golden.adapter};
    for (int dtype = MEED_DTYPE_F32; dtype <= MEED_DTYPE_BF16; dtype++) {
        float scores[3][MAX_ROWS];
        float *gradients[2];
        size_t count = 0;
        for (int threads = 1; threads <= 2; threads++) {
            struct small_machine machine;
            small_machine_open(threads, &machine);
            struct meed_net *net =
                small_net(&machine, &golden, (enum meed_dtype)dtype, true, adapters, 1);
            golden_ok(meed_net_score(net, golden.batch, scores[threads]));
            gradients[threads - 1] = small_gradient(&machine, net, golden.batch, 1);
            count = (size_t)meed_net_master_count(net);
            meed_net_destroy(net);
            net = small_net(&machine, &golden, (enum meed_dtype)dtype, false, adapters, 1);
            golden_ok(meed_net_score(net, golden.batch, scores[0]));
            meed_net_destroy(net);
            assert_memory_equal(scores[0], scores[threads],
                                (size_t)golden.batch->loss_rows * sizeof(float));
            small_machine_close(&machine);
        }
        assert_memory_equal(scores[1], scores[2], (size_t)golden.batch->loss_rows * sizeof(float));
        assert_memory_equal(gradients[0], gradients[1], count * sizeof(float));
        meed_heap_free(gradients[0]);
        meed_heap_free(gradients[1]);
    }
    golden_close(&golden);
}

/* The gradient of `part`'s modules, once alone and once beside modules whose factors are zero. */
static void check_part(const struct small_machine *machine, const struct golden *golden,
                       meed_proj_set part)
{
    struct meed_adapter *alone = small_adapter(golden, part, 3, 7, 0.3f);
    struct meed_adapter *among = small_adapter(golden, MEED_PROJ_ALL, 3, 7, 0.3f);
    for (int32_t i = 0; i < among->module_count; i++) {
        struct meed_adapter_module *module = &among->modules[i];
        if (!(part >> module->proj & 1u)) {
            memset(module->a, 0, (size_t)(module->r * module->k) * sizeof(float));
            memset(module->b, 0, (size_t)(module->r * module->n) * sizeof(float));
        }
    }
    const struct meed_adapter *first[] = {alone}, *second[] = {among};
    struct meed_net *net = small_net(machine, golden, MEED_DTYPE_F32, true, first, 1);
    float *got = small_gradient(machine, net, golden->batch, 1);
    meed_net_destroy(net);
    net = small_net(machine, golden, MEED_DTYPE_F32, true, second, 1);
    float *all = small_gradient(machine, net, golden->batch, 1);
    meed_net_destroy(net);
    const float *want = all, *at = got;
    for (int32_t i = 0; i < among->module_count; i++) {
        const struct meed_adapter_module *module = &among->modules[i];
        int64_t count = module->r * (module->k + module->n);
        if (part >> module->proj & 1u) {
            assert_true(golden_worst(at, want, count) < 1e-5);
            at += count;
        }
        want += count;
    }
    meed_heap_free(got);
    meed_heap_free(all);
    meed_adapter_destroy(alone);
    meed_adapter_destroy(among);
}

static void net_partial_adapters_learn_the_same(void **state)
{
    (void)state;
    static const char *const parts[] = {"q_proj,v_proj", "k_proj", "o_proj", "mlp", "down_proj"};
    struct small_machine machine;
    struct golden golden;
    small_machine_open(2, &machine);
    golden_open(MEED_SOURCE_DIR, "llama_gqa", &golden);
    for (size_t i = 0; i < MEED_COUNT(parts); i++) {
        meed_proj_set part = 0;
        golden_ok(meed_proj_set_parse(parts[i], &part));
        check_part(&machine, &golden, part);
    }
    golden_close(&golden);
    small_machine_close(&machine);
}

/* Gradients add up over calls, and masters loaded from the flat vector are the adapter again. */
static void net_masters_are_the_adapter(void **state)
{
    (void)state;
    struct small_machine machine;
    struct golden golden;
    small_machine_open(2, &machine);
    golden_open(MEED_SOURCE_DIR, "llama_tied", &golden);
    struct meed_adapter *other = small_adapter(&golden, MEED_PROJ_ALL, 4, 3, 0.2f);
    for (int32_t i = 0; i < other->module_count; i++) {
        other->modules[i].scale = golden.adapter->modules[i].scale;
    }
    const struct meed_adapter *adapters[] = {other};
    struct meed_net *net = small_net(&machine, &golden, MEED_DTYPE_F32, true, adapters, 1);
    size_t count = (size_t)meed_net_master_count(net);
    assert_int_equal(count, meed_adapter_value_count(golden.adapter));
    float *flat = meed_heap_alloc(count, sizeof *flat);
    meed_adapter_to_flat(golden.adapter, flat);
    meed_net_load_masters(net, flat); /* the backend's memory is the host's here */
    float got[MAX_ROWS], again[MAX_ROWS];
    golden_ok(meed_net_score(net, golden.batch, got));
    float *want = golden_tensor(&golden, "peft.logprob", NULL);
    assert_true(golden_worst(got, want, golden.batch->loss_rows) < 1e-5);
    golden_ok(meed_net_set_adapter(net, 0, other));
    golden_ok(meed_net_set_adapter(net, 0, golden.adapter));
    golden_ok(meed_net_score(net, golden.batch, again));
    assert_memory_equal(got, again, (size_t)golden.batch->loss_rows * sizeof *got);
    golden_free(want);
    meed_heap_free(flat);
    meed_net_destroy(net);
    meed_adapter_destroy(other);
    golden_close(&golden);
    small_machine_close(&machine);
}

static void net_dropout_is_a_function_of_its_key(void **state)
{
    (void)state;
    struct small_machine machine;
    struct golden golden;
    small_machine_open(2, &machine);
    golden_open(MEED_SOURCE_DIR, "llama_gqa", &golden);
    const struct meed_adapter *adapters[] = {golden.adapter};
    struct meed_net_options options = {.max_rows = golden.batch->rows,
                                       .max_sequences = GOLDEN_SEQUENCES,
                                       .backward = true,
                                       .dropout = 0.5f,
                                       .adapters = adapters,
                                       .adapter_count = 1};
    struct meed_net *net = NULL;
    golden_ok(meed_net_create(machine.be, golden.checkpoint, &options, &net));
    size_t bytes = (size_t)meed_net_master_count(net) * sizeof(float);
    float *first = small_gradient(&machine, net, golden.batch, 11);
    float *again = small_gradient(&machine, net, golden.batch, 11);
    float *other = small_gradient(&machine, net, golden.batch, 12);
    assert_memory_equal(first, again, bytes);
    assert_memory_not_equal(first, other, bytes);
    float plain[MAX_ROWS];
    golden_ok(meed_net_score(net, golden.batch, plain)); /* scoring never drops */
    float *want = golden_tensor(&golden, "peft.logprob", NULL);
    assert_true(golden_worst(plain, want, golden.batch->loss_rows) < 1e-5);
    golden_free(want);
    meed_heap_free(first);
    meed_heap_free(again);
    meed_heap_free(other);
    meed_net_destroy(net);
    golden_close(&golden);
    small_machine_close(&machine);
}

static void expect(enum meed_status got, enum meed_status want, const char *word)
{
    assert_int_equal(got, want);
    if (!strstr(meed_last_error(), word)) {
        fail_msg("'%s' does not mention '%s'", meed_last_error(), word);
    }
}

static void net_refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct small_machine machine;
    struct golden golden, wider;
    float logprob[MAX_ROWS], weight[MAX_ROWS] = {0};
    double dgates[1] = {0};
    small_machine_open(1, &machine);
    golden_open(MEED_SOURCE_DIR, "llama_gqa", &golden);
    golden_open(MEED_SOURCE_DIR, "qwen3", &wider);
    const struct meed_adapter *own[] = {golden.adapter}, *alien[] = {wider.adapter};
    struct meed_net_options options = {.max_rows = golden.batch->rows - 1,
                                       .max_sequences = 3,
                                       .adapters = own,
                                       .adapter_count = 1};
    struct meed_net *net = NULL;
    golden_ok(meed_net_create(machine.be, golden.checkpoint, &options, &net));
    expect(meed_net_score(net, golden.batch, logprob), MEED_LIMIT, "rows");
    expect(meed_net_backward(net, golden.batch, weight, 0, logprob, NULL, dgates), MEED_STATE,
           "activations");
    meed_net_destroy(net);
    options.adapters = alien;
    expect(meed_net_create(machine.be, golden.checkpoint, &options, &net), MEED_ARG,
           "does not fit");
    net = small_net(&machine, &golden, MEED_DTYPE_F32, true, own, 1);
    expect(meed_net_backward(net, golden.batch, weight, 0, logprob, NULL, dgates), MEED_STATE,
           "meed_net_set_gates");
    struct meed_adapter *thin = small_adapter(&golden, MEED_PROJ_ALL, 2, 1, 0.1f);
    expect(meed_net_set_adapter(net, 0, thin), MEED_ARG, "rank");
    meed_adapter_destroy(thin);
    golden.batch->ids[5] = golden.checkpoint->config.vocab;
    expect(meed_net_score(net, golden.batch, logprob), MEED_ARG, "vocabulary");
    meed_net_destroy(net);
    golden_close(&golden);
    golden_close(&wider);
    small_machine_close(&machine);
}

/* A device whose memory the host cannot touch: loading and factors go by staging and copies. The
 * CPU's table with host_memory off is one, as far as the engine can tell. */
static void net_staged_loading_gives_the_same_bits(void **state)
{
    (void)state;
    struct small_machine machine;
    struct golden golden;
    float want[MAX_ROWS], got[MAX_ROWS];
    small_machine_open(1, &machine);
    golden_open(MEED_SOURCE_DIR, "qwen2", &golden);
    struct meed_backend staged = *machine.be;
    staged.host_memory = false;
    const struct meed_adapter *adapters[] = {golden.adapter};
    for (int dtype = MEED_DTYPE_F32; dtype <= MEED_DTYPE_BF16; dtype++) {
        struct small_machine other = {machine.pool, &staged};
        struct meed_net *net =
            small_net(&machine, &golden, (enum meed_dtype)dtype, true, adapters, 1);
        golden_ok(meed_net_score(net, golden.batch, want));
        meed_net_destroy(net);
        net = small_net(&other, &golden, (enum meed_dtype)dtype, true, adapters, 1);
        golden_ok(meed_net_score(net, golden.batch, got));
        meed_net_destroy(net);
        assert_memory_equal(got, want, (size_t)golden.batch->loss_rows * sizeof *got);
    }
    golden_close(&golden);
    small_machine_close(&machine);
}

/* More scored rows than one piece of logits holds: scores are the bits of a small batch, and the
 * gradient of all rows is the sum of the gradients of its halves. */
static void net_head_works_in_pieces(void **state)
{
    (void)state;
    enum { LENGTH = 120, COUNT = 10, ROWS = COUNT * (LENGTH - 1) };
    static int32_t ids[COUNT][LENGTH];
    static uint8_t scored[LENGTH];
    static float together[ROWS], alone[ROWS], weight[ROWS];
    struct small_machine machine;
    struct meed_checkpoint *checkpoint = NULL;
    struct meed_adapter *adapter = NULL;
    struct meed_batch *whole = NULL, *part = NULL;
    struct meed_net *net = NULL;
    struct meed_lora_config lora = {.rank = 4, .alpha = 8, .targets = MEED_PROJ_ALL};
    small_machine_open(2, &machine);
    if (!machine.be->host_memory) { /* a device's piece holds more than a small model fills */
        small_machine_close(&machine);
        skip();
    }
    golden_ok(meed_checkpoint_open(MEED_SOURCE_DIR "/examples/tiny/model", &checkpoint));
    golden_ok(meed_adapter_create(&checkpoint->config, &lora, &adapter));
    meed_adapter_init(adapter, 5);
    const struct meed_adapter *adapters[] = {adapter};
    struct meed_net_options options = {.max_rows = ROWS,
                                       .max_sequences = COUNT,
                                       .backward = true,
                                       .adapters = adapters,
                                       .adapter_count = 1};
    golden_ok(meed_net_create(machine.be, checkpoint, &options, &net));
    golden_ok(meed_batch_create(ROWS, COUNT, &whole));
    golden_ok(meed_batch_create(ROWS, COUNT, &part));
    memset(scored + 1, 1, LENGTH - 1);
    for (int s = 0; s < COUNT; s++) {
        for (int t = 0; t < LENGTH; t++) {
            ids[s][t] = (s * 37 + t * 11 + t * t) % checkpoint->config.vocab;
        }
        struct meed_sequence sequence = {ids[s], scored, LENGTH};
        assert_true(meed_batch_add(whole, &sequence, 0));
    }
    for (int m = 0; m < ROWS; m++) {
        weight[m] = 1.0f / ROWS;
    }
    size_t count = (size_t)meed_net_master_count(net);
    void *all = NULL, *sum = NULL;
    golden_ok(machine.be->alloc(machine.be, count * sizeof(float), &all));
    golden_ok(machine.be->alloc(machine.be, count * sizeof(float), &sum));
    golden_ok(meed_net_score(net, whole, together));
    golden_ok(meed_net_backward(net, whole, weight, 0, alone, all, NULL));
    assert_memory_equal(together, alone, sizeof alone);
    for (int s = 0; s < COUNT; s++) {
        struct meed_sequence sequence = {ids[s], scored, LENGTH};
        meed_batch_reset(part);
        assert_true(meed_batch_add(part, &sequence, 0));
        golden_ok(meed_net_backward(net, part, weight, 0, alone, sum, NULL));
        assert_memory_equal(together + s * (LENGTH - 1), alone, (LENGTH - 1) * sizeof(float));
    }
    float *sum_host = small_fetch(machine.be, sum, count);
    float *all_host = small_fetch(machine.be, all, count);
    assert_true(golden_worst(sum_host, all_host, (int64_t)count) < 1e-4);
    meed_heap_free(sum_host);
    meed_heap_free(all_host);
    machine.be->free(machine.be, all);
    machine.be->free(machine.be, sum);
    meed_net_destroy(net);
    meed_batch_destroy(whole);
    meed_batch_destroy(part);
    meed_adapter_destroy(adapter);
    meed_checkpoint_close(checkpoint);
    small_machine_close(&machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(net_score_ignores_the_batch_around),
        cmocka_unit_test(net_score_ignores_the_batch_on_any_processor),
        cmocka_unit_test(net_bits_ignore_the_threads),
        cmocka_unit_test(net_partial_adapters_learn_the_same),
        cmocka_unit_test(net_masters_are_the_adapter),
        cmocka_unit_test(net_dropout_is_a_function_of_its_key),
        cmocka_unit_test(net_staged_loading_gives_the_same_bits),
        cmocka_unit_test(net_head_works_in_pieces),
        cmocka_unit_test(net_refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
