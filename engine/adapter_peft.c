/* PEFT directories and packed byte strings: the outside forms of an adapter (adapter.h).
 *
 * A PEFT folder is adapter_config.json plus adapter_model.safetensors. Two decisions:
 *
 * What the mathematics depends on is either understood or refused by name. PEFT has grown some
 * thirty keys; most leave y = Wx + sBAx alone, the others (DoRA, trained biases, whole modules
 * beside the adapter, initialisations that change the base weights) would load and compute
 * something else. The table `refused` lists them, so a new one is a row. The rank is what the
 * tensors say and must agree with the configuration; scales come from lora_alpha and alpha_pattern.
 * Pattern keys are regular expressions in PEFT; here they are plain module names or suffixes of
 * one, and a key with an operator is refused rather than half understood.
 *
 * A packed adapter (what travels, is stored, is hashed) has exactly one spelling. Unpacking reads
 * the values at the places the writer would have put them and then packs again: if the bytes
 * differ, it is not a packed adapter. So the tensor header of a stranger is never parsed at all,
 * and a hash of packed bytes is a hash of the values.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/parse.h"
#include "engine/adapter.h"
#include "engine/adapter_internal.h"
#include "engine/safetensors.h"

enum { CONFIG_MAX_BYTES = 4 << 20, NAME_BYTES = 128 };
/* The version whose loader the tests of this file ran against. */
#define PEFT_VERSION "0.21.2"

static void module_path(int32_t layer, enum meed_proj proj, char path[NAME_BYTES])
{
    snprintf(path, NAME_BYTES, "model.layers.%d.%s", layer, meed_proj_infos[proj].path);
}

static void tensor_name(int32_t layer, enum meed_proj proj, char factor, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "base_model.model.model.layers.%d.%s.lora_%c.weight", layer,
             meed_proj_infos[proj].path, factor);
}

/* ---- writing ----------------------------------------------------------------------------------
 */

enum meed_status meed_adapter_to_safetensors(const struct meed_adapter *adapter,
                                             struct meed_buf *bytes)
{
    enum meed_status st = MEED_OK;
    size_t count = 2 * (size_t)adapter->module_count;
    struct meed_tensor *tensors = meed_heap_alloc(count, sizeof *tensors);
    char(*names)[NAME_BYTES] = meed_heap_alloc(count, sizeof *names);
    if (!tensors || !names) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int32_t i = 0; i < adapter->module_count; i++) {
        const struct meed_adapter_module *module = &adapter->modules[i];
        for (size_t f = 0; f < 2; f++) {
            struct meed_tensor *tensor = &tensors[2 * (size_t)i + f];
            char *name = names[2 * (size_t)i + f];
            tensor_name(module->layer, module->proj, f == 0 ? 'A' : 'B', name);
            tensor->name = name;
            tensor->dtype = MEED_TENSOR_F32;
            tensor->dims = 2;
            tensor->shape[0] = f == 0 ? module->r : module->n;
            tensor->shape[1] = f == 0 ? module->k : module->r;
            tensor->count = tensor->shape[0] * tensor->shape[1];
            tensor->bytes = f == 0 ? module->a : module->b;
            tensor->size = (size_t)tensor->count * sizeof(float);
        }
    }
    MEED_TRY_OUT(meed_safetensors_write(tensors, (int64_t)count, bytes));
out:
    meed_heap_free(names);
    meed_heap_free(tensors);
    return st;
}

/* The shortest decimal that reads back as the same float, as PEFT prints 0.05 and not its widened
 * binary value. */
static double shortest(float value)
{
    for (int digits = 1; digits < 9; digits++) {
        char text[32];
        double number = 0.0;
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (meed_parse_f64("number", text, -INFINITY, INFINITY, &number) == MEED_OK &&
            (float)number == value) {
            return number;
        }
    }
    return (double)value;
}

static json_t *json_number(double value)
{
    if (value == rint(value) && fabs(value) < 1e15) {
        return json_integer((json_int_t)value);
    }
    return json_real(value);
}

