/* The door to CUDA on machines that have none: words, missing driver, the library's own answers.
 *
 * Goal: whoever asks for a device that is not there hears so in one sentence with a documented exit
 * code, and the plug-in loads, resolves every name and speaks through the program's messages even
 * where nothing can run. Method: the API; the command line as a process; the library by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/file.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda_plugin.h"

extern char **environ;

#define LIBRARY MEED_BINARY_DIR "/libmeed_cuda.so"

static bool driver_here(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY);
    return driver != NULL;
}

static void device_words_are_checked(void **state)
{
    (void)state;
    static const char *const good[] = {"cpu", "cuda", "cuda:0", "cuda:7"};
    static const char *const bad[] = {"",        "gpu",       "cuda:", "cuda:x",
                                      "cuda:-1", "cuda:1024", "cuda0"};
    for (size_t i = 0; i < MEED_COUNT(good); i++) {
        assert_int_equal(meed_backend_check_device(good[i]), MEED_OK);
    }
    assert_int_equal(meed_backend_check_device(NULL), MEED_OK);
    for (size_t i = 0; i < MEED_COUNT(bad); i++) {
        assert_int_equal(meed_backend_check_device(bad[i]), MEED_ARG);
    }
    struct meed_backend *be = NULL;
    assert_int_equal(meed_backend_open("gpu", NULL, &be), MEED_ARG);
    assert_int_equal(meed_backend_open("cpu", NULL, &be), MEED_OK);
    assert_true(be->host_memory);
    meed_backend_close(be);
}

static void missing_driver_is_one_sentence(void **state)
{
    (void)state;
    struct meed_backend *be = NULL;
    if (driver_here()) {
        print_message("skipped: this machine has an NVIDIA driver\n");
        skip();
    }
    assert_int_equal(meed_backend_open("cuda", NULL, &be), MEED_DEVICE);
    assert_null(be);
    assert_non_null(strstr(meed_last_error(), "use --device cpu"));
    assert_null(strchr(meed_last_error(), '\n'));
}

/* Runs `meed train --device cuda` and keeps what it says on stderr. */
static int train_on_cuda(const char *log)
{
    char device[] = "cuda";
    char *argv[] = {"meed",    "train",   "--device",
                    device,    "--model", MEED_SOURCE_DIR "/examples/tiny/model",
                    "--data",  "nowhere", "--out",
                    "nowhere", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log, O_WRONLY | O_CREAT | O_TRUNC,
                                     0600);
    pid_t child = 0;
    int code = posix_spawn(&child, MEED_BINARY_DIR "/meed", &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    assert_int_equal(code, 0);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void train_without_a_device_exits_with_its_code(void **state)
{
    (void)state;
    char folder[] = "/tmp/meed-cuda-XXXXXX";
    char log[64];
    struct meed_buf text;
    if (driver_here()) {
        print_message("skipped: this machine has an NVIDIA driver\n");
        skip();
    }
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chdir(folder), 0);
    snprintf(log, sizeof log, "%s/stderr", folder);
    assert_int_equal(train_on_cuda(log), meed_status_exit_code(MEED_DEVICE));
    meed_buf_init(&text, 1 << 20);
    assert_int_equal(meed_file_read(log, &text), MEED_OK);
    assert_ptr_equal(strchr(text.data, '\n'), text.data + text.size - 1);
    assert_non_null(strstr(text.data, "use --device cpu"));
    meed_buf_clear(&text);
    unlink(log);
    rmdir("nowhere");
    rmdir(folder);
}

static void plugin_resolves_and_speaks(void **state)
{
    (void)state;
    if (!meed_file_exists(LIBRARY)) {
        print_message("skipped: this build has no CUDA backend\n");
        skip();
    }
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fail_msg("%s", dlerror());
    }
    void *symbol = dlsym(library, "meed_cuda_open");
    assert_non_null(symbol);
    meed_cuda_open_fn *open_device = NULL;
    memcpy(&open_device, &symbol, sizeof open_device);
    struct meed_backend *be = NULL;
    struct meed_cuda_caller stranger = {"0.0.0", sizeof *be};
    assert_int_equal(open_device(stranger, 0, &be), MEED_VERSION);
    assert_non_null(strstr(meed_last_error(), "0.0.0"));
    struct meed_cuda_caller caller = {MEED_RELEASE, sizeof *be};
    if (!driver_here()) {
        assert_int_equal(open_device(caller, 0, &be), MEED_DEVICE);
        assert_non_null(strstr(meed_last_error(), "use --device cpu"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_words_are_checked),
        cmocka_unit_test(missing_driver_is_one_sentence),
        cmocka_unit_test(train_without_a_device_exits_with_its_code),
        cmocka_unit_test(plugin_resolves_and_speaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
