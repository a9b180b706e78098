/* See cuda_plugin.h.
 *
 * The driver's own library is looked for first: where it is missing nothing else can help, and the
 * answer comes in a millisecond instead of after cuBLASLt. The plug-in lies beside the program, or
 * where an installation or the tests' folder puts it; the loader's path is the last resort. It is
 * never closed again, because the CUDA runtime does not survive that.
 *
 * The plug-in takes what it needs of base/ (meed_fail and the heap) from the program, so a
 * failure's message is the program's: the names are exported where meed_kernels is linked
 * (kernels/cuda/cuda.cmake).
 */
#include "kernels/cuda_plugin.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "kernels/cuda/cuda_backend.h"

#define PLUGIN_NAME "libmeed_cuda.so"
#define DRIVER_NAME "libcuda.so.1"

static const char *const folders[] = {"", "../lib/", "../"}; /* from the program's own */

/* The plug-in's path, or "" where no folder has it. */
static void plugin_find(char path[MEED_PATH_BYTES])
{
    char program[MEED_PATH_BYTES];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    program[MEED_MAX(length, 0)] = '\0';
    char *slash = strrchr(program, '/');
    if (slash) {
        slash[1] = '\0';
    }
    for (size_t i = 0; slash && i < MEED_COUNT(folders); i++) {
        int written = snprintf(path, MEED_PATH_BYTES, "%s%s%s", program, folders[i], PLUGIN_NAME);
        if (written < MEED_PATH_BYTES && meed_file_exists(path)) {
            return;
        }
    }
    path[0] = '\0';
}

static enum meed_status check_driver(void)
{
    void *driver = dlopen(DRIVER_NAME, RTLD_LAZY | RTLD_LOCAL);
    if (!driver) {
        return MEED_FAIL(MEED_DEVICE, "no NVIDIA driver on this machine (%s); use --device cpu",
                         DRIVER_NAME);
    }
    dlclose(driver);
    return MEED_OK;
}

static enum meed_status plugin_load(void **library)
{
    char path[MEED_PATH_BYTES];
    plugin_find(path);
    *library = dlopen(path[0] ? path : PLUGIN_NAME, RTLD_NOW | RTLD_LOCAL);
    if (*library) {
        return MEED_OK;
    }
    const char *reason = dlerror();
    return MEED_FAIL(MEED_UNSUPPORTED,
                     "this program has no CUDA backend (%s); build it where nvcc is installed, or "
                     "use --device cpu",
                     reason ? reason : PLUGIN_NAME);
}

enum meed_status meed_cuda_plugin_open(int device, struct meed_backend **backend)
{
    void *library = NULL;
    MEED_TRY(check_driver());
    MEED_TRY(plugin_load(&library));
    void *symbol = dlsym(library, "meed_cuda_open");
    if (!symbol) {
        return MEED_FAIL(MEED_VERSION, "%s is not of this release; install both from one build",
                         PLUGIN_NAME);
    }
    meed_cuda_open_fn *open = NULL;
    memcpy(&open, &symbol, sizeof open); /* C has no cast from object to function pointer */
    struct meed_cuda_caller caller = {MEED_RELEASE, sizeof **backend};
    return open(caller, device, backend);
}
