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

/* Large shapes run in a few modes of each build, small ones in all: checkers cost 3 (ASan) and 50
 * (TSan) times, and bounds do not depend on the order of threads. */
static bool mode_is_small(const struct meed_emu_mode *mode)
{
    if (getenv("MEED_EMU_FULL")) {
        return false;
    }
    switch (meed_emu_checker()) {
    case MEED_EMU_PLAIN:
        return mode->seed >= 1;
    case MEED_EMU_ADDRESS:
        return mode->seed >= 1 || mode->late;
    case MEED_EMU_THREAD:
        return true;
    }
    return false;
}

static void compare(const char *op, const struct meed_emu_mode *mode, const struct meed_buf *record,
                    const struct meed_buf *first)
{
    char what[80];
    snprintf(what, sizeof what, "%s, seed %llu, %s copies, against the first mode", op,
             (unsigned long long)mode->seed, mode->late ? "late" : "early");
    assert_int_equal(record->size, first->size);
    parity_same(what, record->data, first->data, first->size);
}

void parity_run_everywhere(parity_case_fn body, const char *op)
{
    struct meed_emu_mode modes[MEED_EMU_MODES];
    int count = meed_emu_mode_list(modes);
    int64_t before = close_count();
    struct meed_emu_count begun = meed_emu_counted();
    struct meed_buf first[2]; /* of all shapes; of small ones */
    int ran[2] = {0, 0};
    assert_true(count > 0);
    for (int i = 0; i < count; i++) {
        if (i > 0 && mode_is_moot(&modes[i], &modes[0], begun)) {
            continue;
        }
        parity_small = mode_is_small(&modes[i]);
        struct meed_buf record = mode_run(body, modes[i]);
        if (ran[parity_small]++ == 0) {
            first[parity_small] = record;
        } else {
            compare(op, &modes[i], &record, &first[parity_small]);
            meed_buf_clear(&record);
        }
    }
    for (int i = 0; i < 2; i++) {
        if (ran[i] > 0) {
            meed_buf_clear(&first[i]);
        }
    }
    struct meed_emu_count ended = meed_emu_counted();
    printf("emulator: %s: %d modes, %d of small shapes only, %lld comparisons, %lld launches, %lld "
           "threads, %lld copies, %lld products\n",
           op, ran[0] + ran[1], ran[1], (long long)(close_count() - before),
           (long long)(ended.launches - begun.launches), (long long)(ended.threads - begun.threads),
           (long long)(ended.copies - begun.copies), (long long)(ended.products - begun.products));
}