/* True if every module of layers × targets is there, so that short names say it all. */
static bool is_grid(const struct meed_adapter *adapter)
{
    int32_t per_layer = 0;
    for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
        per_layer += (int32_t)(adapter->lora.targets >> proj & 1u);
    }
    return adapter->module_count == per_layer * adapter->layers;
}

static int compare_names(const void *x, const void *y)
{
    return strcmp(x, y);
}

static json_t *target_list(const struct meed_adapter *adapter)
{
    json_t *list = json_array();
    if (is_grid(adapter)) {
        char names[MEED_PROJ_COUNT][NAME_BYTES];
        size_t count = 0;
        for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
            if (adapter->lora.targets & 1u << proj) {
                snprintf(names[count++], NAME_BYTES, "%s", meed_proj_infos[proj].short_name);
            }
        }
        qsort(names, count, NAME_BYTES, compare_names);
        for (size_t i = 0; i < count; i++) {
            json_array_append_new(list, json_string(names[i]));
        }
        return list;
    }
    for (int32_t i = 0; i < adapter->module_count; i++) {
        char path[NAME_BYTES];
        module_path(adapter->modules[i].layer, adapter->modules[i].proj, path);
        json_array_append_new(list, json_string(path));
    }
    return list;
}

/* Ranks and alphas of modules that differ from the adapter's own. alpha = s·r is exact in double:
 * dividing again gives s back bit for bit. */
static void add_patterns(const struct meed_adapter *adapter, double alpha, json_t *config)
{
    json_t *ranks = json_object(), *alphas = json_object();
    for (int32_t i = 0; i < adapter->module_count; i++) {
        const struct meed_adapter_module *module = &adapter->modules[i];
        char path[NAME_BYTES];
        module_path(module->layer, module->proj, path);
        if (module->r != adapter->lora.rank) {
            json_object_set_new(ranks, path, json_integer((json_int_t)module->r));
        }
        bool rslora = adapter->lora.rslora;
        if (meed_adapter_scale(alpha, module->r, rslora) != module->scale) {
            double r = (double)module->r;
            double own = (double)module->scale * (rslora ? sqrt(r) : r);
            json_object_set_new(alphas, path, json_number(own));
        }
    }
    json_object_set_new(config, "rank_pattern", ranks);
    json_object_set_new(config, "alpha_pattern", alphas);
}

enum meed_status meed_adapter_config_json(const struct meed_adapter *adapter,
                                          const char *base_model, struct meed_buf *text)
{
    const struct meed_lora_config *lora = &adapter->lora;
    double alpha = shortest(lora->alpha);
    json_t *config = json_object();
    json_object_set_new(config, "peft_type", json_string("LORA"));
    json_object_set_new(config, "task_type", json_string("CAUSAL_LM"));
    json_object_set_new(config, "r", json_integer(lora->rank));
    json_object_set_new(config, "lora_alpha", json_number(alpha));
    json_object_set_new(config, "lora_dropout", json_real(shortest(lora->dropout)));
    json_object_set_new(config, "bias", json_string("none"));
    json_object_set_new(config, "fan_in_fan_out", json_false());
    json_object_set_new(config, "inference_mode", json_true());
    json_object_set_new(config, "init_lora_weights", json_true());
    json_object_set_new(config, "target_modules", target_list(adapter));
    json_object_set_new(config, "base_model_name_or_path",
                        base_model ? json_string(base_model) : json_null());
    json_object_set_new(config, "modules_to_save", json_null());
    json_object_set_new(config, "use_dora", json_false());
    json_object_set_new(config, "use_rslora", json_boolean(lora->rslora));
    json_object_set_new(config, "peft_version", json_string(PEFT_VERSION));
    add_patterns(adapter, alpha, config);
    char *dumped = json_dumps(config, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_ENSURE_ASCII |
                                          JSON_REAL_PRECISION(15));
    json_decref(config);
    if (!dumped) {
        return MEED_FAIL(MEED_NOMEM, "cannot write adapter_config.json: out of memory, or the "
                                     "base model's name is not UTF-8");
    }
    enum meed_status st = meed_buf_append(text, dumped, strlen(dumped));
    free(dumped);
    return st;
}

