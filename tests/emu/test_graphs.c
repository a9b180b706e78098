/* Graphs of the backend (kernels/cuda/cuda_graph.cu) and their cache (engine/graph_cache.c) on the
 * emulated device, and the training step that is made of them.
 *
 * Goal: graphs change nothing but who issues the launches. Method: the same training with and
 * without them, with everything that differs from step to step switched on (dropout, a moving rate,
 * the proximal term, clipping, batches of several shapes, two micro-batches a step), must report
 * the same numbers and export the same bytes. What may not be recorded must be a status with a
 * sentence, after which the backend goes on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include "engine/graph_cache.h"
#include "engine/trainer.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/emu/emu.h"
#include "tests/support/golden.h"

static struct meed_backend *device_open(void)
{
    struct meed_cuda_caller self = {MEED_RELEASE, sizeof(struct meed_backend)};
    struct meed_emu_mode modes[MEED_EMU_MODES];
    struct meed_backend *be = NULL;
    assert_true(meed_emu_mode_list(modes) > 0);
    meed_emu_mode_set(modes[0]);
    assert_int_equal(meed_cuda_open(self, 0, &be), MEED_OK);
    return be;
}

/* --- recording -------------------------------------------------------------------------------- */

enum { COUNT = 300 };

struct vectors {
    struct meed_backend *be;
    float *values; /* [COUNT] */
    double *sum;
    int runs; /* of the enqueue function, on the host */
};

static struct vectors vectors_open(void)
{
    struct vectors v = {.be = device_open()};
    float host[COUNT];
    for (int i = 0; i < COUNT; i++) {
        host[i] = 1.0f;
    }
    assert_int_equal(v.be->alloc(v.be, sizeof host, (void **)&v.values), MEED_OK);
    assert_int_equal(v.be->alloc(v.be, sizeof *v.sum, (void **)&v.sum), MEED_OK);
    assert_int_equal(v.be->copy_to(v.be, v.values, host, sizeof host), MEED_OK);
    return v;
}

static void vectors_close(struct vectors *v)
{
    v->be->free(v->be, v->values);
    v->be->free(v->be, v->sum);
    meed_backend_close(v->be);
}

static double sum_of(const struct vectors *v)
{
    double sum = 0.0;
    assert_int_equal(v->be->copy_from(v->be, &sum, v->sum, sizeof sum), MEED_OK);
    assert_int_equal(v->be->sync(v->be), MEED_OK);
    return sum;
}

static void add_squares(void *user)
{
    struct vectors *v = user;
    v->be->sqnorm(v->be, v->values, COUNT, v->sum);
    v->runs++;
}

static void graph_refuses_what_it_cannot_hold(void **state)
{
    (void)state;
    struct vectors v = vectors_open();
    struct meed_graph *graph = NULL;
    void *block = NULL;
    double host = 0.0;
    for (int i = 0; i < 6; i++) {
        assert_int_equal(v.be->graph_begin(v.be), MEED_OK);
        enum meed_status st = MEED_STATE;
        if (i == 0) {
            st = v.be->alloc(v.be, 64, &block);
        } else if (i == 1) {
            st = v.be->copy_to(v.be, v.sum, &host, sizeof host);
        } else if (i == 2) {
            st = v.be->copy_from(v.be, &host, v.sum, sizeof host);
        } else if (i == 3) {
            st = v.be->sync(v.be);
        } else if (i == 4) {
            st = v.be->graph_begin(v.be);
        } else {
            add_squares(&v); /* the first of its kind: it needs scratch */
        }
        assert_int_equal(st, MEED_STATE);
        st = v.be->graph_end(v.be, &graph, NULL);
        assert_int_equal(st, i < 5 ? MEED_OK : MEED_STATE);
        assert_non_null(strstr(meed_last_error(), "inside a graph"));
        v.be->graph_free(v.be, graph);
        graph = NULL;
        assert_int_equal(v.be->sync(v.be), MEED_OK);
    }
    assert_true(sum_of(&v) == 0.0);
    add_squares(&v);
    assert_true(sum_of(&v) == COUNT);
    vectors_close(&v);
}

