/* The parity ladder's fixture: one case per op, run on every backend of this machine.
 *
 * A case is a function `parity_case_<op>(struct parity *)` that builds inputs, runs the op through
 * the backend table, and compares with a float64 formula written in the test. The list of a program
 * is built from kernels/ops.def: every op names its family in the table below, a family is one
 * file, and the file takes its ops by defining PARITY_<FAMILY>(name) as PARITY_RUN(name) before it
 * includes this header (and includes ops.def again in main). An op without a family, or without a
 * case in its family's file, does not build.
 *
 * Each case runs per instruction set with one thread and with three; what it hands to
 * parity_record must be the same bytes both times. Memory comes from the backend under test and is
 * freed after the case; columns between a view's width and its stride are filled with NaN patterns
 * and must come back untouched.
 */
#ifndef MEED_SUPPORT_PARITY_H
#define MEED_SUPPORT_PARITY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include "base/buf.h"
#include "base/rng.h"
#include "kernels/backend.h"
#include "tests/support/close.h"

enum { PARITY_BLOCKS = 1024 };

struct parity {
    const struct meed_backend *be;
    struct meed_rng rng;
    struct meed_buf record;
    int block_count;
    struct parity_block {
        void *memory;
        bool device;
        struct meed_mat view; /* data NULL where there is no view to check */
    } blocks[PARITY_BLOCKS];
};

typedef void (*parity_case_fn)(struct parity *p);
/* Set where a checker makes every step a hundred times slower: cases leave large shapes out. */
extern bool parity_small;
void parity_run_everywhere(parity_case_fn body, const char *op);
/* Runs a case on one backend; `record` takes what it handed to parity_record. */
void parity_case_run(parity_case_fn body, const struct meed_backend *be, struct meed_buf *record);

/* A matrix on the device with random values in (−scale, scale), stride = cols + pad. */
struct meed_mat parity_mat(struct parity *p, int64_t rows, int64_t cols, int64_t pad,
                           enum meed_dtype dtype, double scale);
/* The same bytes in fresh memory. */
struct meed_mat parity_copy(struct parity *p, struct meed_mat mat);
/* Values of a view, row by row, in float64. */
double *parity_values(struct parity *p, struct meed_mat mat);
/* Device vectors. */
float *parity_floats(struct parity *p, int64_t count, double scale);
double *parity_from_floats(struct parity *p, const float *device, int64_t count);
int32_t *parity_ints(struct parity *p, const int32_t *values, int64_t count);
/* Checks the padding of every matrix and frees all; a case with many shapes calls it in between. */
void parity_release(struct parity *p);
/* Zeroed host memory. */
double *parity_doubles(struct parity *p, int64_t count);
double parity_unit(struct parity *p); /* (−1, 1) */

/* Same bytes, or the test fails naming the first difference. */
void parity_same(const char *what, const void *a, const void *b, size_t bytes);
void parity_same_rows(struct parity *p, const char *what, struct meed_mat a, struct meed_mat b);
/* Remembers output for the comparison across thread counts. */
void parity_record(struct parity *p, struct meed_mat mat);
void parity_record_bytes(struct parity *p, const void *host, size_t bytes);
/* got against want [rows, cols]: fp32 by nmse_max, bf16 by factor. */
void parity_close(struct parity *p, const char *what, struct meed_mat got, const double *want,
                  double nmse_max, double bf16_factor);

#define PARITY_FAMILY_matmul PARITY_MATMUL
#define PARITY_FAMILY_embed PARITY_ROWS
#define PARITY_FAMILY_scatter PARITY_ROWS
#define PARITY_FAMILY_rmsnorm_fwd PARITY_RMSNORM
#define PARITY_FAMILY_rmsnorm_bwd PARITY_RMSNORM
#define PARITY_FAMILY_headnorm_fwd PARITY_RMSNORM
#define PARITY_FAMILY_headnorm_bwd PARITY_RMSNORM
#define PARITY_FAMILY_bias_add PARITY_ROWS
#define PARITY_FAMILY_rope PARITY_ROWS
#define PARITY_FAMILY_attention_fwd PARITY_ATTENTION
#define PARITY_FAMILY_attention_bwd PARITY_ATTENTION
#define PARITY_FAMILY_attention_decode PARITY_ATTENTION
#define PARITY_FAMILY_glu_fwd PARITY_GLU
#define PARITY_FAMILY_glu_bwd PARITY_GLU
#define PARITY_FAMILY_lora_down PARITY_LORA
#define PARITY_FAMILY_lora_pack PARITY_LORA
#define PARITY_FAMILY_lora_grad PARITY_LORA
#define PARITY_FAMILY_lora_gate_grad PARITY_LORA
#define PARITY_FAMILY_lora_merge PARITY_LORA
#define PARITY_FAMILY_xent PARITY_XENT
#define PARITY_FAMILY_top_k PARITY_SAMPLE
#define PARITY_FAMILY_sample PARITY_SAMPLE
#define PARITY_FAMILY_adamw PARITY_ADAMW
#define PARITY_FAMILY_sqnorm PARITY_ADAMW
#define PARITY_FAMILY_block_pack PARITY_BLOCKWISE
#define PARITY_FAMILY_block_unpack PARITY_BLOCKWISE

#define PARITY_RUN(name) PARITY_DO(name)
#ifndef PARITY_MATMUL
#define PARITY_MATMUL(name)
#endif
#ifndef PARITY_ROWS
#define PARITY_ROWS(name)
#endif
#ifndef PARITY_RMSNORM
#define PARITY_RMSNORM(name)
#endif
#ifndef PARITY_ATTENTION
#define PARITY_ATTENTION(name)
#endif
#ifndef PARITY_GLU
#define PARITY_GLU(name)
#endif
#ifndef PARITY_LORA
#define PARITY_LORA(name)
#endif
#ifndef PARITY_XENT
#define PARITY_XENT(name)
#endif
#ifndef PARITY_SAMPLE
#define PARITY_SAMPLE(name)
#endif
#ifndef PARITY_ADAMW
#define PARITY_ADAMW(name)
#endif
#ifndef PARITY_BLOCKWISE
#define PARITY_BLOCKWISE(name)
#endif

#define PARITY_DO(name)                                                                            \
    static void parity_case_##name(struct parity *p);                                              \
    static void name##_agrees_everywhere(void **state)                                             \
    {                                                                                              \
        (void)state;                                                                               \
        parity_run_everywhere(parity_case_##name, #name);                                          \
    }
#define MEED_OP(name, text) PARITY_FAMILY_##name(name)
#include "kernels/ops.def"
#undef MEED_OP
#undef PARITY_DO

/* The list of a family's tests: #include "kernels/ops.def" between these two. */
#define PARITY_DO(name) cmocka_unit_test(name##_agrees_everywhere),

#endif
