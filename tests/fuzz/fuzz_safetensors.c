/* libFuzzer target: safetensors headers.
 *
 * Two bytes give the header's length, the rest is header and data, so that mutations reach the JSON
 * instead of the eight bytes in front of it; with the top bit set the input is the file as it is.
 * Whatever is accepted is read to its last byte (ASan sees a tensor that leaves the map), is found
 * by its name, and is written again to a file that opens with the same tensors.
 */
#include <stdbool.h>
#include <string.h>

#include "engine/safetensors.h"
#include "tests/fuzz/memory_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct memory_file file;

static void fuzz_fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, meed_last_error());
    abort();
}

/* Every byte is inside the map; true if the writer takes it: a dtype it knows, a plain name. */
static bool read_through(const struct meed_safetensors *tensors, const struct meed_tensor *tensor)
{
    const volatile uint8_t *bytes = tensor->bytes;
    unsigned sum = 0;
    for (size_t i = 0; i < tensor->size; i++) {
        sum += bytes[i];
    }
    (void)sum;
    int64_t count = 1;
    for (int32_t d = 0; d < tensor->dims; d++) {
        count *= tensor->shape[d];
    }
    if (count != tensor->count || meed_safetensors_find(tensors, tensor->name) != tensor) {
        fuzz_fail("a tensor that is not what its header says");
    }
    if (tensor->dtype == MEED_TENSOR_OTHER) {
        return false;
    }
    float *values = malloc((size_t)count * sizeof *values + 1);
    if (!values || meed_tensor_to_f32(tensor, values) != MEED_OK) {
        fuzz_fail("a tensor that cannot be read");
    }
    free(values);
    for (const char *c = tensor->name; *c; c++) {
        if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\') {
            return false;
        }
    }
    return true;
}

static void write_again(const struct meed_safetensors *tensors)
{
    int64_t count = meed_safetensors_count(tensors);
    struct meed_tensor *copies = malloc((size_t)count * sizeof *copies + 1);
    bool writable = true;
    for (int64_t i = 0; i < count; i++) {
        copies[i] = *meed_safetensors_at(tensors, i);
        writable = read_through(tensors, meed_safetensors_at(tensors, i)) && writable;
    }
    if (writable) {
        struct meed_buf bytes;
        struct memory_file second = {0, ""};
        struct meed_safetensors *again = NULL;
        meed_buf_init(&bytes, 1 << 24);
        if (meed_safetensors_write(copies, count, &bytes) != MEED_OK ||
            meed_safetensors_open(memory_file_put(&second, bytes.data, bytes.size), &again) !=
                MEED_OK ||
            meed_safetensors_count(again) != count) {
            fuzz_fail("read, but not written again");
        }
        meed_safetensors_close(again);
        meed_buf_clear(&bytes);
        close(second.fd);
    }
    free(copies);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    uint8_t *bytes = malloc(size + 8);
    size_t file_size = size - 2;
    if (data[1] & 0x80) {
        memcpy(bytes, data + 2, file_size);
    } else {
        uint64_t header = (uint64_t)(data[0] | data[1] << 8);
        memcpy(bytes, &header, 8);
        memcpy(bytes + 8, data + 2, file_size);
        file_size += 8;
    }
    struct meed_safetensors *tensors = NULL;
    if (meed_safetensors_open(memory_file_put(&file, bytes, file_size), &tensors) == MEED_OK) {
        write_again(tensors);
        meed_safetensors_close(tensors);
    }
    free(bytes);
    return 0;
}
