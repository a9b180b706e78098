/* Networks whose frozen weights are held in blocks.
 *
 * Goal: such a network is a dense one of other weights and nothing else: the same bits in scores,
 * gradients and decoding as a dense network into which the unpacked values were written, alone and
 * in a batch, after new factors too (a cached copy of the shared scratch would show). And it is
 * smaller by what the formats promise. Method: golden models for bits, the embedded model, whose
 * widths are whole blocks, for bytes; a file with one NaN; the one-hot gate for a stack.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/file.h"
#include "engine/net_internal.h"
#include "tests/support/small_net.h"

enum { MAX_ROWS = GOLDEN_SEQUENCES * GOLDEN_MAX_LENGTH };
static const char *const families[] = {"llama_gqa", "qwen2", "qwen3"};

static struct meed_net *blocks_net(const struct meed_backend *be,
                                   const struct meed_checkpoint *checkpoint,
                                   enum meed_block_format base, enum meed_dtype dtype,
                                   bool backward, const struct meed_adapter *const *adapters,
                                   int32_t count)
{
    struct meed_net_options options = {
        .dtype = dtype,
        .base = base,
        .max_rows = MAX_ROWS,
        .max_sequences = GOLDEN_SEQUENCES,
        .backward = backward,
        .adapters = adapters,
        .adapter_count = count,
    };
    struct meed_net *net = NULL;
    golden_ok(meed_net_create(be, checkpoint, &options, &net));
    return net;
}

/* Replaces the W of a dense network by what blocks make of it. */
static void round_through_blocks(const struct meed_net *dense, enum meed_block_format format)
{
    const struct meed_backend *be = dense->be;
    for (int32_t layer = 0; layer < dense->config.layers; layer++) {
        for (int g = 0; g < MEED_GROUP_COUNT; g++) {
            struct meed_net_group *group = meed_net_group_at(dense, layer, (enum meed_group)g);
            struct meed_mat w = meed_mat_cols(group->weight, 0, group->k);
            struct meed_mat none = {.dtype = w.dtype};
            size_t count = (size_t)(group->n * meed_blocks_per_row(group->k));
            struct meed_blocks blocks = {
                .codes = meed_heap_alloc(count, (size_t)meed_block_bytes(format)),
                .scales = meed_heap_alloc(count, sizeof(float)),
                .rows = group->n,
                .cols = group->k,
                .format = format,
            };
            assert_true(blocks.codes && blocks.scales);
            be->block_pack(be, w, blocks);
            be->block_unpack(be, blocks, none, w);
            meed_heap_free(blocks.codes);
            meed_heap_free(blocks.scales);
        }
    }
}

/* Few rows, often: what makes the CPU backend keep a packed copy of a weight. */
static void check_scores(const struct golden *golden, struct meed_net *net, struct meed_net *dense)
{
    float got[MAX_ROWS], want[MAX_ROWS];
    struct meed_batch *batch = NULL;
    golden_ok(meed_batch_create(MAX_ROWS, GOLDEN_SEQUENCES, &batch));
    assert_true(meed_batch_add(batch, &golden->sequences[1], 0));
    golden_ok(meed_net_score(dense, golden->batch, want));
    golden_ok(meed_net_score(net, golden->batch, got));
    assert_memory_equal(got, want, (size_t)golden->batch->loss_rows * sizeof *got);
    int32_t first = 0;
    for (int32_t i = 0; i < golden->batch->loss_rows; i++) {
        first += golden->batch->loss_sequence[i] == 0;
    }
    for (int i = 0; i < 5; i++) {
        golden_ok(meed_net_score(net, batch, got));
        assert_memory_equal(got, want + first, (size_t)batch->loss_rows * sizeof *got);
    }
    meed_batch_destroy(batch);
}

static void check_same_bits(const struct small_machine *machine, const char *family,
                            enum meed_block_format format, enum meed_dtype dtype)
{
    struct golden golden;
    golden_open(MEED_SOURCE_DIR, family, &golden);
    const struct meed_adapter *adapters[] = {golden.adapter};
    struct meed_net *net =
        blocks_net(machine->be, golden.checkpoint, format, dtype, true, adapters, 1);
    struct meed_net *dense =
        blocks_net(machine->be, golden.checkpoint, MEED_BLOCK_NONE, dtype, true, adapters, 1);
    round_through_blocks(dense, format);
    size_t count = (size_t)meed_net_master_count(net);
    for (int turn = 0; turn < 2; turn++) {
        check_scores(&golden, net, dense);
        float *got = small_gradient(machine, net, golden.batch, 7);
        float *want = small_gradient(machine, dense, golden.batch, 7);
        assert_memory_equal(got, want, count * sizeof *got);
        meed_heap_free(got);
        meed_heap_free(want);
        struct meed_adapter *other = small_adapter(&golden, MEED_PROJ_ALL, 4, 3, 0.2f);
        golden_ok(meed_net_set_adapter(net, 0, other));
        golden_ok(meed_net_set_adapter(dense, 0, other));
        meed_adapter_destroy(other);
    }
    meed_net_destroy(dense);
    meed_net_destroy(net);
    golden_close(&golden);
}

