/* Adapters as whole matrices in float64: what tests of merging compare with. */
#ifndef MEED_SUPPORT_DENSE_UPDATE_H
#define MEED_SUPPORT_DENSE_UPDATE_H

#include "engine/adapter.h"

/* Entries of all modules' N × K matrices together. */
int64_t dense_count(const struct meed_adapter *adapter);
/* dense [dense_count] += weight · s·B·A, module by module. */
void dense_add(const struct meed_adapter *adapter, double weight, double *dense);
/* heap, zero; aborts without memory. */
double *dense_new(const struct meed_adapter *adapter);
double dense_dot(const double *x, const double *y, int64_t count);
/* One-sided Jacobi: x [rows, cols] becomes x·V with orthogonal columns (its singular values are
 * their lengths) and v, unless NULL, V [cols, cols]. */
void dense_decompose(double *x, int64_t rows, int64_t cols, double *v);
/* x [rows, cols] becomes its nearest matrix of rank `rank`. */
void dense_cut(double *x, int64_t rows, int64_t cols, int64_t rank);

/* Hidden 12, ffn 20, 2 layers: q is 16 × 12, up 20 × 12. */
struct meed_model_config dense_model(void);
/* q and up of that model, scale 2. Factors are normals times `size`, or with `whole` integers in
 * ±3. */
struct meed_adapter *dense_adapter(int32_t rank, uint64_t seed, double size, bool whole);
/* The same values in a changed place: ranks [0, front) of every module drawn anew. factors:
 * MEED_FACTOR_A | MEED_FACTOR_B of what changes. */
struct meed_adapter *dense_changed(const struct meed_adapter *from, int64_t front, uint64_t seed,
                                   double size, bool whole, uint32_t factors);

#endif
