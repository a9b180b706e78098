/* See safetensors.h. A stranger's file is trusted nowhere: the header is parsed by jansson with
 * duplicate keys refused, every number is checked before it is used, and after all tensors are read
 * their ranges are sorted and must tile the data exactly. The map stays open as long as the file;
 * tensors point into it and need not be aligned, so values are read by memcpy.
 *
 * A folder of shards is the union of its files. The index must agree with them: a tensor that it
 * names has to be in the shard it names, and no tensor may come twice.
 */
#include "engine/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "base/arena.h"
#include "base/file.h"
#include "kernels/types.h"

enum {
    MAX_HEADER_BYTES = 100 << 20,
    MAX_INDEX_BYTES = 64 << 20,
    MAX_NAME_BYTES = 256 << 20,
    MAX_TENSORS = 1 << 20,
    MAX_SHARDS = 1024,
    PREFIX_BYTES = 8
};

struct shard {
    char *path; /* for messages */
    char *name; /* last part of path */
    struct meed_file_map map;
};

struct meed_safetensors {
    struct meed_arena names; /* growing: tensor and file names */
    struct meed_buf tensors; /* struct meed_tensor [count], sorted by name */
    struct meed_buf shards;  /* struct shard [shard_count], sorted by name */
};

static const struct {
    const char *name;
    enum meed_tensor_dtype dtype;
    int32_t bits;
} dtypes[] = {
    {"F32", MEED_TENSOR_F32, 32},      {"F16", MEED_TENSOR_F16, 16},
    {"BF16", MEED_TENSOR_BF16, 16},    {"F64", MEED_TENSOR_F64, 64},
    {"I64", MEED_TENSOR_OTHER, 64},    {"U64", MEED_TENSOR_OTHER, 64},
    {"I32", MEED_TENSOR_OTHER, 32},    {"U32", MEED_TENSOR_OTHER, 32},
    {"I16", MEED_TENSOR_OTHER, 16},    {"U16", MEED_TENSOR_OTHER, 16},
    {"I8", MEED_TENSOR_OTHER, 8},      {"U8", MEED_TENSOR_OTHER, 8},
    {"BOOL", MEED_TENSOR_OTHER, 8},    {"C64", MEED_TENSOR_OTHER, 64},
    {"F8_E4M3", MEED_TENSOR_OTHER, 8}, {"F8_E5M2", MEED_TENSOR_OTHER, 8},
    {"F8_E8M0", MEED_TENSOR_OTHER, 8}, {"F6_E2M3", MEED_TENSOR_OTHER, 6},
    {"F6_E3M2", MEED_TENSOR_OTHER, 6}, {"F4", MEED_TENSOR_OTHER, 4},
};

static struct meed_tensor *table(const struct meed_safetensors *file)
{
    return (struct meed_tensor *)(void *)file->tensors.data;
}

static struct shard *shard_table(const struct meed_safetensors *file)
{
    return (struct shard *)(void *)file->shards.data;
}

static int64_t shard_count(const struct meed_safetensors *file)
{
    return (int64_t)(file->shards.size / sizeof(struct shard));
}

