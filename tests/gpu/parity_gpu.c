/* Where the parity cases run when a GPU is at hand: on device 0, twice.
 *
 * The same formulas and shapes that judge the twins and the emulated kernels judge the hardware;
 * the second run must leave the same bytes, since a schedule that changes a sum shows here first.
 */
#include "tests/support/parity.h"

void parity_run_everywhere(parity_case_fn body, const char *op)
{
    struct meed_buf records[2];
    int64_t before = close_count();
    parity_small = getenv("MEED_GPU_SMALL") != NULL; /* under compute-sanitizer */
    for (int run = 0; run < 2; run++) {
        struct meed_backend *be = NULL;
        if (meed_backend_open("cuda", NULL, &be) != MEED_OK) {
            fail_msg("%s", meed_last_error());
        }
        parity_case_run(body, be, &records[run]);
        assert_int_equal(be->sync(be), MEED_OK);
        meed_backend_close(be);
    }
    assert_int_equal(records[0].size, records[1].size);
    parity_same("two runs on the GPU", records[0].data, records[1].data, records[0].size);
    meed_buf_clear(&records[0]);
    meed_buf_clear(&records[1]);
    printf("gpu: %s: 2 runs, %lld comparisons\n", op, (long long)(close_count() - before));
}