enum meed_status meed_adapter_save(const struct meed_adapter *adapter, const char *base_model,
                                   const char *folder)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES];
    struct meed_buf bytes;
    meed_buf_init(&bytes, MEED_ADAPTER_MAX_FILE_BYTES);
    MEED_TRY_OUT(meed_file_make_folder(folder));
    MEED_TRY_OUT(meed_adapter_to_safetensors(adapter, &bytes));
    MEED_TRY_OUT(meed_file_join(folder, "adapter_model.safetensors", path, sizeof path));
    MEED_TRY_OUT(meed_file_write_atomic(path, bytes.data, bytes.size));
    meed_buf_reset(&bytes);
    MEED_TRY_OUT(meed_adapter_config_json(adapter, base_model, &bytes));
    MEED_TRY_OUT(meed_file_join(folder, "adapter_config.json", path, sizeof path));
    MEED_TRY_OUT(meed_file_write_atomic(path, bytes.data, bytes.size));
out:
    meed_buf_clear(&bytes);
    return st;
}

/* ---- reading the configuration ----------------------------------------------------------------
 */

struct peft_config {
    const char *name; /* of the file, for messages */
    json_t *root;
    int64_t rank;
    double alpha;
    double dropout;
    bool rslora;
};

/* What may stand in a key that Meed does not implement. */
enum harmless { ONLY_FALSE, ONLY_EMPTY, ONLY_NONE_TEXT };

static const struct {
    const char *key;
    enum harmless harmless;
    const char *advice;
} refused[] = {
    {"use_dora", ONLY_FALSE, "merge the adapter into its base model, or train without DoRA"},
    {"modules_to_save", ONLY_EMPTY, "train without modules_to_save"},
    {"bias", ONLY_NONE_TEXT, "train with bias \"none\""},
    {"lora_bias", ONLY_FALSE, "train without lora_bias"},
    {"fan_in_fan_out", ONLY_FALSE, "this belongs to Conv1D models, which Meed does not run"},
    {"trainable_token_indices", ONLY_EMPTY, "train without extra token embeddings"},
    {"layer_replication", ONLY_EMPTY, "write the replicated model out first"},
    {"target_parameters", ONLY_EMPTY, "name modules in target_modules instead"},
    {"alora_invocation_tokens", ONLY_EMPTY, "Meed's adapters act on every token"},
    {"use_qalora", ONLY_FALSE, "convert to plain LoRA"},
    {"use_bdlora", ONLY_EMPTY, "convert to plain LoRA"},
    {"arrow_config", ONLY_EMPTY, "pick one adapter"},
    {"kasa_config", ONLY_EMPTY, "convert to plain LoRA"},
    {"monteclora_config", ONLY_EMPTY, "convert to plain LoRA"},
    {"velora_config", ONLY_EMPTY, "convert to plain LoRA"},
    {"megatron_config", ONLY_EMPTY, "save without Megatron layers"},
};

static bool is_harmless(const json_t *value, enum harmless harmless)
{
    if (!value || json_is_null(value) || json_is_false(value)) {
        return true;
    }
    if (harmless == ONLY_NONE_TEXT) {
        return json_is_string(value) && strcmp(json_string_value(value), "none") == 0;
    }
    return harmless == ONLY_EMPTY && ((json_is_array(value) && json_array_size(value) == 0) ||
                                      (json_is_object(value) && json_object_size(value) == 0));
}

