/* What ptxas says of every CUDA kernel: for both architectures, and without a spilled register.
 *
 * Goal: no kernel that keeps registers in memory reaches a release, and no source is left out of an
 * architecture. Method: the build keeps nvcc's words in the build folder, ptxas/STEM.log (see
 * kernels/cuda/cuda.cmake); this reads them all and prints the sums. The reader is itself held to a
 * planted spill. Without nvcc there are no logs and the test is skipped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <glob.h>
#include <stdio.h>
#include <string.h>
#include "base/file.h"

struct sums {
    int kernels[2]; /* of sm_80, of sm_90a */
    int spilled;
    int most_registers;
    int most_shared;
};

static int number_before(const char *line, const char *unit)
{
    const char *at = strstr(line, unit);
    while (at && at > line && at[-1] >= '0' && at[-1] <= '9') {
        at--;
    }
    int number = 0;
    return at && sscanf(at, "%d", &number) == 1 ? number : 0;
}

/* "… Compiling entry function 'f' for 'sm_80'", "… 4 bytes spill stores, 8 bytes spill loads",
 * "… Used 40 registers, … 128 bytes smem". */
static void log_read(const char *text, struct sums *sums)
{
    char line[4096];
    for (const char *at = text; *at;) {
        size_t length = strcspn(at, "\n");
        snprintf(line, sizeof line, "%.*s", (int)MEED_MIN(length, sizeof line - 1), at);
        at += length + (at[length] != '\0');
        if (strstr(line, "Compiling entry function")) {
            sums->kernels[0] += strstr(line, "'sm_80'") != NULL;
            sums->kernels[1] += strstr(line, "'sm_90a'") != NULL;
        }
        if (number_before(line, " bytes spill stores") > 0 ||
            number_before(line, " bytes spill loads") > 0) {
            sums->spilled++;
            print_error("spilled: %s\n", line);
        }
        sums->most_registers = MEED_MAX(sums->most_registers, number_before(line, " registers"));
        sums->most_shared = MEED_MAX(sums->most_shared, number_before(line, " bytes smem"));
    }
}

static bool holds_kernels(const char *path)
{
    struct meed_buf text;
    meed_buf_init(&text, 1 << 20);
    assert_int_equal(meed_file_read(path, &text), MEED_OK);
    bool found = strstr(text.data, "__global__") != NULL;
    meed_buf_clear(&text);
    return found;
}

static void ptxas_spills_nothing(void **state)
{
    (void)state;
    struct sums all = {{0, 0}, 0, 0, 0};
    glob_t sources;
    if (!meed_file_exists(MEED_BINARY_DIR "/ptxas")) {
        print_message("skipped: this build has no CUDA backend\n");
        skip();
    }
    assert_int_equal(glob(MEED_SOURCE_DIR "/kernels/cuda/*.cu", 0, NULL, &sources), 0);
    for (size_t i = 0; i < sources.gl_pathc; i++) {
        const char *stem = strrchr(sources.gl_pathv[i], '/') + 1;
        char path[MEED_PATH_BYTES];
        struct sums own = {{0, 0}, 0, 0, 0};
        struct meed_buf text;
        snprintf(path, sizeof path, "%s/ptxas/%.*s.log", MEED_BINARY_DIR, (int)strcspn(stem, "."),
                 stem);
        meed_buf_init(&text, 64 << 20);
        assert_int_equal(meed_file_read(path, &text), MEED_OK);
        log_read(text.size > 0 ? text.data : "", &own);
        meed_buf_clear(&text);
        assert_int_equal(own.kernels[0], own.kernels[1]);
        if (holds_kernels(sources.gl_pathv[i])) {
            assert_true(own.kernels[0] > 0);
        }
        print_message("%-22s %3d kernels, at most %3d registers, %6d bytes shared\n", stem,
                      own.kernels[0], own.most_registers, own.most_shared);
        all.kernels[0] += own.kernels[0];
        all.spilled += own.spilled;
    }
    globfree(&sources);
    print_message("ptxas: %d kernels for each of sm_80 and sm_90a, %d spilled\n", all.kernels[0],
                  all.spilled);
    assert_true(all.kernels[0] > 0);
    assert_int_equal(all.spilled, 0);
}

static void ptxas_reader_sees_a_planted_spill(void **state)
{
    (void)state;
    struct sums sums = {{0, 0}, 0, 0, 0};
    log_read("ptxas info    : Compiling entry function 'f' for 'sm_80'\n"
             "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
             "ptxas info    : Used 40 registers, used 1 barriers, 128 bytes smem\n",
             &sums);
    assert_int_equal(sums.spilled, 0);
    assert_int_equal(sums.kernels[0], 1);
    assert_int_equal(sums.most_registers, 40);
    assert_int_equal(sums.most_shared, 128);
    log_read("ptxas info    : Compiling entry function 'g' for 'sm_90a'\n"
             "    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads\n",
             &sums);
    assert_int_equal(sums.spilled, 1);
    assert_int_equal(sums.kernels[1], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ptxas_spills_nothing),
        cmocka_unit_test(ptxas_reader_sees_a_planted_spill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
