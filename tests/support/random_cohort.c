/* See random_cohort.h. */
#include "tests/support/random_cohort.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "base/rng.h"
#include "base/threads.h"
#include "engine/coalition.h"
#include "engine/safetensors.h"

enum { HIDDEN = 40, FFN = 56, LAYERS = 2, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 8, VOCAB = 61 };
enum { MAX_TENSORS = 32, NAME_BYTES = 64 };

static void must(enum meed_status st)
{
    if (st != MEED_OK) {
        fprintf(stderr, "random_cohort: %s: %s\n", meed_status_name(st), meed_last_error());
        abort();
    }
}

static const char config_text[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"vocab_size\": 61, "
    "\"hidden_size\": 40, \"intermediate_size\": 56, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 8, "
    "\"hidden_act\": \"silu\", \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-05, "
    "\"rope_theta\": 10000.0, \"attention_bias\": false, \"mlp_bias\": false, "
    "\"tie_word_embeddings\": true, \"eos_token_id\": 2}";

struct tensor_list {
    struct meed_tensor tensors[MAX_TENSORS];
    char names[MAX_TENSORS][NAME_BYTES];
    int64_t count;
};

/* A tensor of normals with the deviation of a trained linear, or ones for a norm (cols 0). */
static void tensor_add(struct tensor_list *list, int layer, const char *path, int64_t rows,
                       int64_t cols)
{
    struct meed_tensor *tensor = &list->tensors[list->count];
    char *name = list->names[list->count];
    if (layer < 0) {
        snprintf(name, NAME_BYTES, "model.%s.weight", path);
    } else {
        snprintf(name, NAME_BYTES, "model.layers.%d.%s.weight", layer, path);
    }
    struct meed_rng rng = meed_rng_stream(17, name, 0);
    int64_t count = rows * (cols ? cols : 1);
    float *values = malloc((size_t)count * sizeof *values);
    for (int64_t i = 0; values && i < count; i++) {
        values[i] =
            cols ? (float)(0.15 * meed_rng_normal(&rng)) : (float)(1 + 0.1 * meed_rng_normal(&rng));
    }
    *tensor = (struct meed_tensor){.name = name,
                                   .dtype = MEED_TENSOR_F32,
                                   .dims = cols ? 2 : 1,
                                   .shape = {rows, cols},
                                   .count = count,
                                   .bytes = values,
                                   .size = (size_t)count * sizeof *values};
    list->count++;
}

static void model_write(const char *folder)
{
    static struct tensor_list list;
    list.count = 0;
    tensor_add(&list, -1, "embed_tokens", VOCAB, HIDDEN);
    tensor_add(&list, -1, "norm", HIDDEN, 0);
    for (int layer = 0; layer < LAYERS; layer++) {
        tensor_add(&list, layer, "input_layernorm", HIDDEN, 0);
        tensor_add(&list, layer, "post_attention_layernorm", HIDDEN, 0);
        tensor_add(&list, layer, "self_attn.q_proj", HEADS * HEAD_DIM, HIDDEN);
        tensor_add(&list, layer, "self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN);
        tensor_add(&list, layer, "self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN);
        tensor_add(&list, layer, "self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM);
        tensor_add(&list, layer, "mlp.gate_proj", FFN, HIDDEN);
        tensor_add(&list, layer, "mlp.up_proj", FFN, HIDDEN);
        tensor_add(&list, layer, "mlp.down_proj", HIDDEN, FFN);
    }
    struct meed_buf bytes;
    char path[128];
    meed_buf_init(&bytes, 1 << 20);
    must(meed_safetensors_write(list.tensors, list.count, &bytes));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    must(meed_file_write_atomic(path, bytes.data, bytes.size));
    snprintf(path, sizeof path, "%s/config.json", folder);
    must(meed_file_write_atomic(path, config_text, sizeof config_text - 1));
    meed_buf_clear(&bytes);
    for (int64_t i = 0; i < list.count; i++) {
        free((void *)(uintptr_t)list.tensors[i].bytes);
    }
}

void random_cohort_threads(struct random_cohort *cohort, int threads)
{
    meed_backend_close(cohort->be);
    meed_pool_destroy(cohort->pool);
    cohort->be = NULL;
    cohort->pool = NULL;
    must(meed_pool_create(threads, &cohort->pool));
    must(meed_backend_open_cpu(cohort->pool, NULL, &cohort->be));
}

void random_cohort_open(struct random_cohort *cohort, int threads)
{
    memset(cohort, 0, sizeof *cohort);
    snprintf(cohort->folder, sizeof cohort->folder, "/tmp/meed-cohort-XXXXXX");
    if (!mkdtemp(cohort->folder)) {
        abort();
    }
    model_write(cohort->folder);
    must(meed_checkpoint_open(cohort->folder, &cohort->checkpoint));
    random_cohort_threads(cohort, threads);
}

void random_cohort_close(struct random_cohort *cohort)
{
    static const char *const names[] = {"model.safetensors", "config.json"};
    meed_backend_close(cohort->be);
    meed_pool_destroy(cohort->pool);
    meed_checkpoint_close(cohort->checkpoint);
    for (int i = 0; i < 2; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", cohort->folder, names[i]);
        unlink(path);
    }
    rmdir(cohort->folder);
}

struct meed_adapter *random_cohort_adapter(const struct random_cohort *cohort, uint64_t seed,
                                           float size)
{
    struct meed_adapter *adapter = NULL;
    struct meed_lora_config lora = {.rank = 3, .alpha = 6, .targets = MEED_PROJ_ALL};
    must(meed_adapter_create(&cohort->checkpoint->config, &lora, &adapter));
    int64_t count = meed_adapter_value_count(adapter);
    float *flat = malloc((size_t)count * sizeof *flat);
    struct meed_rng rng = meed_rng_stream(seed, "random-adapter", 0);
    for (int64_t i = 0; flat && i < count; i++) {
        flat[i] = size * (float)meed_rng_normal(&rng);
    }
    meed_adapter_from_flat(adapter, flat);
    free(flat);
    return adapter;
}

static void *table(struct meed_benchmark *benchmark, int32_t count, size_t item_bytes)
{
    void *block = NULL;
    must(meed_arena_alloc_array(&benchmark->arena, (size_t)count, item_bytes, &block));
    return block;
}

/* Sequence 2d is the dialogue with its replies scored, 2d + 1 another context before its end. */
static void sequence_fill(struct meed_benchmark *b, int32_t idx, struct meed_rng *rng)
{
    struct meed_sequence *sequence = &b->sequences[idx];
    sequence->length = 5 + (int32_t)meed_rng_below(rng, 16);
    sequence->ids = table(b, sequence->length, sizeof *sequence->ids);
    sequence->scored = table(b, sequence->length, 1);
    for (int32_t t = 0; t < sequence->length; t++) {
        sequence->ids[t] = (int32_t)meed_rng_below(rng, VOCAB);
        sequence->scored[t] = t > sequence->length / 2 ? 1 : 0;
        b->scored_tokens[idx] += sequence->scored[t];
    }
}

void random_cohort_benchmark(int32_t dialogues, uint64_t seed, struct meed_benchmark *benchmark)
{
    struct meed_benchmark *b = benchmark;
    memset(b, 0, sizeof *b);
    meed_arena_init_growing(&b->arena, "random benchmark", 1 << 26);
    b->axis_count = 2;
    b->axes[0] = (struct meed_axis){.name = "talk", .kind = MEED_AXIS_LIKELIHOOD, .weight = 1};
    b->axes[1] = (struct meed_axis){.name = "fit", .kind = MEED_AXIS_CONTRAST, .guard = true};
    b->category_count = 2;
    b->categories[0] = "even";
    b->categories[1] = "odd";
    b->dialogue_count = dialogues;
    b->item_count = 2 * dialogues;
    b->sequence_count = 2 * dialogues;
    b->items = table(b, b->item_count, sizeof *b->items);
    b->sequences = table(b, b->sequence_count, sizeof *b->sequences);
    b->scored_tokens = table(b, b->sequence_count, sizeof(int32_t));
    struct meed_rng rng = meed_rng_stream(seed, "random-benchmark", 0);
    for (int32_t i = 0; i < b->sequence_count; i++) {
        sequence_fill(b, i, &rng);
    }
    for (int32_t i = 0; i < b->item_count; i++) {
        b->items[i] = (struct meed_benchmark_item){.axis = i % 2,
                                                   .category = i / 2 % 2,
                                                   .dialogue = i / 2,
                                                   .plus = i / 2 * 2,
                                                   .minus = i % 2 ? i / 2 * 2 + 1 : -1,
                                                   .id = "x"};
    }
    b->tokens = meed_coalition_rows(b->sequences, b->sequence_count);
    meed_sha256(&seed, sizeof seed, b->hash);
}