static enum meed_status check_refused(const struct peft_config *config)
{
    for (size_t i = 0; i < MEED_COUNT(refused); i++) {
        if (!is_harmless(json_object_get(config->root, refused[i].key), refused[i].harmless)) {
            return MEED_FAIL(MEED_UNSUPPORTED, "%s: %s is set; %s", config->name, refused[i].key,
                             refused[i].advice);
        }
    }
    const json_t *type = json_object_get(config->root, "peft_type");
    if (!json_is_string(type) || strcmp(json_string_value(type), "LORA") != 0) {
        return MEED_FAIL(MEED_UNSUPPORTED, "%s: peft_type is not \"LORA\"; only LoRA adapters load",
                         config->name);
    }
    /* These initialisations move a part of W into the adapter: without the changed base weights the
     * saved factors mean something else. */
    static const char *const moving[] = {"pissa", "olora", "corda", "loftq", "lora_ga"};
    const char *init = json_string_value(json_object_get(config->root, "init_lora_weights"));
    for (size_t i = 0; init && i < MEED_COUNT(moving); i++) {
        if (strncmp(init, moving[i], strlen(moving[i])) == 0) {
            return MEED_FAIL(MEED_UNSUPPORTED,
                             "%s: init_lora_weights is \"%.32s\", which changed the base weights; "
                             "save it with PEFT's path_initial_model_for_weight_conversion",
                             config->name, init);
        }
    }
    return MEED_OK;
}

/* Plain names only: a letter, a digit, '_' or '.', with PEFT's usual "^" in front or "$" behind. */
static enum meed_status check_pattern_keys(const struct peft_config *config, const char *which)
{
    json_t *pattern = json_object_get(config->root, which);
    if (!pattern || json_is_null(pattern)) {
        return MEED_OK;
    }
    if (!json_is_object(pattern)) {
        return MEED_FAIL(MEED_FORMAT, "%s: %s must be an object", config->name, which);
    }
    const char *key;
    json_t *value;
    json_object_foreach(pattern, key, value)
    {
        static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                    "0123456789_.";
        const char *body = key + (key[0] == '^');
        size_t span = strspn(body, plain);
        if (span == 0 || (body[span] != '\0' && strcmp(body + span, "$") != 0)) {
            return MEED_FAIL(MEED_UNSUPPORTED,
                             "%s: %s has the key \"%.64s\"; write plain module names instead of "
                             "regular expressions",
                             config->name, which, key);
        }
        if (!json_is_number(value) || !(json_number_value(value) > 0.0)) {
            return MEED_FAIL(MEED_FORMAT, "%s: %s: \"%.64s\" must be a positive number",
                             config->name, which, key);
        }
    }
    return MEED_OK;
}

static enum meed_status read_numbers(struct peft_config *config)
{
    const json_t *rank = json_object_get(config->root, "r");
    const json_t *alpha = json_object_get(config->root, "lora_alpha");
    const json_t *dropout = json_object_get(config->root, "lora_dropout");
    if (!json_is_integer(rank) || json_integer_value(rank) < 1 ||
        json_integer_value(rank) > MEED_ADAPTER_MAX_RANK) {
        return MEED_FAIL(MEED_FORMAT, "%s: r must be a whole number from 1 to %d", config->name,
                         MEED_ADAPTER_MAX_RANK);
    }
    if (!json_is_number(alpha) || !(json_number_value(alpha) > 0.0) ||
        !isfinite((float)json_number_value(alpha))) {
        return MEED_FAIL(MEED_FORMAT, "%s: lora_alpha must be a positive number", config->name);
    }
    config->rank = json_integer_value(rank);
    config->alpha = json_number_value(alpha);
    config->dropout = json_is_number(dropout) ? json_number_value(dropout) : 0.0;
    if (!(config->dropout >= 0.0 && config->dropout < 1.0)) {
        return MEED_FAIL(MEED_FORMAT, "%s: lora_dropout must be at least 0 and less than 1",
                         config->name);
    }
    config->rslora = json_is_true(json_object_get(config->root, "use_rslora"));
    return MEED_OK;
}

/* The caller releases config->root, also after a failure. */
static enum meed_status config_parse(const char *name, const char *text, size_t size,
                                     struct peft_config *config)
{
    json_error_t error;
    config->name = name;
    config->root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(config->root)) {
        return MEED_FAIL(MEED_FORMAT, "%s: line %d: not a JSON object: %.160s", name,
                         config->root ? 1 : error.line, config->root ? "" : error.text);
    }
    MEED_TRY(check_refused(config));
    MEED_TRY(read_numbers(config));
    MEED_TRY(check_pattern_keys(config, "rank_pattern"));
    return check_pattern_keys(config, "alpha_pattern");
}

