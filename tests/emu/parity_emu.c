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

static struct meed_buf mode_run(parity_case_fn body, struct meed_emu_mode mode)
{
    struct meed_cuda_caller caller = {MEED_RELEASE, sizeof(struct meed_backend)};
    struct meed_backend *be = NULL;
    struct meed_buf record;
    meed_emu_mode_set(mode);
    assert_int_equal(meed_cuda_open(caller, 0, &be), MEED_OK);
    parity_case_run(body, be, &record);
    assert_int_equal(be->sync(be), MEED_OK);
    meed_backend_close(be);
    return record;
}

/* A mode that cannot differ from the first: no kernel ran, or no copy was made that could be late.
 */
static bool mode_is_moot(const struct meed_emu_mode *mode, const struct meed_emu_mode *first,
                         struct meed_emu_count begun)
{
    struct meed_emu_count now = meed_emu_counted();
    return now.launches == begun.launches ||
           (mode->late != first->late && now.copies == begun.copies);
}

void parity_run_everywhere(parity_case_fn body, const char *op)
{
    struct meed_emu_mode modes[MEED_EMU_MODES];
    int count = meed_emu_mode_list(modes);
    int ran = 1;
    int64_t before = close_count();
    struct meed_emu_count begun = meed_emu_counted();
    assert_true(count > 0);
    struct meed_buf first = mode_run(body, modes[0]);
    for (int i = 1; i < count; i++) {
        if (mode_is_moot(&modes[i], &modes[0], begun)) {
            continue;
        }
        struct meed_buf record = mode_run(body, modes[i]);
        char what[80];
        snprintf(what, sizeof what, "%s, seed %llu, %s copies, against the first mode", op,
                 (unsigned long long)modes[i].seed, modes[i].late ? "late" : "early");
        assert_int_equal(record.size, first.size);
        parity_same(what, record.data, first.data, first.size);
        meed_buf_clear(&record);
        ran++;
    }
    meed_buf_clear(&first);
    struct meed_emu_count ended = meed_emu_counted();
    printf("emulator: %s: %d modes, %lld comparisons, %lld launches, %lld threads, %lld copies, "
           "%lld products\n",
           op, ran, (long long)(close_count() - before),
           (long long)(ended.launches - begun.launches), (long long)(ended.threads - begun.threads),
           (long long)(ended.copies - begun.copies), (long long)(ended.products - begun.products));
}
