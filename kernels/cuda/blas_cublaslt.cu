/* The dense product through cuBLASLt, with the algorithm pinned per weight shape.
 *
 * Left to itself cuBLASLt picks a kernel per call, by M among others; then a row's bits change with
 * the batch around it, and v(S) with the coalitions scored beside S. So a plan is made once per
 * (kind, N, K, types, strides, alignment), for REFERENCE_ROWS rows, and serves every M. What makes
 * a row's bits its own under a fixed kernel:
 *   - no reduction across blocks: the split of K is 1, the reduction scheme is NONE, and no
 *     workspace is offered, without which neither split-K nor stream-K has a place for partial
 *     sums. An element of C is then one block's walk along K, in the order of the kernel;
 *   - the tile that a row falls in changes with M, the walk along K does not.
 * fp32 is COMPUTE_32F: no TF32, since fp32 is the oracle's path.
 *
 * Alignment belongs to the key because kernels with 16-byte loads exist for aligned operands only;
 * it is taken from pointer *and* stride, so a row alone gets the plan of its batch. The count of
 * rows and beta do not.
 *
 * Row-major C = A·Bᵀ is column-major Cᵀ = B·Aᵀ: the weight is cuBLASLt's A, and M its n.
 *
 * A plan costs a heuristic query (host, tens of microseconds); descriptors are values on the
 * stack. Plans live in a table of PLAN_COUNT slots by hash, and a colliding plan replaces the old
 * one: the heuristic is a function of the key, so bits do not depend on who came first.
 *
 * Limit: one plan for all M means that decoding at M = 1 runs a tile made for many rows and leaves
 * multiprocessors idle where N is small. A second class of kernels for small M would need the proof
 * that both walk K alike. What refusing all workspace costs is not measured either.
 */
#include "kernels/cuda/blas.h"

#include <cublasLt.h>
#include <string.h>
#include "base/buf.h"

static constexpr uint64_t REFERENCE_ROWS = 4096;
static constexpr int PLAN_COUNT = 256;
static constexpr int CANDIDATES = 16;
static constexpr uint32_t BEST_ALIGNMENT = 16;

struct plan_key {
    int64_t n;
    int64_t k;
    int64_t strides[3]; /* elements, of A, B, C */
    uint32_t kind;
    uint32_t in;
    uint32_t out;
    uint32_t alignment[3]; /* bytes */
};

struct plan {
    bool made;
    bool usable; /* there is an algorithm that keeps the laws */
    struct plan_key key;
    cublasLtMatmulAlgo_t algorithm;
};

struct meed_cuda_blas {
    cublasLtHandle_t handle;
    struct plan plans[PLAN_COUNT];
};

/* Everything a call describes to cuBLASLt; `weight` is its A, `rows` its B. */
struct request {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t weight;
    cublasLtMatrixLayoutOpaque_t rows;
    cublasLtMatrixLayoutOpaque_t result;
};

static enum meed_status blas_status(cublasStatus_t status, const char *what)
{
    if (status == CUBLAS_STATUS_SUCCESS) {
        return MEED_OK;
    }
    enum meed_status st = status == CUBLAS_STATUS_ALLOC_FAILED ? MEED_DEVICE_NOMEM : MEED_DEVICE;
    return MEED_FAIL(st, "matmul: %s: %s", what, cublasLtGetStatusString(status));
}

enum meed_status meed_cuda_blas_create(struct meed_cuda_blas **blas)
{
    struct meed_cuda_blas *made = (struct meed_cuda_blas *)meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    enum meed_status st = blas_status(cublasLtCreate(&made->handle), "cublasLtCreate");
    if (st != MEED_OK) {
        meed_heap_free(made);
        return st;
    }
    *blas = made;
    return MEED_OK;
}

void meed_cuda_blas_destroy(struct meed_cuda_blas *blas)
{
    if (blas) {
        cublasLtDestroy(blas->handle);
    }
    meed_heap_free(blas);
}

/* The largest power of two up to 16 that divides the address of every row. */
static uint32_t alignment_of(struct meed_mat mat)
{
    uint64_t bits = (uint64_t)(uintptr_t)mat.data |
                    (uint64_t)mat.stride * meed_dtype_bytes(mat.dtype) | BEST_ALIGNMENT;
    return (uint32_t)(bits & (~bits + 1));
}

