/* Where the parity cases run when they are linked against the emulated CUDA backend: in every mode.
 *
 * The cases themselves are those of the CPU (tests/parity), built a second time: the same formulas
 * and shapes judge twin and kernel. A mode is an order of blocks and threads and a moment for
 * asynchronous copies to land (tests/emu/emu.h); what a case records must be the same bytes in all
 * of them, since on a device nobody chooses the mode.
 */
#include "tests/support/parity.h"

#include "kernels/cuda/cuda_backend.h"
#include "tests/emu/emu.h"

void parity_run_everywhere(parity_case_fn body, const char *op)
{
    struct meed_emu_mode modes[MEED_EMU_MODES];
    int count = meed_emu_mode_list(modes);
    int64_t before = close_count();
    struct meed_emu_count begun = meed_emu_counted();
    struct meed_buf first;
    assert_true(count > 0);
    for (int i = 0; i < count; i++) {
        struct meed_cuda_caller caller = {MEED_RELEASE, sizeof(struct meed_backend)};
        struct meed_backend *be = NULL;
        struct meed_buf record;
        meed_emu_mode_set(modes[i]);
        assert_int_equal(meed_cuda_open(caller, 0, &be), MEED_OK);
        parity_case_run(body, be, &record);
        assert_int_equal(be->sync(be), MEED_OK);
        meed_backend_close(be);
        if (i == 0) {
            first = record;
            continue;
        }
        char what[80];
        snprintf(what, sizeof what, "%s, seed %llu, %s copies, against the first mode", op,
                 (unsigned long long)modes[i].seed, modes[i].late ? "late" : "early");
        assert_int_equal(record.size, first.size);
        parity_same(what, record.data, first.data, first.size);
        meed_buf_clear(&record);
    }
    meed_buf_clear(&first);
    struct meed_emu_count ended = meed_emu_counted();
    printf("emulator: %s: %d modes, %lld comparisons, %lld launches, %lld threads, %lld copies, "
           "%lld products\n",
           op, count, (long long)(close_count() - before),
           (long long)(ended.launches - begun.launches), (long long)(ended.threads - begun.threads),
           (long long)(ended.copies - begun.copies), (long long)(ended.products - begun.products));
}
