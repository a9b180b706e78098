/* See worker_control.h. */
#include "client/worker_control.h"

#include <string.h>
#include "base/log.h"
#include "client/compress.h"

enum meed_status meed_worker_control_take(struct meed_worker_control *control,
                                          const struct meed_buf *bytes)
{
    meed_heap_free(control->server);
    control->server = NULL;
    control->server_count = (int64_t)(bytes->size / sizeof(float));
    if (bytes->size == 0) {
        return MEED_OK;
    }
    if (bytes->size % sizeof(float) != 0) {
        return MEED_FAIL(MEED_FORMAT, "the server's control variate has %zu bytes", bytes->size);
    }
    control->server = meed_heap_alloc((size_t)control->server_count, sizeof(float));
    if (!control->server) {
        return MEED_NOMEM;
    }
    memcpy(control->server, bytes->data, bytes->size);
    return MEED_OK;
}

enum meed_status meed_worker_control_open(struct meed_worker_control *control, int64_t count,
                                          const char *path, int32_t round)
{
    float **vectors[] = {&control->own, &control->correction, &control->change, &control->sent};
    control->count = count;
    if (control->server && control->server_count != count) {
        return MEED_FAIL(MEED_FORMAT,
                         "the server's control variate has %lld values, the adapter "
                         "%lld",
                         (long long)control->server_count, (long long)count);
    }
    for (size_t i = 0; i < MEED_COUNT(vectors); i++) {
        *vectors[i] = meed_heap_alloc((size_t)count, sizeof(float));
        if (!*vectors[i]) {
            return MEED_NOMEM;
        }
    }
    enum meed_status st = path[0] ? meed_compress_load(path, count, control->own) : MEED_OK;
    if (st == MEED_NOT_FOUND || st == MEED_INTEGRITY) {
        MEED_LOG_WARN("client", "round %d starts with a control variate of zero: %s", round,
                      meed_last_error());
        memset(control->own, 0, (size_t)count * sizeof(float));
        st = MEED_OK;
    }
    for (int64_t i = 0; i < count; i++) {
        control->correction[i] = (control->server ? control->server[i] : 0.0f) - control->own[i];
    }
    return st;
}

void meed_worker_control_change(struct meed_worker_control *control)
{
    for (int64_t i = 0; i < control->count; i++) {
        control->change[i] -= control->own[i];
    }
}

enum meed_status meed_worker_control_save(const struct meed_worker_control *control,
                                          const char *path)
{
    float *next = meed_heap_alloc((size_t)control->count, sizeof *next);
    if (!next) {
        return MEED_NOMEM;
    }
    for (int64_t i = 0; i < control->count; i++) {
        next[i] = control->own[i] + control->sent[i];
    }
    enum meed_status st = meed_compress_save(next, control->count, path);
    meed_heap_free(next);
    return st;
}

void meed_worker_control_clear(struct meed_worker_control *control)
{
    meed_heap_free(control->server);
    meed_heap_free(control->own);
    meed_heap_free(control->correction);
    meed_heap_free(control->change);
    meed_heap_free(control->sent);
    *control = (struct meed_worker_control){.count = 0};
}