static enum meed_status read_dtype(const char *path, const char *tensor, const json_t *value,
                                   enum meed_tensor_dtype *dtype, int32_t *bits)
{
    const char *text = json_string_value(value);
    for (size_t i = 0; text && i < MEED_COUNT(dtypes); i++) {
        if (strcmp(text, dtypes[i].name) == 0) {
            *dtype = dtypes[i].dtype;
            *bits = dtypes[i].bits;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_FORMAT, "%s: tensor '%.128s' has dtype '%.32s', which the format lacks",
                     path, tensor, text ? text : "(none)");
}

static enum meed_status read_shape(const char *path, const json_t *value,
                                   struct meed_tensor *tensor)
{
    size_t dims = json_array_size(value);
    if (!json_is_array(value) || dims > MEED_TENSOR_MAX_DIMS) {
        return MEED_FAIL(MEED_FORMAT, "%s: tensor '%.128s' needs a shape of at most %d dimensions",
                         path, tensor->name, MEED_TENSOR_MAX_DIMS);
    }
    tensor->dims = (int32_t)dims;
    tensor->count = 1;
    for (size_t i = 0; i < dims; i++) {
        const json_t *dim = json_array_get(value, i);
        int64_t size = json_integer_value(dim);
        if (!json_is_integer(dim) || size < 0 ||
            __builtin_mul_overflow(tensor->count, size, &tensor->count)) {
            return MEED_FAIL(MEED_FORMAT, "%s: tensor '%.128s' has an impossible shape", path,
                             tensor->name);
        }
        tensor->shape[i] = size;
    }
    return MEED_OK;
}

/* The byte range must lie in the data and have the length that dtype and shape demand. */
static enum meed_status read_range(const char *path, const json_t *value, int32_t bits,
                                   const char *data, size_t data_bytes, struct meed_tensor *tensor)
{
    const json_t *first = json_array_get(value, 0);
    const json_t *last = json_array_get(value, 1);
    int64_t begin = json_integer_value(first);
    int64_t end = json_integer_value(last);
    if (json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(last) ||
        begin < 0 || end < begin || (uint64_t)end > data_bytes) {
        return MEED_FAIL(MEED_FORMAT,
                         "%s: tensor '%.128s' lies outside the %zu bytes of data; the file is "
                         "truncated or its table lies",
                         path, tensor->name, data_bytes);
    }
    int64_t total_bits;
    if (__builtin_mul_overflow(tensor->count, (int64_t)bits, &total_bits) || total_bits % 8 != 0 ||
        end - begin != total_bits / 8) {
        return MEED_FAIL(MEED_FORMAT,
                         "%s: tensor '%.128s' has %lld bytes, which its dtype and shape do not",
                         path, tensor->name, (long long)(end - begin));
    }
    tensor->bytes = data + begin;
    tensor->size = (size_t)(end - begin);
    return MEED_OK;
}

static enum meed_status read_tensor(struct meed_safetensors *file, const struct shard *shard,
                                    const char *name, const json_t *entry, size_t data_begin)
{
    struct meed_tensor tensor = {.name = name};
    int32_t bits = 0;
    char *copy = NULL;
    const char *data = (const char *)shard->map.bytes + data_begin;
    if (!json_is_object(entry)) {
        return MEED_FAIL(MEED_FORMAT, "%s: the entry of tensor '%.128s' is no object", shard->path,
                         name);
    }
    if (file->tensors.size / sizeof tensor >= MAX_TENSORS) {
        return MEED_FAIL(MEED_LIMIT, "%s: more than %d tensors", shard->path, MAX_TENSORS);
    }
    MEED_TRY(read_dtype(shard->path, name, json_object_get(entry, "dtype"), &tensor.dtype, &bits));
    MEED_TRY(read_shape(shard->path, json_object_get(entry, "shape"), &tensor));
    MEED_TRY(read_range(shard->path, json_object_get(entry, "data_offsets"), bits, data,
                        shard->map.size - data_begin, &tensor));
    MEED_TRY(meed_arena_strdup(&file->names, name, strlen(name), &copy));
    tensor.name = copy;
    return meed_buf_append(&file->tensors, &tensor, sizeof tensor);
}

static enum meed_status check_metadata(const char *path, const json_t *metadata)
{
    const char *key;
    json_t *value;
    bool good = json_is_object(metadata);
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        good = good && json_is_string(value);
    }
    return good ? MEED_OK
                : MEED_FAIL(MEED_FORMAT, "%s: __metadata__ must map strings to strings", path);
}

static int compare_places(const void *x, const void *y)
{
    const struct meed_tensor *a = x, *b = y;
    const char *a_begin = a->bytes, *b_begin = b->bytes;
    if (a_begin != b_begin) {
        return a_begin < b_begin ? -1 : 1;
    }
    return (a->size > b->size) - (a->size < b->size);
}

static int compare_names(const void *x, const void *y)
{
    const struct meed_tensor *a = x, *b = y;
    return strcmp(a->name, b->name);
}

static int compare_shards(const void *x, const void *y)
{
    const struct shard *a = x, *b = y;
    return strcmp(a->name, b->name);
}

