/* The choice of a device by its name; everything behind it is a backend of its own. And what all of
 * them compute on the host alike. */
#include "kernels/backend.h"

#include <math.h>
#include <string.h>
#include "base/parse.h"
#include "kernels/cuda_plugin.h"

enum { MAX_DEVICES = 1024 };

/* "cpu": −1; "cuda": 0; "cuda:N": N. */
static enum meed_status device_parse(const char *device, int *cuda)
{
    int64_t number = 0;
    if (!device || strcmp(device, "cpu") == 0) {
        *cuda = -1;
        return MEED_OK;
    }
    if (strncmp(device, "cuda:", 5) == 0) {
        MEED_TRY(meed_parse_i64("--device cuda:N", device + 5, 0, MAX_DEVICES - 1, &number));
    } else if (strcmp(device, "cuda") != 0) {
        return MEED_FAIL(MEED_ARG, "--device %.32s; use cpu, cuda or cuda:N", device);
    }
    *cuda = (int)number;
    return MEED_OK;
}

enum meed_status meed_backend_check_device(const char *device)
{
    int cuda = 0;
    return device_parse(device, &cuda);
}

enum meed_status meed_backend_open(const char *device, struct meed_pool *pool,
                                   struct meed_backend **backend)
{
    int cuda = 0;
    MEED_TRY(device_parse(device, &cuda));
    return cuda < 0 ? meed_backend_open_cpu(pool, NULL, backend)
                    : meed_cuda_plugin_open(cuda, backend);
}

struct meed_adamw_step meed_adamw_step_make(float lr, float beta1, float beta2, float epsilon,
                                            float weight_decay, float clip_norm, int64_t t)
{
    MEED_ASSERT(t >= 1);
    struct meed_adamw_step step = {
        .beta1 = beta1,
        .beta2 = beta2,
        .epsilon = epsilon,
        .decay = lr * weight_decay,
        .rate = (float)((double)lr / (1.0 - pow((double)beta1, (double)t))),
        .correction = (float)(1.0 / sqrt(1.0 - pow((double)beta2, (double)t))),
        .clip_norm = clip_norm,
    };
    return step;
}
