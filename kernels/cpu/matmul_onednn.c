/* See matmul_onednn.h. */
#include "kernels/cpu/matmul_onednn.h"

#include "base/buf.h"

struct meed_matmul_onednn {
    int packed_count;
};

enum meed_status meed_matmul_onednn_create(struct meed_matmul_onednn **state)
{
    *state = meed_heap_alloc(1, sizeof **state);
    return *state ? MEED_OK : MEED_NOMEM;
}
void meed_matmul_onednn_destroy(struct meed_matmul_onednn *state)
{
    meed_heap_free(state);
}
void meed_matmul_onednn_forget(struct meed_matmul_onednn *state, const void *address)
{
    (void)state;
    (void)address;
}
bool meed_matmul_onednn_run(struct meed_pool *pool, struct meed_matmul_onednn *state,
                            enum meed_matmul_kind kind, struct meed_mat a, struct meed_mat b,
                            bool accumulate, struct meed_mat c)
{
    (void)pool;
    (void)state;
    (void)kind;
    (void)a;
    (void)b;
    (void)accumulate;
    (void)c;
    return false;
}
