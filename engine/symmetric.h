/* The largest eigenvalues of a symmetric matrix and their vectors, by LAPACK.
 *
 * A threaded BLAS behind LAPACK (OpenBLAS) may change the order of sums with its thread count, and
 * results here decide about pay: everybody who calls LAPACK sets it to one thread first.
 */
#ifndef MEED_ENGINE_SYMMETRIC_H
#define MEED_ENGINE_SYMMETRIC_H

#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

/* The `wanted` largest, falling: values [wanted], vectors [wanted, n] of unit length, each with the
 * sign that makes its largest entry positive (the first of equals). matrix [n, n] is destroyed.
 * 1 ≤ wanted ≤ n. NUMERIC where an entry is not finite or nothing converges. */
MEED_MUST_CHECK enum meed_status meed_symmetric_largest(int32_t n, double *matrix, int32_t wanted,
                                                        double *values, double *vectors);

/* Once a process, from any thread; does nothing where BLAS has no threads. */
void meed_lapack_one_thread(void);

MEED_END_C
#endif