static cudaDataType_t type_of(enum meed_dtype dtype)
{
    return dtype == MEED_DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static enum meed_status request_fill(struct request *request, enum meed_matmul_kind kind,
                                     struct meed_mat a, struct meed_mat b, struct meed_mat c,
                                     uint64_t m)
{
    uint64_t n = (uint64_t)c.cols;
    uint64_t k = (uint64_t)a.cols;
    bool transposed = kind == MEED_MATMUL_NT;
    cublasOperation_t weight_op = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    cudaDataType_t in = type_of(a.dtype);
    MEED_TRY(blas_status(cublasLtMatmulDescInit(&request->product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                         "description"));
    MEED_TRY(
        blas_status(cublasLtMatmulDescSetAttribute(&request->product, CUBLASLT_MATMUL_DESC_TRANSA,
                                                   &weight_op, sizeof weight_op),
                    "description"));
    MEED_TRY(blas_status(cublasLtMatrixLayoutInit(&request->weight, in, transposed ? k : n,
                                                  transposed ? n : k, b.stride),
                         "weight"));
    MEED_TRY(blas_status(cublasLtMatrixLayoutInit(&request->rows, in, k, m, a.stride), "rows"));
    return blas_status(cublasLtMatrixLayoutInit(&request->result, type_of(c.dtype), n, m, c.stride),
                       "result");
}

static enum meed_status preference_fill(cublasLtMatmulPreferenceOpaque_t *preference,
                                        const struct plan_key *key)
{
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE;
    uint64_t workspace = 0;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } attributes[] = {
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &key->alignment[0], sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &key->alignment[1], sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &key->alignment[2], sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &key->alignment[2], sizeof(uint32_t)},
    };
    MEED_TRY(blas_status(cublasLtMatmulPreferenceInit(preference), "preference"));
    for (size_t i = 0; i < MEED_COUNT(attributes); i++) {
        MEED_TRY(blas_status(cublasLtMatmulPreferenceSetAttribute(preference, attributes[i].name,
                                                                  attributes[i].value,
                                                                  attributes[i].bytes),
                             "preference"));
    }
    return MEED_OK;
}

/* True where one block walks the whole of K for an element. The preference has asked for that; an
 * attribute that an algorithm does not have (the call fails then) cannot say otherwise. */
static bool walks_alone(const cublasLtMatmulHeuristicResult_t *found)
{
    uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
    int32_t splits = 1;
    size_t written = 0;
    (void)cublasLtMatmulAlgoConfigGetAttribute(&found->algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
                                               &scheme, sizeof scheme, &written);
    (void)cublasLtMatmulAlgoConfigGetAttribute(&found->algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                               &splits, sizeof splits, &written);
    return found->state == CUBLAS_STATUS_SUCCESS && found->workspaceSize == 0 &&
           scheme == CUBLASLT_REDUCTION_SCHEME_NONE && splits <= 1;
}

/* Leaves the plan unusable where no candidate will do. */
static enum meed_status plan_make(struct meed_cuda_blas *blas, const struct plan_key *key,
                                  struct meed_mat a, struct meed_mat b, struct meed_mat c,
                                  struct plan *plan)
{
    struct request request;
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t found[CANDIDATES];
    int count = 0;
    MEED_TRY(request_fill(&request, (enum meed_matmul_kind)key->kind, a, b, c, REFERENCE_ROWS));
    MEED_TRY(preference_fill(&preference, key));
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        blas->handle, &request.product, &request.weight, &request.rows, &request.result,
        &request.result, &preference, CANDIDATES, found, &count);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) {
        MEED_TRY(blas_status(status, "choice of an algorithm"));
    }
    plan->usable = false;
    for (int i = 0; i < count && !plan->usable; i++) {
        plan->usable = walks_alone(&found[i]);
        plan->algorithm = found[i].algo;
    }
    plan->key = *key;
    plan->made = true;
    return MEED_OK;
}

static enum meed_status plan_find(struct meed_cuda_blas *blas, enum meed_matmul_kind kind,
                                  struct meed_mat a, struct meed_mat b, struct meed_mat c,
                                  const struct plan **plan)
{
    struct plan_key key;
    memset(&key, 0, sizeof key);
    key.n = c.cols;
    key.k = a.cols;
    key.strides[0] = a.stride;
    key.strides[1] = b.stride;
    key.strides[2] = c.stride;
    key.kind = (uint32_t)kind;
    key.in = (uint32_t)a.dtype;
    key.out = (uint32_t)c.dtype;
    key.alignment[0] = alignment_of(a);
    key.alignment[1] = alignment_of(b);
    key.alignment[2] = alignment_of(c);
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a */
    for (size_t i = 0; i < sizeof key; i++) {
        hash = (hash ^ ((const unsigned char *)&key)[i]) * 0x100000001B3u;
    }
    struct plan *slot = &blas->plans[hash % PLAN_COUNT];
    if (!slot->made || memcmp(&slot->key, &key, sizeof key) != 0) {
        slot->made = false;
        MEED_TRY(plan_make(blas, &key, a, b, c, slot));
    }
    *plan = slot;
    return MEED_OK;
}

enum meed_status meed_cuda_blas_matmul(struct meed_cuda_blas *blas, cudaStream_t stream,
                                       enum meed_matmul_kind kind, struct meed_mat a,
                                       struct meed_mat b, bool accumulate, struct meed_mat c)
{
    const struct plan *plan = NULL;
    struct request request;
    MEED_TRY(plan_find(blas, kind, a, b, c, &plan));
    if (!plan->usable) {
        return MEED_UNSUPPORTED;
    }
    MEED_TRY(request_fill(&request, kind, a, b, c, (uint64_t)a.rows));
    float one = 1.0f;
    float beta = accumulate ? 1.0f : 0.0f;
    return blas_status(cublasLtMatmul(blas->handle, &request.product, &one, b.data, &request.weight,
                                      a.data, &request.rows, &beta, c.data, &request.result, c.data,
                                      &request.result, &plan->algorithm, NULL, 0, stream),
                       "launch");
}