/* True if key is path, or a suffix of it that starts behind a dot. */
static bool names_module(const char *key, const char *path)
{
    const char *body = key + (key[0] == '^');
    size_t length = strlen(body);
    length -= length > 0 && body[length - 1] == '$';
    size_t path_length = strlen(path);
    return length > 0 && length <= path_length &&
           memcmp(path + path_length - length, body, length) == 0 &&
           (length == path_length || path[path_length - length - 1] == '.');
}

/* PEFT's rule: the first key that matches, else the adapter's own number. */
static double pattern_value(const struct peft_config *config, const char *which, const char *path,
                            double otherwise)
{
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(config->root, which), key, value)
    {
        if (names_module(key, path)) {
            return json_number_value(value);
        }
    }
    return otherwise;
}

/* Completes layer, proj and r of a shape with what model and configuration say. */
static enum meed_status shape_finish(const struct peft_config *config,
                                     const struct meed_model_config *model,
                                     struct meed_adapter_module *shape)
{
    char path[NAME_BYTES];
    module_path(shape->layer, shape->proj, path);
    double rank = pattern_value(config, "rank_pattern", path, (double)config->rank);
    double alpha = pattern_value(config, "alpha_pattern", path, config->alpha);
    if (shape->r == 0) {
        shape->r = rank <= (double)MEED_ADAPTER_MAX_RANK ? (int64_t)rank : 0;
    }
    if ((double)shape->r != rank) {
        return MEED_FAIL(MEED_FORMAT, "%s: %s: the configuration gives rank %g, the tensors %lld",
                         config->name, path, rank, (long long)shape->r);
    }
    shape->k = meed_proj_inputs(model, shape->proj);
    shape->n = meed_proj_outputs(model, shape->proj);
    shape->scale = meed_adapter_scale(alpha, shape->r, config->rslora);
    if (!(shape->scale > 0.0f) || !isfinite(shape->scale)) {
        return MEED_FAIL(MEED_FORMAT, "%s: %s: alpha %g makes no usable scale", config->name, path,
                         alpha);
    }
    return MEED_OK;
}

static struct meed_lora_config config_lora(const struct peft_config *config)
{
    struct meed_lora_config lora = {
        .rank = (int32_t)config->rank,
        .alpha = (float)config->alpha,
        .rslora = config->rslora,
        .dropout = (float)config->dropout,
    };
    return lora;
}

/* ---- reading a folder -------------------------------------------------------------------------
 */

static const struct meed_tensor *factor_find(const struct meed_safetensors *file, int32_t layer,
                                             enum meed_proj proj, char factor)
{
    char name[NAME_BYTES];
    tensor_name(layer, proj, factor, name);
    return meed_safetensors_find(file, name);
}

/* Lists the adapted modules of the file and proves that it holds nothing else. */
static enum meed_status shapes_from_file(const struct peft_config *config,
                                         const struct meed_safetensors *file,
                                         const struct meed_model_config *model,
                                         struct meed_adapter_module *shapes, int32_t *count)
{
    int32_t found = 0;
    for (int32_t layer = 0; layer < model->layers; layer++) {
        for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
            const struct meed_tensor *a = factor_find(file, layer, (enum meed_proj)proj, 'A');
            const struct meed_tensor *b = factor_find(file, layer, (enum meed_proj)proj, 'B');
            char path[NAME_BYTES];
            module_path(layer, (enum meed_proj)proj, path);
            if (!a && !b) {
                continue;
            }
            if (!a || !b || a->dims != 2 || b->dims != 2) {
                return MEED_FAIL(MEED_FORMAT, "%s: %s: lora_A and lora_B must both be matrices",
                                 config->name, path);
            }
            struct meed_adapter_module *shape = &shapes[found++];
            *shape = (struct meed_adapter_module){.layer = layer, .proj = (enum meed_proj)proj};
            shape->r = a->shape[0];
            MEED_TRY(shape_finish(config, model, shape));
            if (a->shape[1] != shape->k || b->shape[0] != shape->n || b->shape[1] != shape->r) {
                return MEED_FAIL(MEED_FORMAT,
                                 "%s: %s: lora_A [%lld, %lld], lora_B [%lld, %lld]; the model "
                                 "needs [r, %lld] and [%lld, r]; is it the adapter's base model?",
                                 config->name, path, (long long)a->shape[0], (long long)a->shape[1],
                                 (long long)b->shape[0], (long long)b->shape[1],
                                 (long long)shape->k, (long long)shape->n);
            }
        }
    }
    *count = found;
    return MEED_OK;
}