/* Tensors [first, end of table) came from one file: in order of place they must tile its data. */
static enum meed_status check_tiling(const struct meed_safetensors *file, int64_t first,
                                     const struct shard *shard, size_t data_begin)
{
    int64_t count = meed_safetensors_count(file) - first;
    const char *next = (const char *)shard->map.bytes + data_begin;
    const char *end = (const char *)shard->map.bytes + shard->map.size;
    if (count > 0) {
        qsort(table(file) + first, (size_t)count, sizeof(struct meed_tensor), compare_places);
    }
    for (int64_t i = first; i < first + count; i++) {
        const struct meed_tensor *tensor = &table(file)[i];
        if ((const char *)tensor->bytes != next) {
            return MEED_FAIL(MEED_FORMAT,
                             "%s: the data of tensor '%.128s' overlaps another or leaves a hole",
                             shard->path, tensor->name);
        }
        next += tensor->size;
    }
    if (next != end) {
        return MEED_FAIL(MEED_FORMAT, "%s: %zu bytes at the end belong to no tensor", shard->path,
                         (size_t)(end - next));
    }
    return MEED_OK;
}

static enum meed_status read_header(const struct shard *shard, json_t **header, size_t *data_begin)
{
    const unsigned char *bytes = shard->map.bytes;
    uint64_t header_bytes = 0;
    if (shard->map.size < PREFIX_BYTES) {
        return MEED_FAIL(MEED_FORMAT, "%s: %zu bytes are no safetensors file", shard->path,
                         shard->map.size);
    }
    for (int i = PREFIX_BYTES - 1; i >= 0; i--) {
        header_bytes = header_bytes << 8 | bytes[i];
    }
    if (header_bytes > MAX_HEADER_BYTES || header_bytes > shard->map.size - PREFIX_BYTES) {
        return MEED_FAIL(MEED_FORMAT,
                         "%s: a header of %llu bytes does not fit the file of %zu bytes; it is "
                         "truncated or no safetensors file",
                         shard->path, (unsigned long long)header_bytes, shard->map.size);
    }
    json_error_t error;
    const char *text = (const char *)bytes + PREFIX_BYTES;
    if (header_bytes == 0 || text[0] != '{') {
        return MEED_FAIL(MEED_FORMAT, "%s: the header does not start with '{'", shard->path);
    }
    json_t *root = json_loadb(text, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        return MEED_FAIL(MEED_FORMAT, "%s: header, byte %d: %s", shard->path, error.position,
                         error.text);
    }
    *header = root;
    *data_begin = PREFIX_BYTES + (size_t)header_bytes;
    return MEED_OK;
}

static enum meed_status add_shard(struct meed_safetensors *file, const char *path)
{
    enum meed_status st = MEED_OK;
    json_t *header = NULL;
    struct shard made = {0};
    size_t data_begin = 0;
    int64_t first = meed_safetensors_count(file);
    MEED_TRY(meed_arena_strdup(&file->names, path, strlen(path), &made.path));
    char *slash = strrchr(made.path, '/');
    made.name = slash ? slash + 1 : made.path;
    MEED_TRY(meed_file_map_open(path, &made.map));
    st = meed_buf_append(&file->shards, &made, sizeof made);
    if (st != MEED_OK) {
        meed_file_map_close(&made.map);
        return st;
    }
    MEED_TRY(read_header(&made, &header, &data_begin));
    const char *key;
    json_t *value;
    json_object_foreach(header, key, value)
    {
        if (strcmp(key, "__metadata__") == 0) {
            MEED_TRY_OUT(check_metadata(path, value));
        } else {
            MEED_TRY_OUT(read_tensor(file, &made, key, value, data_begin));
        }
    }
    MEED_TRY_OUT(check_tiling(file, first, &made, data_begin));
out:
    json_decref(header);
    return st;
}

/* Sorts by name, for find and for repeatable walks. */
static enum meed_status seal(struct meed_safetensors *file, const char *path)
{
    int64_t count = meed_safetensors_count(file);
    if (count > 0) {
        qsort(table(file), (size_t)count, sizeof(struct meed_tensor), compare_names);
    }
    for (int64_t i = 1; i < count; i++) {
        if (strcmp(table(file)[i - 1].name, table(file)[i].name) == 0) {
            return MEED_FAIL(MEED_FORMAT, "%s: tensor '%.128s' comes in two shards", path,
                             table(file)[i].name);
        }
    }
    qsort(shard_table(file), (size_t)shard_count(file), sizeof(struct shard), compare_shards);
    return MEED_OK;
}

