/* libmeed_cuda.so, opened when somebody asks for a CUDA device and not before.
 *
 * The library brings cuBLASLt with it, half a gigabyte and a second of start-up, so the program
 * must not be linked to it; and one program then serves machines with and without a GPU.
 */
#ifndef MEED_KERNELS_CUDA_PLUGIN_H
#define MEED_KERNELS_CUDA_PLUGIN_H

#include "kernels/backend.h"

MEED_BEGIN_C

/* Opens CUDA device `device`. DEVICE without a driver or such a device; UNSUPPORTED where the
 * library is missing or cannot be loaded; VERSION where it is of another build. */
MEED_MUST_CHECK enum meed_status meed_cuda_plugin_open(int device, struct meed_backend **backend);

MEED_END_C
#endif