static enum meed_status check_nothing_else(const struct peft_config *config,
                                           const struct meed_safetensors *file,
                                           const struct meed_model_config *model, int32_t count)
{
    if (meed_safetensors_count(file) == 2 * (int64_t)count && count > 0) {
        return MEED_OK;
    }
    for (int64_t i = 0; i < meed_safetensors_count(file); i++) {
        const char *name = meed_safetensors_at(file, i)->name;
        bool known = false;
        for (int32_t m = 0; m < model->layers * MEED_PROJ_COUNT && !known; m++) {
            for (int f = 0; f < 2 && !known; f++) {
                char expected[NAME_BYTES];
                tensor_name(m / MEED_PROJ_COUNT, (enum meed_proj)(m % MEED_PROJ_COUNT),
                            f == 0 ? 'A' : 'B', expected);
                known = strcmp(name, expected) == 0;
            }
        }
        if (!known) {
            return MEED_FAIL(MEED_UNSUPPORTED,
                             "%s: tensor \"%.160s\" is not a LoRA factor of this model's attention "
                             "or MLP projections",
                             config->name, name);
        }
    }
    return MEED_FAIL(MEED_FORMAT, "%s: the adapter holds no LoRA factors", config->name);
}

static enum meed_status factors_from_file(const struct meed_safetensors *file,
                                          struct meed_adapter *adapter)
{
    for (int32_t i = 0; i < adapter->module_count; i++) {
        struct meed_adapter_module *module = &adapter->modules[i];
        MEED_TRY(
            meed_tensor_to_f32(factor_find(file, module->layer, module->proj, 'A'), module->a));
        MEED_TRY(
            meed_tensor_to_f32(factor_find(file, module->layer, module->proj, 'B'), module->b));
    }
    return MEED_OK;
}

static enum meed_status open_factors(const char *folder, struct meed_safetensors **file)
{
    char path[MEED_PATH_BYTES], pickle[MEED_PATH_BYTES];
    MEED_TRY(meed_file_join(folder, "adapter_model.safetensors", path, sizeof path));
    MEED_TRY(meed_file_join(folder, "adapter_model.bin", pickle, sizeof pickle));
    if (!meed_file_exists(path) && meed_file_exists(pickle)) {
        return MEED_FAIL(MEED_UNSUPPORTED,
                         "%.512s is a pickle, which can run code when loaded; save the adapter "
                         "with safe_serialization=True",
                         pickle);
    }
    return meed_safetensors_open(path, file);
}

