/* Where parity cases run: every instruction set of this processor, with one thread and with three.
 * The emulated CUDA backend has another list (tests/emu/parity_emu.c); a program links one of them.
 */
#include "tests/support/parity.h"

#include "base/threads.h"

enum { SECOND_THREADS = 3 };
static const char *const isas[] = {"avx512", "avx2", "generic"};

void parity_run_everywhere(parity_case_fn body, const char *op)
{
    int ran = 0;
    int64_t before = close_count();
    struct meed_pool *pool = NULL;
    assert_int_equal(meed_pool_create(SECOND_THREADS, &pool), MEED_OK);
    for (size_t i = 0; i < MEED_COUNT(isas); i++) {
        struct meed_backend *alone = NULL;
        struct meed_backend *pooled = NULL;
        if (meed_backend_open_cpu(NULL, isas[i], &alone) != MEED_OK) {
            printf("parity: %s skipped on %s: %s\n", op, isas[i], meed_last_error());
            continue;
        }
        assert_int_equal(meed_backend_open_cpu(pool, isas[i], &pooled), MEED_OK);
        struct meed_buf one;
        struct meed_buf many;
        parity_case_run(body, alone, &one);
        parity_case_run(body, pooled, &many);
        assert_int_equal(one.size, many.size);
        parity_same("one thread and three", one.data, many.data, one.size);
        meed_buf_clear(&one);
        meed_buf_clear(&many);
        meed_backend_close(alone);
        meed_backend_close(pooled);
        ran++;
    }
    meed_pool_destroy(pool);
    printf("parity: %s: %d instruction sets x 2 thread counts, %lld comparisons\n", op, ran,
           (long long)(close_count() - before));
    assert_true(ran > 0);
}