static void blocks_are_a_dense_net_of_the_unpacked_values(void **state)
{
    (void)state;
    struct small_machine machine;
    small_machine_open(2, &machine);
    for (size_t i = 0; i < MEED_COUNT(families); i++) {
        for (int format = MEED_BLOCK_INT8; format < MEED_BLOCK_FORMATS; format++) {
            check_same_bits(&machine, families[i], (enum meed_block_format)format, MEED_DTYPE_F32);
        }
    }
    small_machine_close(&machine);
}

/* In bf16 the dense network's W is quantised from bf16, which is what the golden files hold. */
static void blocks_in_bf16_keep_the_bits_too(void **state)
{
    (void)state;
    struct small_machine machine;
    small_machine_open(1, &machine);
    for (int format = MEED_BLOCK_INT8; format < MEED_BLOCK_FORMATS; format++) {
        check_same_bits(&machine, "llama_gqa", (enum meed_block_format)format, MEED_DTYPE_BF16);
    }
    small_machine_close(&machine);
}

/* A device whose memory the host cannot touch quantises through the scratch: the same bits. */
static void blocks_load_by_way_of_the_device(void **state)
{
    (void)state;
    struct small_machine machine;
    struct golden golden;
    float got[MAX_ROWS], want[MAX_ROWS];
    small_machine_open(1, &machine);
    golden_open(MEED_SOURCE_DIR, "qwen2", &golden);
    struct meed_backend remote = *machine.be;
    remote.host_memory = false;
    struct meed_net *near =
        blocks_net(machine.be, golden.checkpoint, MEED_BLOCK_NF4, MEED_DTYPE_F32, false, NULL, 0);
    struct meed_net *far =
        blocks_net(&remote, golden.checkpoint, MEED_BLOCK_NF4, MEED_DTYPE_F32, false, NULL, 0);
    golden_ok(meed_net_score(near, golden.batch, want));
    golden_ok(meed_net_score(far, golden.batch, got));
    assert_memory_equal(got, want, (size_t)golden.batch->loss_rows * sizeof *got);
    meed_net_destroy(near);
    meed_net_destroy(far);
    golden_close(&golden);
    small_machine_close(&machine);
}

/* Per weight of the embedded model, in bf16: 2 bytes become 1.0625 or 0.5625. */
static void blocks_take_what_their_format_says(void **state)
{
    (void)state;
    struct small_machine machine;
    struct meed_checkpoint *checkpoint = NULL;
    small_machine_open(1, &machine);
    golden_ok(meed_checkpoint_open(MEED_SOURCE_DIR "/examples/tiny/model", &checkpoint));
    struct meed_net *dense =
        blocks_net(machine.be, checkpoint, MEED_BLOCK_NONE, MEED_DTYPE_BF16, false, NULL, 0);
    int64_t weights = 0;
    for (int g = 0; g < MEED_GROUP_COUNT; g++) {
        const struct meed_net_group *group = meed_net_group_at(dense, 0, (enum meed_group)g);
        weights += dense->config.layers * group->n * group->k;
    }
    for (int format = MEED_BLOCK_INT8; format < MEED_BLOCK_FORMATS; format++) {
        struct meed_net *net = blocks_net(machine.be, checkpoint, (enum meed_block_format)format,
                                          MEED_DTYPE_BF16, false, NULL, 0);
        int64_t packed = weights * (meed_block_bytes((enum meed_block_format)format) + 4) / 64;
        int64_t saved = meed_net_device_bytes(dense) - meed_net_device_bytes(net);
        int64_t scratch = (int64_t)net->unpacked_bytes;
        printf("  %-5s %lld bytes of weights, %lld in bf16; scratch %lld\n",
               meed_block_format_name((enum meed_block_format)format), (long long)packed,
               (long long)(2 * weights), (long long)scratch);
        assert_int_equal(saved, 2 * weights - packed - scratch);
        assert_int_equal(scratch, 2 * 2 * 512 * 192); /* gate and up, the largest group */
        assert_true(packed < (format == MEED_BLOCK_INT8 ? 1.07 : 0.57) * (double)weights);
        meed_net_destroy(net);
    }
    meed_net_destroy(dense);
    meed_checkpoint_close(checkpoint);
    small_machine_close(&machine);
}