enum meed_status meed_adapter_load(const char *folder, const struct meed_model_config *model,
                                   struct meed_adapter **adapter)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES];
    struct meed_buf text;
    struct peft_config config = {.root = NULL};
    struct meed_safetensors *file = NULL;
    struct meed_adapter *made = NULL;
    struct meed_adapter_module *shapes =
        meed_heap_alloc((size_t)model->layers * MEED_PROJ_COUNT, sizeof *shapes);
    meed_buf_init(&text, CONFIG_MAX_BYTES);
    if (!shapes) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(meed_file_join(folder, "adapter_config.json", path, sizeof path));
    MEED_TRY_OUT(meed_file_read(path, &text));
    MEED_TRY_OUT(config_parse(path, text.data, text.size, &config));
    MEED_TRY_OUT(open_factors(folder, &file));
    int32_t count = 0;
    MEED_TRY_OUT(shapes_from_file(&config, file, model, shapes, &count));
    MEED_TRY_OUT(check_nothing_else(&config, file, model, count));
    struct meed_lora_config lora = config_lora(&config);
    MEED_TRY_OUT(meed_adapter_create_shaped(shapes, count, &lora, model->layers, &made));
    MEED_TRY_OUT(factors_from_file(file, made));
    MEED_TRY_OUT(meed_adapter_check_finite(made, folder));
    *adapter = made;
    made = NULL;
out:
    meed_adapter_destroy(made);
    meed_safetensors_close(file);
    json_decref(config.root);
    meed_buf_clear(&text);
    meed_heap_free(shapes);
    return st;
}

/* ---- packed -----------------------------------------------------------------------------------
 */

enum meed_status meed_adapter_pack(const struct meed_adapter *adapter, struct meed_buf *bytes)
{
    size_t begin = bytes->size;
    uint8_t length[4] = {0, 0, 0, 0};
    MEED_TRY(meed_buf_append(bytes, length, sizeof length));
    MEED_TRY(meed_adapter_config_json(adapter, NULL, bytes));
    size_t config_size = bytes->size - begin - sizeof length;
    for (size_t i = 0; i < sizeof length; i++) {
        bytes->data[begin + i] = (char)(config_size >> (8 * i) & 0xFF);
    }
    return meed_adapter_to_safetensors(adapter, bytes);
}

/* The writer's own spelling: a list of short names or of full paths. */
static bool is_target(const json_t *targets, int32_t layer, enum meed_proj proj)
{
    char path[NAME_BYTES];
    module_path(layer, proj, path);
    size_t idx;
    const json_t *name;
    json_array_foreach(targets, idx, name)
    {
        if (json_is_string(name) && names_module(json_string_value(name), path)) {
            return true;
        }
    }
    return false;
}

static enum meed_status shapes_from_config(const struct peft_config *config,
                                           const struct meed_model_config *model,
                                           struct meed_adapter_module *shapes, int32_t *count)
{
    const json_t *targets = json_object_get(config->root, "target_modules");
    if (!json_is_array(targets) ||
        json_array_size(targets) > (size_t)model->layers * MEED_PROJ_COUNT) {
        return MEED_FAIL(MEED_FORMAT, "%s: target_modules must be a list of this model's modules",
                         config->name);
    }
    int32_t found = 0;
    for (int32_t layer = 0; layer < model->layers; layer++) {
        for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
            if (is_target(targets, layer, (enum meed_proj)proj)) {
                struct meed_adapter_module *shape = &shapes[found++];
                *shape = (struct meed_adapter_module){.layer = layer, .proj = (enum meed_proj)proj};
                MEED_TRY(shape_finish(config, model, shape));
            }
        }
    }
    *count = found;
    return MEED_OK;
}

struct placed_factor {
    char name[NAME_BYTES];
    float *values;
    size_t size;
};

static int compare_placed(const void *x, const void *y)
{
    const struct placed_factor *p = x, *q = y;
    return strcmp(p->name, q->name);
}

/* Copies values from where the writer puts them: at the end, sorted by name. */
static enum meed_status fill_factors(struct meed_adapter *adapter, const char *packed, size_t size)
{
    const char *data = packed + size - (size_t)meed_adapter_value_count(adapter) * sizeof(float);
    size_t count = 2 * (size_t)adapter->module_count;
    struct placed_factor *placed = meed_heap_alloc(count, sizeof *placed);
    if (!placed) {
        return MEED_NOMEM;
    }
    for (int32_t i = 0; i < adapter->module_count; i++) {
        const struct meed_adapter_module *module = &adapter->modules[i];
        struct placed_factor *a = &placed[2 * i], *b = a + 1;
        tensor_name(module->layer, module->proj, 'A', a->name);
        tensor_name(module->layer, module->proj, 'B', b->name);
        a->values = module->a;
        a->size = (size_t)(module->r * module->k) * sizeof(float);
        b->values = module->b;
        b->size = (size_t)(module->n * module->r) * sizeof(float);
    }
    qsort(placed, count, sizeof *placed, compare_placed);
    for (size_t i = 0; i < count; i++) {

        memcpy(placed[i].values, data, placed[i].size);
        data += placed[i].size;
    }
    meed_heap_free(placed);
    return MEED_OK;
}

