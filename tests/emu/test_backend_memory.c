/* Memory and refusals of the CUDA backend (kernels/cuda/cuda_backend.cu) on the emulated device.
 *
 * Goal: no room on the device is an ordinary status that names the setting to lower, and the
 * backend goes on; new memory is zero; strangers and devices that are not there are refused with a
 * sentence. Method: the table's own functions, asked for too much and for too little.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "kernels/cuda/cuda_backend.h"
#include "tests/emu/emu.h"

static const struct meed_cuda_caller self = {MEED_RELEASE, sizeof(struct meed_backend)};

static void backend_survives_a_full_device(void **state)
{
    (void)state;
    struct meed_backend *be = NULL;
    void *block = NULL;
    if (meed_emu_checker() != MEED_EMU_PLAIN) {
        print_message("skipped: a sanitizer's allocator ends the process instead\n");
        skip();
    }
    assert_int_equal(meed_cuda_open(self, 0, &be), MEED_OK);
    assert_int_equal(be->alloc(be, (size_t)1 << 60, &block), MEED_DEVICE_NOMEM);
    assert_null(block);
    assert_non_null(strstr(meed_last_error(), "1152921504606846976 bytes"));
    assert_non_null(strstr(meed_last_error(), "lower batch-tokens"));
    assert_int_equal(be->sync(be), MEED_OK);
    assert_int_equal(be->alloc(be, 4096, &block), MEED_OK);
    be->free(be, block);
    meed_backend_close(be);
}

static void backend_memory_is_zero_and_copies(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 4097};
    unsigned char host[4097];
    unsigned char back[4097];
    struct meed_backend *be = NULL;
    assert_int_equal(meed_cuda_open(self, 0, &be), MEED_OK);
    assert_false(be->host_memory);
    for (size_t i = 0; i < MEED_COUNT(sizes); i++) {
        void *block = NULL;
        memset(host, 0, sizeof host);
        memset(back, 1, sizeof back);
        assert_int_equal(be->alloc(be, sizes[i], &block), MEED_OK);
        assert_int_equal((uintptr_t)block % 64, 0);
        assert_int_equal(be->copy_from(be, back, block, sizes[i]), MEED_OK);
        assert_int_equal(be->sync(be), MEED_OK);
        assert_memory_equal(back, host, sizes[i]);
        memset(host, 7, sizeof host);
        assert_int_equal(be->copy_to(be, block, host, sizes[i]), MEED_OK);
        be->zero(be, block, sizes[i] / 2);
        memset(host, 0, sizes[i] / 2);
        assert_int_equal(be->copy_from(be, back, block, sizes[i]), MEED_OK);
        assert_int_equal(be->sync(be), MEED_OK);
        assert_memory_equal(back, host, sizes[i]);
        be->free(be, block);
    }
    be->free(be, NULL);
    meed_backend_close(be);
}

static void backend_refuses_strangers(void **state)
{
    (void)state;
    struct meed_backend *be = NULL;
    struct meed_cuda_caller older = {"0.0.0", self.backend_bytes};
    struct meed_cuda_caller wider = {self.release, self.backend_bytes + 8};
    assert_int_equal(meed_cuda_open(older, 0, &be), MEED_VERSION);
    assert_int_equal(meed_cuda_open(wider, 0, &be), MEED_VERSION);
    assert_int_equal(meed_cuda_open(self, 1, &be), MEED_DEVICE);
    assert_non_null(strstr(meed_last_error(), "use --device cpu"));
    assert_int_equal(meed_cuda_open(self, -1, &be), MEED_DEVICE);
    assert_null(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backend_survives_a_full_device),
        cmocka_unit_test(backend_memory_is_zero_and_copies),
        cmocka_unit_test(backend_refuses_strangers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