static void blocks_serve_a_stack_and_refuse_to_merge(void **state)
{
    (void)state;
    struct small_machine machine;
    struct golden golden;
    float got[MAX_ROWS], want[MAX_ROWS];
    const float gates[GOLDEN_SEQUENCES * 2] = {0, 1, 0, 1, 0, 1};
    small_machine_open(2, &machine);
    golden_open(MEED_SOURCE_DIR, "llama_gqa", &golden);
    struct meed_adapter *first = small_adapter(&golden, MEED_PROJ_ALL, 3, 1, 0.2f);
    const struct meed_adapter *both[] = {first, golden.adapter};
    struct meed_net *stack =
        blocks_net(machine.be, golden.checkpoint, MEED_BLOCK_INT4, MEED_DTYPE_F32, false, both, 2);
    struct meed_net *single = blocks_net(machine.be, golden.checkpoint, MEED_BLOCK_INT4,
                                         MEED_DTYPE_F32, false, both + 1, 1);
    struct meed_net *plain =
        blocks_net(machine.be, golden.checkpoint, MEED_BLOCK_NONE, MEED_DTYPE_F32, false, NULL, 0);
    golden_ok(meed_net_set_gates(stack, gates, GOLDEN_SEQUENCES));
    golden_ok(meed_net_score(stack, golden.batch, got));
    golden_ok(meed_net_score(single, golden.batch, want));
    assert_true(golden_worst(got, want, golden.batch->loss_rows) < 1e-5);
    assert_int_equal(meed_net_merge(plain, stack, gates), MEED_UNSUPPORTED);
    assert_non_null(strstr(meed_last_error(), "not int4"));
    meed_net_destroy(plain);
    meed_net_destroy(single);
    meed_net_destroy(stack);
    meed_adapter_destroy(first);
    golden_close(&golden);
    small_machine_close(&machine);
}

/* llama_gqa with a NaN as the last value of one projection. */
static void poison(const struct golden *golden, const char *folder)
{
    static const char *const names[] = {"config.json", "model.safetensors"};
    const struct meed_tensor *tensor =
        meed_safetensors_find(golden->checkpoint->weights, "model.layers.1.mlp.down_proj.weight");
    assert_non_null(tensor);
    for (size_t i = 0; i < MEED_COUNT(names); i++) {
        char path[1024];
        struct meed_buf buf;
        meed_buf_init(&buf, 1 << 24);
        golden_ok(meed_file_join(golden->folder, names[i], path, sizeof path));
        golden_ok(meed_file_read(path, &buf));
        if (i == 1) {
            char *at = memmem(buf.data, buf.size, tensor->bytes, tensor->size);
            assert_non_null(at);
            memset(at + tensor->size - 2, 0x7F, 2);
            at[tensor->size - 2] = (char)0xC0;
        }
        golden_ok(meed_file_join(folder, names[i], path, sizeof path));
        golden_ok(meed_file_write_atomic(path, buf.data, buf.size));
        meed_buf_clear(&buf);
    }
}

static void blocks_refuse_what_is_not_finite(void **state)
{
    (void)state;
    struct small_machine machine;
    struct golden golden;
    struct meed_checkpoint *checkpoint = NULL;
    struct meed_net *net = NULL;
    char folder[] = "/tmp/meed_net_blocks_XXXXXX", command[64];
    assert_non_null(mkdtemp(folder));
    small_machine_open(1, &machine);
    golden_open(MEED_SOURCE_DIR, "llama_gqa", &golden);
    poison(&golden, folder);
    golden_ok(meed_checkpoint_open(folder, &checkpoint));
    struct meed_net_options options = {.max_rows = 8, .max_sequences = 1, .base = MEED_BLOCK_INT8};
    assert_int_equal(meed_net_create(machine.be, checkpoint, &options, &net), MEED_NUMERIC);
    assert_non_null(strstr(meed_last_error(), "model.layers.1.mlp.down_proj.weight"));
    options.base = MEED_BLOCK_NONE;
    golden_ok(meed_net_create(machine.be, checkpoint, &options, &net));
    meed_net_destroy(net);
    meed_checkpoint_close(checkpoint);
    golden_close(&golden);
    small_machine_close(&machine);
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_a_dense_net_of_the_unpacked_values),
        cmocka_unit_test(blocks_in_bf16_keep_the_bits_too),
        cmocka_unit_test(blocks_load_by_way_of_the_device),
        cmocka_unit_test(blocks_take_what_their_format_says),
        cmocka_unit_test(blocks_serve_a_stack_and_refuse_to_merge),
        cmocka_unit_test(blocks_refuse_what_is_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