/* Once eagerly, once recorded, then launched; and what is counted is what the graph holds. */
static void cache_records_at_second_sight(void **state)
{
    (void)state;
    struct vectors v = vectors_open();
    struct meed_graph_cache cache;
    const struct meed_graph_key key = {{1, 2, 3, 4}};
    meed_graph_cache_init(&cache, v.be);
    for (int i = 1; i <= 5; i++) {
        int64_t nodes = -1;
        assert_int_equal(meed_graph_cache_run(&cache, key, add_squares, &v, &nodes), MEED_OK);
        assert_int_equal(nodes, i == 1 ? 0 : 2);
        assert_true(sum_of(&v) == (double)i * COUNT);
    }
    assert_int_equal(v.runs, 2);
    assert_int_equal(cache.recorded, 1);
    assert_int_equal(cache.launched, 4);
    meed_graph_cache_clear(&cache);
    vectors_close(&v);
}

/* One key more than there are slots: the least recently used gives way, the others stay. */
static void cache_forgets_the_oldest(void **state)
{
    (void)state;
    struct vectors v = vectors_open();
    struct meed_graph_cache cache;
    meed_graph_cache_init(&cache, v.be);
    for (int64_t i = 0; i < 2 * (MEED_GRAPH_CACHE_SLOTS + 1); i++) {
        const struct meed_graph_key key = {{i / 2, 0, 0, 0}};
        assert_int_equal(meed_graph_cache_run(&cache, key, add_squares, &v, NULL), MEED_OK);
    }
    assert_int_equal(cache.recorded, MEED_GRAPH_CACHE_SLOTS + 1);
    for (int64_t i = 1; i <= MEED_GRAPH_CACHE_SLOTS; i++) {
        const struct meed_graph_key key = {{i, 0, 0, 0}};
        assert_int_equal(meed_graph_cache_run(&cache, key, add_squares, &v, NULL), MEED_OK);
    }
    assert_int_equal(cache.recorded, MEED_GRAPH_CACHE_SLOTS + 1);
    const struct meed_graph_key gone = {{0, 0, 0, 0}};
    assert_int_equal(meed_graph_cache_run(&cache, gone, add_squares, &v, NULL), MEED_OK);
    assert_int_equal(v.runs, 2 * (MEED_GRAPH_CACHE_SLOTS + 1) + 1);
    meed_graph_cache_clear(&cache);
    vectors_close(&v);
}

/* Scratch that grows after the recording: the graph's own must still be there. */
static void graph_keeps_its_scratch(void **state)
{
    (void)state;
    enum {
        ROWS = 12000,
        K = 2,
        R = 8
    }; /* 12 bytes an element of T: more than the first megabyte */
    struct vectors v = vectors_open();
    struct meed_graph_cache cache;
    const struct meed_graph_key key = {{7, 0, 0, 0}};
    meed_graph_cache_init(&cache, v.be);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(meed_graph_cache_run(&cache, key, add_squares, &v, NULL), MEED_OK);
    }
    struct meed_mat xt = {NULL, ROWS, K + R, K + R, MEED_DTYPE_F32};
    struct meed_tail tail = {.a = {NULL, R, K, K, MEED_DTYPE_F32}};
    double *dgate = NULL;
    assert_int_equal(v.be->alloc(v.be, (size_t)(xt.rows * xt.cols) * 4, &xt.data), MEED_OK);
    assert_int_equal(v.be->alloc(v.be, R * K * 4, &tail.a.data), MEED_OK);
    assert_int_equal(v.be->alloc(v.be, R * sizeof(double), (void **)&dgate), MEED_OK);
    v.be->lora_gate_grad(v.be, xt, xt, K, &tail, dgate);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(meed_graph_cache_run(&cache, key, add_squares, &v, NULL), MEED_OK);
    }
    assert_true(sum_of(&v) == 4.0 * COUNT);
    v.be->free(v.be, xt.data);
    v.be->free(v.be, tail.a.data);
    v.be->free(v.be, dgate);
    meed_graph_cache_clear(&cache);
    vectors_close(&v);
}

/* --- training --------------------------------------------------------------------------------- */

enum { STEPS = 8, LONGEST = 90 };