static enum meed_status create(struct meed_safetensors **file)
{
    struct meed_safetensors *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&made->names, "tensor names", MAX_NAME_BYTES);
    meed_buf_init(&made->tensors, MAX_TENSORS * sizeof(struct meed_tensor));
    meed_buf_init(&made->shards, MAX_SHARDS * sizeof(struct shard));
    *file = made;
    return MEED_OK;
}

enum meed_status meed_safetensors_open(const char *path, struct meed_safetensors **file)
{
    enum meed_status st = MEED_OK;
    struct meed_safetensors *made = NULL;
    MEED_TRY(create(&made));
    MEED_TRY_OUT(add_shard(made, path));
    MEED_TRY_OUT(seal(made, path));
    *file = made;
out:
    if (st != MEED_OK) {
        meed_safetensors_close(made);
    }
    return st;
}

static const struct shard *find_shard(const struct meed_safetensors *file, const char *name)
{
    for (int64_t i = 0; i < shard_count(file); i++) {
        if (strcmp(shard_table(file)[i].name, name) == 0) {
            return &shard_table(file)[i];
        }
    }
    return NULL;
}

/* Opens the shards that the index names, each once, and only beside the index. */
static enum meed_status open_shards(struct meed_safetensors *file, const char *folder,
                                    const char *index, json_t *map)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        char path[MEED_PATH_BYTES];
        if (!name || name[0] == '\0' || name[0] == '.' || strchr(name, '/')) {
            return MEED_FAIL(MEED_FORMAT,
                             "%s: tensor '%.128s' must name a shard beside the index file", index,
                             tensor);
        }
        if (find_shard(file, name)) {
            continue;
        }
        MEED_TRY(meed_file_join(folder, name, path, sizeof path));
        MEED_TRY(add_shard(file, path));
    }
    if (shard_count(file) == 0) {
        return MEED_FAIL(MEED_FORMAT, "%s: the weight_map names no tensor", index);
    }
    return MEED_OK;
}

static enum meed_status check_index(const struct meed_safetensors *file, const char *index,
                                    json_t *map)
{
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value)
    {
        const struct meed_tensor *tensor = meed_safetensors_find(file, name);
        const struct shard *shard = find_shard(file, json_string_value(value));
        const char *begin = shard ? shard->map.bytes : NULL;
        if (!tensor || !shard || (const char *)tensor->bytes < begin ||
            (const char *)tensor->bytes > begin + shard->map.size) {
            return MEED_FAIL(MEED_FORMAT, "%s: tensor '%.128s' is not in shard '%.128s'", index,
                             name, json_string_value(value));
        }
    }
    return MEED_OK;
}

static enum meed_status open_index(const char *folder, const char *path,
                                   struct meed_safetensors **file)
{
    enum meed_status st = MEED_OK;
    struct meed_safetensors *made = NULL;
    json_t *root = NULL;
    json_error_t error;
    struct meed_buf text;
    meed_buf_init(&text, MAX_INDEX_BYTES);
    MEED_TRY_OUT(meed_file_read(path, &text));
    root = json_loadb(text.data ? text.data : "", text.size, JSON_REJECT_DUPLICATES, &error);
    json_t *map = json_object_get(root, "weight_map");
    if (!root || !json_is_object(map)) {
        st = MEED_FAIL(MEED_FORMAT, "%s: an object with a 'weight_map' was expected%s%s", path,
                       root ? "" : ": ", root ? "" : error.text);
        goto out;
    }
    MEED_TRY_OUT(create(&made));
    MEED_TRY_OUT(open_shards(made, folder, path, map));
    MEED_TRY_OUT(seal(made, path));
    MEED_TRY_OUT(check_index(made, path, map));
    *file = made;
    made = NULL;
out:
    meed_safetensors_close(made);
    json_decref(root);
    meed_buf_clear(&text);
    return st;
}

