/* See symmetric.h. */
#include "engine/symmetric.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <lapacke.h>
#include "base/buf.h"

static void to_one_thread(void)
{
    void *symbol = dlsym(RTLD_DEFAULT, "openblas_set_num_threads");
    void (*set_threads)(int) = NULL;
    memcpy(&set_threads, &symbol, sizeof set_threads);
    if (set_threads) {
        set_threads(1);
    }
}

void meed_lapack_one_thread(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, to_one_thread);
}

static void sign_fix(double *vector, int32_t n)
{
    int32_t largest = 0;
    for (int32_t i = 1; i < n; i++) {
        largest = fabs(vector[i]) > fabs(vector[largest]) ? i : largest;
    }
    double sign = vector[largest] < 0.0 ? -1.0 : 1.0;
    for (int32_t i = 0; i < n; i++) {
        vector[i] *= sign;
    }
}

enum meed_status meed_symmetric_largest(int32_t n, double *matrix, int32_t wanted, double *values,
                                        double *vectors)
{
    enum meed_status st = MEED_OK;
    lapack_int found = 0, *support = NULL;
    double *rising = NULL, *columns = NULL;
    MEED_ASSERT(n >= 1 && wanted >= 1 && wanted <= n);
    for (int64_t i = 0; i < (int64_t)n * n; i++) {
        if (!isfinite(matrix[i])) {
            return MEED_FAIL(MEED_NUMERIC, "an entry of a symmetric matrix is not finite");
        }
    }
    meed_lapack_one_thread();
    support = meed_heap_alloc(2 * (size_t)wanted, sizeof *support);
    rising = meed_heap_alloc((size_t)n, sizeof *rising);
    columns = meed_heap_alloc((size_t)n * (size_t)wanted, sizeof *columns);
    if (!support || !rising || !columns) {
        st = MEED_NOMEM;
        goto out;
    }
    if (LAPACKE_dsyevr(LAPACK_COL_MAJOR, 'V', 'I', 'U', n, matrix, n, 0.0, 0.0, n - wanted + 1, n,
                       0.0, &found, rising, columns, n, support) != 0 ||
        found != wanted) {
        st = MEED_FAIL(MEED_NUMERIC, "the eigenvalues of a symmetric matrix did not converge");
        goto out;
    }
    for (int32_t i = 0; i < wanted; i++) {
        int32_t from = wanted - 1 - i;
        values[i] = rising[from];
        memcpy(vectors + (int64_t)i * n, columns + (int64_t)from * n, (size_t)n * sizeof *vectors);
        sign_fix(vectors + (int64_t)i * n, n);
    }
out:
    meed_heap_free(support);
    meed_heap_free(rising);
    meed_heap_free(columns);
    return st;
}
