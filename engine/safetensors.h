/* safetensors files: checked read-only maps, repeatable writing.
 *
 * Format: u64 little-endian N, a JSON header of N bytes, then the data. The reader trusts nothing:
 * header size (at most 100 MB), duplicate keys, offsets that leave the file, overlap or leave
 * holes, byte counts that disagree with dtype and shape; each is MEED_FORMAT naming file and
 * tensor. The writer sorts by dtype size, then name, so equal tensors give equal bytes. A sharded
 * checkpoint (model.safetensors.index.json) reads like one file.
 */
#ifndef MEED_ENGINE_SAFETENSORS_H
#define MEED_ENGINE_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/hash.h"
#include "base/status.h"

MEED_BEGIN_C

enum meed_tensor_dtype {
    MEED_TENSOR_F32,
    MEED_TENSOR_F16,
    MEED_TENSOR_BF16,
    MEED_TENSOR_F64,
    MEED_TENSOR_OTHER /* known to the format, unused by Meed: readable by name only */
};

enum { MEED_TENSOR_MAX_DIMS = 4 };

struct meed_tensor {
    const char *name; /* owned by the file */
    enum meed_tensor_dtype dtype;
    int32_t dims;
    int64_t shape[MEED_TENSOR_MAX_DIMS];
    int64_t count;
    const void *bytes; /* into the map, valid until close */
    size_t size;
};

struct meed_safetensors; /* one file, or all shards of a folder */

MEED_MUST_CHECK enum meed_status meed_safetensors_open(const char *path,
                                                       struct meed_safetensors **file);
/* DIR/model.safetensors, or the shards that DIR/model.safetensors.index.json names. */
MEED_MUST_CHECK enum meed_status meed_safetensors_open_folder(const char *folder,
                                                              struct meed_safetensors **file);
void meed_safetensors_close(struct meed_safetensors *file); /* accepts NULL */
int64_t meed_safetensors_count(const struct meed_safetensors *file);
const struct meed_tensor *meed_safetensors_at(const struct meed_safetensors *file, int64_t idx);
/* NULL if absent. */
const struct meed_tensor *meed_safetensors_find(const struct meed_safetensors *file,
                                                const char *name);
/* Feeds every file, in name order, into a running hash: name, NUL, u64 size, bytes. */
void meed_safetensors_hash(const struct meed_safetensors *file, struct meed_sha256 *hash);
/* Value i as fp32 (F32, F16, BF16, F64). Bulk: out [count]. */
MEED_MUST_CHECK enum meed_status meed_tensor_to_f32(const struct meed_tensor *tensor, float *out);

/* The other way: count values rounded to nearest even into `out`, F32, F16, BF16 or F64. False,
 * with `out` half written, if one of them is not finite or would round to infinity. */
bool meed_tensor_round(const double *values, int64_t count, enum meed_tensor_dtype dtype,
                       void *out);

/* Serialises count tensors (name, dtype, shape, bytes, size set; any order) with the metadata pair
 * format = "pt", appending to buf. */
MEED_MUST_CHECK enum meed_status meed_safetensors_write(const struct meed_tensor *tensors,
                                                        int64_t count, struct meed_buf *buf);

MEED_END_C
#endif