/* Three sequences of which two fit into a batch together and one is alone: batches of two shapes,
 * even after padding. */
struct data {
    int32_t ids[LONGEST];
    uint8_t scored[LONGEST];
    struct meed_sequence sequences[3];
};

static void data_make(const struct golden *golden, struct data *data)
{
    static const int32_t lengths[] = {LONGEST, 30, 21};
    for (int t = 0; t < LONGEST; t++) {
        data->ids[t] = golden->batch->ids[t % golden->batch->rows];
        data->scored[t] = t % 3 == 1;
    }
    for (int i = 0; i < 3; i++) {
        data->sequences[i] = (struct meed_sequence){data->ids, data->scored, lengths[i]};
    }
}

struct run {
    struct meed_train_report reports[STEPS];
    float *masters;
    int64_t count;
};

static struct meed_train_options rich_options(enum meed_dtype dtype)
{
    struct meed_train_options options = meed_train_defaults();
    options.steps = STEPS;
    options.batch_tokens = LONGEST + 10;
    options.accumulation = 2;
    options.lr = 1e-2f;
    options.warmup_steps = 3;
    options.weight_decay = 0.05f;
    options.prox_mu = 0.1f;
    options.dropout = 0.1f;
    options.clip_norm = 0.5f;
    options.seed = 77;
    options.dtype = dtype;
    return options;
}

static struct run train(const struct golden *golden, enum meed_dtype dtype, bool with_graphs,
                        int steps)
{
    struct meed_backend *be = device_open();
    struct meed_train_options options = rich_options(dtype);
    struct meed_trainer *trainer = NULL;
    struct meed_adapter *after = NULL;
    struct data data;
    struct run run = {.count = meed_adapter_value_count(golden->adapter)};
    data_make(golden, &data);
    if (!with_graphs) {
        be->graph_begin = NULL;
    }
    golden_ok(meed_trainer_create(be, golden->checkpoint, golden->adapter, data.sequences, 3,
                                  &options, &trainer));
    for (int i = 0; i < steps; i++) {
        golden_ok(meed_trainer_step(trainer, &run.reports[i]));
    }
    golden_ok(meed_adapter_clone(golden->adapter, &after));
    golden_ok(meed_trainer_export(trainer, after));
    run.masters = calloc((size_t)run.count, sizeof *run.masters);
    assert_non_null(run.masters);
    meed_adapter_to_flat(after, run.masters);
    meed_adapter_destroy(after);
    meed_trainer_destroy(trainer);
    meed_backend_close(be);
    return run;
}

static void training_is_the_same(const char *family, enum meed_dtype dtype, int steps)
{
    struct golden golden;
    golden_open(MEED_SOURCE_DIR, family, &golden);
    struct run eager = train(&golden, dtype, false, steps);
    struct run graphs = train(&golden, dtype, true, steps);
    int64_t launches = 0;
    for (int i = 0; i < steps; i++) {
        const struct meed_train_report *a = &eager.reports[i], *b = &graphs.reports[i];
        assert_true(a->loss == b->loss && a->gradient_norm == b->gradient_norm);
        assert_true(a->lr == b->lr && a->tokens == b->tokens);
        assert_int_equal(a->launches, 0);
        launches += b->launches;
    }
    assert_true(launches > 0);
    assert_memory_equal(eager.masters, graphs.masters, (size_t)eager.count * sizeof(float));
    print_message("%s: %lld launches of the last step are in graphs\n", family,
                  (long long)graphs.reports[steps - 1].launches);
    free(eager.masters);
    free(graphs.masters);
    golden_close(&golden);
}

static void training_has_the_same_bits(void **state)
{
    (void)state;
    bool quick = meed_emu_checker() != MEED_EMU_PLAIN;
    training_is_the_same("llama_gqa", MEED_DTYPE_BF16, quick ? 3 : STEPS);
    if (!quick) {
        training_is_the_same("qwen3", MEED_DTYPE_F32, STEPS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graph_refuses_what_it_cannot_hold),
        cmocka_unit_test(cache_records_at_second_sight),
        cmocka_unit_test(cache_forgets_the_oldest),
        cmocka_unit_test(graph_keeps_its_scratch),
        cmocka_unit_test(training_has_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
