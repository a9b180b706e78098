/* The writing half of safetensors.h: equal tensors give equal bytes.
 *
 *   u64 N | {"__metadata__":{"format":"pt"},"NAME":{"dtype":…,"shape":…,"data_offsets":…},…} spaces
 *   | data
 *
 * Tensors stand by falling dtype size, then by name, as the reference library writes them: each
 * is aligned to its dtype without padding, because N is padded to a multiple of eight. The header
 * is printed here rather than through jansson since names are checked to need no escape. */
#include "engine/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "kernels/types.h"

static const struct {
    const char *name;
    size_t bytes;
} written[] = {
    [MEED_TENSOR_F32] = {"F32", 4},
    [MEED_TENSOR_F16] = {"F16", 2},
    [MEED_TENSOR_BF16] = {"BF16", 2},
    [MEED_TENSOR_F64] = {"F64", 8},
};

static int compare_written(const void *x, const void *y)
{
    const struct meed_tensor *a = *(const struct meed_tensor *const *)x;
    const struct meed_tensor *b = *(const struct meed_tensor *const *)y;
    size_t a_bytes = written[a->dtype].bytes, b_bytes = written[b->dtype].bytes;
    if (a_bytes != b_bytes) {
        return a_bytes > b_bytes ? -1 : 1;
    }
    return strcmp(a->name, b->name);
}

static enum meed_status check_tensor(const struct meed_tensor *tensor)
{
    if ((size_t)tensor->dtype >= MEED_COUNT(written)) {
        return MEED_FAIL(MEED_UNSUPPORTED,
                         "tensor '%.128s' cannot be written: only F32, F16, BF16 "
                         "and F64 can",
                         tensor->name);
    }
    for (const char *c = tensor->name; *c; c++) {
        if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\') {
            return MEED_FAIL(MEED_ARG, "tensor name '%.128s' holds a character beyond plain ASCII",
                             tensor->name);
        }
    }
    int64_t count = 1;
    for (int32_t i = 0; i < tensor->dims; i++) {
        count *= tensor->shape[i];
    }
    MEED_ASSERT(tensor->dims <= MEED_TENSOR_MAX_DIMS);
    MEED_ASSERT(tensor->size == (size_t)count * written[tensor->dtype].bytes);
    return MEED_OK;
}

static enum meed_status print_entry(const struct meed_tensor *tensor, size_t begin,
                                    struct meed_buf *header)
{
    MEED_TRY(meed_buf_printf(header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", tensor->name,
                             written[tensor->dtype].name));
    for (int32_t i = 0; i < tensor->dims; i++) {
        MEED_TRY(meed_buf_printf(header, "%s%lld", i ? "," : "", (long long)tensor->shape[i]));
    }
    return meed_buf_printf(header, "],\"data_offsets\":[%zu,%zu]}", begin, begin + tensor->size);
}

static enum meed_status print_header(const struct meed_tensor *const *order, int64_t count,
                                     struct meed_buf *header)
{
    size_t begin = 0;
    MEED_TRY(meed_buf_printf(header, "{\"__metadata__\":{\"format\":\"pt\"}"));
    for (int64_t i = 0; i < count; i++) {
        if (i > 0 && strcmp(order[i - 1]->name, order[i]->name) == 0) {
            return MEED_FAIL(MEED_ARG, "tensor '%.128s' is given twice", order[i]->name);
        }
        MEED_TRY(print_entry(order[i], begin, header));
        begin += order[i]->size;
    }
    MEED_TRY(meed_buf_append(header, "}", 1));
    while (header->size % 8 != 0) {
        MEED_TRY(meed_buf_append(header, " ", 1));
    }
    return MEED_OK;
}

enum meed_status meed_safetensors_write(const struct meed_tensor *tensors, int64_t count,
                                        struct meed_buf *buf)
{
    enum meed_status st = MEED_OK;
    struct meed_buf header;
    size_t before = buf->size;
    meed_buf_init(&header, 100 << 20);
    const struct meed_tensor **order =
        meed_heap_alloc((size_t)MEED_MAX(count, (int64_t)1), sizeof(struct meed_tensor *));
    if (!order) {
        return MEED_NOMEM;
    }
    for (int64_t i = 0; i < count; i++) {
        MEED_TRY_OUT(check_tensor(&tensors[i]));
        order[i] = &tensors[i];
    }
    qsort(order, (size_t)count, sizeof *order, compare_written);
    MEED_TRY_OUT(print_header(order, count, &header));
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++) {
        prefix[i] = (unsigned char)((uint64_t)header.size >> (8 * i));
    }
    MEED_TRY_OUT(meed_buf_append(buf, prefix, sizeof prefix));
    MEED_TRY_OUT(meed_buf_append(buf, header.data, header.size));
    for (int64_t i = 0; i < count; i++) {
        MEED_TRY_OUT(meed_buf_append(buf, order[i]->bytes, order[i]->size));
    }
out:
    if (st != MEED_OK) {
        buf->size = before;
    }
    meed_heap_free(order);
    meed_buf_clear(&header);
    return st;
}

/* A finite number to the nearest with `bits` significant bits whose last is worth 2^lowest or more:
 * rounded once, where a way over fp32 would round twice. */
static double round_to(double number, int bits, int lowest)
{
    int exponent = 0;
    frexp(number, &exponent); /* |number| < 2^exponent */
    int last = MEED_MAX(exponent - bits, lowest);
    return ldexp(rint(ldexp(number, -last)), last);
}

/* Bits of a half-precision number that `number` is exactly. */
static uint16_t half_bits(double number)
{
    int exponent = 0;
    double fraction = frexp(fabs(number), &exponent); /* in [1/2, 1) */
    uint16_t sign = signbit(number) ? 0x8000u : 0;
    if (number == 0 || exponent < -13) {
        return (uint16_t)(sign | (uint16_t)(fabs(number) * 0x1p24));
    }
    int mantissa = (int)(fraction * 2048) - 1024;
    return (uint16_t)(sign | (exponent + 14) << 10 | mantissa);
}

bool meed_tensor_round(const double *values, int64_t count, enum meed_tensor_dtype dtype, void *out)
{
    static const double largest[] = {[MEED_TENSOR_F32] = 0x1.fffffep127,
                                     [MEED_TENSOR_F16] = 65504.0,
                                     [MEED_TENSOR_BF16] = 0x1.fep127,
                                     [MEED_TENSOR_F64] = 0x1.fffffffffffffp1023};
    MEED_ASSERT((size_t)dtype < MEED_COUNT(largest));
    for (int64_t i = 0; i < count; i++) {
        double number = values[i];
        if (dtype == MEED_TENSOR_F16 || dtype == MEED_TENSOR_BF16) {
            bool half = dtype == MEED_TENSOR_F16;
            number = isfinite(number) ? round_to(number, half ? 11 : 8, half ? -24 : -133) : number;
        } else if (dtype == MEED_TENSOR_F32) {
            number = (double)(float)number;
        }
        if (!(fabs(number) <= largest[dtype])) {
            return false;
        }
        if (dtype == MEED_TENSOR_F64) {
            ((double *)out)[i] = number;
        } else if (dtype == MEED_TENSOR_F32) {
            ((float *)out)[i] = (float)number;
        } else {
            ((uint16_t *)out)[i] =
                dtype == MEED_TENSOR_F16 ? half_bits(number) : meed_bf16_from_f32((float)number);
        }
    }
    return true;
}