enum meed_status meed_safetensors_open_folder(const char *folder, struct meed_safetensors **file)
{
    char path[MEED_PATH_BYTES];
    char index[MEED_PATH_BYTES];
    MEED_TRY(meed_file_join(folder, "model.safetensors", path, sizeof path));
    MEED_TRY(meed_file_join(folder, "model.safetensors.index.json", index, sizeof index));
    if (!meed_file_exists(path) && meed_file_exists(index)) {
        return open_index(folder, index, file);
    }
    if (!meed_file_exists(path)) {
        return MEED_FAIL(MEED_NOT_FOUND,
                         "%s: neither model.safetensors nor model.safetensors.index.json is there",
                         folder);
    }
    return meed_safetensors_open(path, file);
}

void meed_safetensors_close(struct meed_safetensors *file)
{
    if (!file) {
        return;
    }
    for (int64_t i = 0; i < shard_count(file); i++) {
        meed_file_map_close(&shard_table(file)[i].map);
    }
    meed_buf_clear(&file->shards);
    meed_buf_clear(&file->tensors);
    meed_arena_clear(&file->names);
    meed_heap_free(file);
}

int64_t meed_safetensors_count(const struct meed_safetensors *file)
{
    return (int64_t)(file->tensors.size / sizeof(struct meed_tensor));
}

const struct meed_tensor *meed_safetensors_at(const struct meed_safetensors *file, int64_t idx)
{
    MEED_ASSERT(idx >= 0 && idx < meed_safetensors_count(file));
    return &table(file)[idx];
}

const struct meed_tensor *meed_safetensors_find(const struct meed_safetensors *file,
                                                const char *name)
{
    struct meed_tensor key = {.name = name};
    size_t count = (size_t)meed_safetensors_count(file);
    return count > 0 ? bsearch(&key, table(file), count, sizeof key, compare_names) : NULL;
}

void meed_safetensors_hash(const struct meed_safetensors *file, struct meed_sha256 *hash)
{
    for (int64_t i = 0; i < shard_count(file); i++) {
        const struct shard *shard = &shard_table(file)[i];
        uint8_t size[8];
        for (int b = 0; b < 8; b++) {
            size[b] = (uint8_t)((uint64_t)shard->map.size >> (8 * b));
        }
        meed_sha256_update(hash, shard->name, strlen(shard->name) + 1);
        meed_sha256_update(hash, size, sizeof size);
        meed_sha256_update(hash, shard->map.bytes, shard->map.size);
    }
}

/* Half precision: 5 exponent bits biased by 15; subnormals are count·2^-24. */
static float from_half(uint16_t half)
{
    union {
        uint32_t bits;
        float number;
    } u;
    uint32_t sign = (uint32_t)(half >> 15) << 31;
    uint32_t exponent = half >> 10 & 31u;
    uint32_t fraction = half & 1023u;
    if (exponent == 0) {
        u.number = (float)fraction * 0x1p-24f;
        u.bits |= sign;
    } else {
        u.bits = sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | fraction << 13;
    }
    return u.number;
}

enum meed_status meed_tensor_to_f32(const struct meed_tensor *tensor, float *out)
{
    const char *bytes = tensor->bytes;
    size_t count = (size_t)tensor->count;
    switch (tensor->dtype) {
    case MEED_TENSOR_F32:
        if (count > 0) {
            memcpy(out, bytes, count * sizeof *out);
        }
        return MEED_OK;
    case MEED_TENSOR_BF16:
    case MEED_TENSOR_F16:
        for (size_t i = 0; i < count; i++) {
            uint16_t half;
            memcpy(&half, bytes + i * sizeof half, sizeof half);
            out[i] = tensor->dtype == MEED_TENSOR_F16 ? from_half(half) : meed_bf16_to_f32(half);
        }
        return MEED_OK;
    case MEED_TENSOR_F64:
        for (size_t i = 0; i < count; i++) {
            double number;
            memcpy(&number, bytes + i * sizeof number, sizeof number);
            out[i] = (float)number;
        }
        return MEED_OK;
    case MEED_TENSOR_OTHER:
        break;
    }
    return MEED_FAIL(MEED_UNSUPPORTED,
                     "tensor '%.128s' is not F32, F16, BF16 or F64; convert the checkpoint",
                     tensor->name);
}
