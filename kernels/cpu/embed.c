/* Rows gathered from a table, and rows scattered back. Pure copies, so bits are the source's; a
 * scale multiplies in fp32 and rounds once. */
#include "kernels/cpu/isa.h"

#include <string.h>
#include "base/threads.h"
#include "kernels/cpu/vec.h"

enum { GRAIN_ROWS = 64 };

struct job {
    struct meed_mat from;
    struct meed_mat to;
    const int32_t *ids;
    bool gather;
    float scale; /* 1 where rows are copied */
};

static void rows_copy(void *user, int64_t begin, int64_t end, int worker_idx)
{
    (void)worker_idx;
    const struct job *job = user;
    bool copies = job->from.dtype == job->to.dtype && !(job->scale < 1.0f || job->scale > 1.0f);
    for (int64_t m = begin; m < end; m++) {
        int64_t id = job->ids[m];
        MEED_ASSERT(id >= 0 && id < (job->gather ? job->from.rows : job->to.rows));
        int64_t source = (job->gather ? id : m) * job->from.stride;
        int64_t target = (job->gather ? m : id) * job->to.stride;
        if (copies) {
            size_t size = meed_dtype_bytes(job->from.dtype);
            memcpy((char *)job->to.data + (size_t)target * size,
                   (const char *)job->from.data + (size_t)source * size,
                   (size_t)job->from.cols * size);
            continue;
        }
        for (int64_t k = 0; k < job->from.cols; k += VL) {
            int64_t lanes = job->from.cols - k;
            vf_put_n(job->to.data, target + k, job->to.dtype, lanes,
                     vf_get_n(job->from.data, source + k, job->from.dtype, lanes) * job->scale);
        }
    }
}

void MEED_TWIN(embed)(const struct meed_backend *be, struct meed_mat table, float scale,
                      const int32_t *ids, struct meed_mat out)
{
    MEED_ASSERT(table.cols == out.cols);
    struct job job = {table, out, ids, true, scale};
    meed_pool_for(be->pool, out.rows, GRAIN_ROWS, rows_copy, &job);
}

void MEED_TWIN(scatter)(const struct meed_backend *be, struct meed_mat in, const int32_t *ids,
                        struct meed_mat out)
{
    MEED_ASSERT(in.cols == out.cols);
    struct job job = {in, out, ids, false, 1.0f};
    meed_pool_for(be->pool, in.rows, GRAIN_ROWS, rows_copy, &job);
}