static enum meed_status check_repacks(const char *name, const struct meed_adapter *adapter,
                                      const void *bytes, size_t size)
{
    enum meed_status st = MEED_OK;
    struct meed_buf again;
    meed_buf_init(&again, MEED_ADAPTER_MAX_FILE_BYTES);
    MEED_TRY_OUT(meed_adapter_pack(adapter, &again));
    if (again.size != size || memcmp(again.data, bytes, size) != 0) {
        st = MEED_FAIL(MEED_FORMAT,
                       "%s: not a packed adapter as Meed %s writes it; do both sides run the same "
                       "version?",
                       name, MEED_RELEASE);
    }
out:
    meed_buf_clear(&again);
    return st;
}

/* Behind the config: u64 header length, header, and exactly the values of the modules. Checked
 * before anything of that size is allocated. */
static enum meed_status check_room(const char *name, const char *file, size_t size,
                                   const struct meed_adapter_module *shapes, int32_t count)
{
    uint64_t header = 0;
    size_t values = 0;
    for (int32_t i = 0; i < count; i++) {
        values += (size_t)(shapes[i].r * (shapes[i].k + shapes[i].n)) * sizeof(float);
    }
    for (size_t i = 0; i < 8 && size >= 8; i++) {
        header |= (uint64_t)(uint8_t)file[i] << (8 * i);
    }
    if (size < 8 + values || header != size - 8 - values) {
        return MEED_FAIL(MEED_FORMAT,
                         "%s: the factors take %zu bytes, its configuration asks for %zu", name,
                         size, values);
    }
    return MEED_OK;
}

enum meed_status meed_adapter_unpack(const char *name, const void *bytes, size_t size,
                                     const struct meed_model_config *model,
                                     struct meed_adapter **adapter)
{
    enum meed_status st = MEED_OK;
    const char *data = bytes;
    struct peft_config config = {.root = NULL};
    struct meed_adapter *made = NULL;
    struct meed_adapter_module *shapes = NULL;
    size_t config_size = 0;
    for (size_t i = 0; i < 4 && size >= 4; i++) {
        config_size |= (size_t)(uint8_t)data[i] << (8 * i);
    }
    if (size < 4 || config_size > size - 4 || config_size > CONFIG_MAX_BYTES) {
        return MEED_FAIL(MEED_FORMAT, "%s: not a packed adapter (%zu bytes)", name, size);
    }
    MEED_TRY_OUT(config_parse(name, data + 4, config_size, &config));
    shapes = meed_heap_alloc((size_t)model->layers * MEED_PROJ_COUNT, sizeof *shapes);
    if (!shapes) {
        st = MEED_NOMEM;
        goto out;
    }
    int32_t count = 0;
    MEED_TRY_OUT(shapes_from_config(&config, model, shapes, &count));
    MEED_TRY_OUT(check_room(name, data + 4 + config_size, size - 4 - config_size, shapes, count));
    struct meed_lora_config lora = config_lora(&config);
    MEED_TRY_OUT(meed_adapter_create_shaped(shapes, count, &lora, model->layers, &made));
    MEED_TRY_OUT(fill_factors(made, data, size));
    MEED_TRY_OUT(meed_adapter_check_finite(made, name));
    MEED_TRY_OUT(check_repacks(name, made, bytes, size));
    *adapter = made;
    made = NULL;
out:
    meed_adapter_destroy(made);
    meed_heap_free(shapes);
    json_decref(config.root);
    return st;
}
