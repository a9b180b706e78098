/* Sums among the devices of a collective's ranks, by NCCL and one kernel of our own.
 *
 * NCCL's all-reduce adds in the order of its algorithm, which depends on topology and number of
 * ranks; here the order is part of the contract (collective.h), so NCCL only carries. Piece j of
 * the vector goes from every rank to rank j, which adds what it got in rank order, and then from
 * rank j to all: the bytes of a ring all-reduce, and copies have no rounding. ncclSend and ncclRecv
 * in one group do both turns (NCCL 2.7 and newer), as their documentation proposes for an
 * all-to-all.
 *
 * The library is opened by name when a first group is made and never linked or closed: it is 200
 * MB, no part of the CUDA toolkit, and not needed by one GPU. Its interface is C and has been
 * stable since 2.7; the few entry points used are declared here, so that a build needs no header
 * either, and compared with nccl.h where there is one.
 *
 * Limit: a rank that dies inside a sum leaves the others waiting on their devices. They have told
 * each other just before that all are well (engine/trainer_ranks.c), and who started the ranks ends
 * the rest (cli/rank_group.h; srun --kill-on-bad-exit).
 */
#include <dlfcn.h>
#include <string.h>
#include "base/buf.h"
#include "kernels/cuda/cuda_state.h"
#include "kernels/cuda/port.cuh"
#if !defined(MEED_EMU) && __has_include(<nccl.h>)
#include <nccl.h>
static_assert(sizeof(ncclUniqueId) == MEED_DEVICE_COMM_ID_BYTES && ncclSuccess == 0 &&
                  ncclFloat32 == 7,
              "the declarations below are not those of this nccl.h");
#endif

#define LIBRARY_NAME "libnccl.so.2"

struct nccl_id {
    char bytes[MEED_DEVICE_COMM_ID_BYTES]; /* passed by value */
};
typedef void *nccl_comm;
enum { NCCL_SUCCESS = 0, NCCL_FLOAT32 = 7 };

/* X(member, name, parameters) for all that return ncclResult_t. */
#define NCCL_CALLS(X)                                                                              \
    X(get_unique_id, "ncclGetUniqueId", (struct nccl_id *))                                        \
    X(init_rank, "ncclCommInitRank", (nccl_comm *, int, struct nccl_id, int))                      \
    X(destroy, "ncclCommDestroy", (nccl_comm))                                                     \
    X(group_start, "ncclGroupStart", (void))                                                       \
    X(group_end, "ncclGroupEnd", (void))                                                           \
    X(send, "ncclSend", (const void *, size_t, int, int, nccl_comm, cudaStream_t))                 \
    X(receive, "ncclRecv", (void *, size_t, int, int, nccl_comm, cudaStream_t))

struct nccl_calls {
    const char *(*error_string)(int);
#define NCCL_MEMBER(member, name, parameters) int(*member) parameters;
    NCCL_CALLS(NCCL_MEMBER)
#undef NCCL_MEMBER
};

struct meed_cuda_comm {
    const struct nccl_calls *nccl;
    nccl_comm group;
    int32_t rank;
    int32_t world;
};

/* --- the library ------------------------------------------------------------------------------ */

static enum meed_status entry_find(void *library, const char *name, void *call, size_t bytes)
{
    void *symbol = dlsym(library, name);
    if (!symbol) {
        return MEED_FAIL(MEED_UNSUPPORTED, "%s has no %s; install NCCL 2.7 or newer", LIBRARY_NAME,
                         name);
    }
    memcpy(call, &symbol, bytes);
    return MEED_OK;
}

static enum meed_status library_open(const struct nccl_calls **calls)
{
    static struct nccl_calls found;
    static bool complete;
    if (complete) {
        *calls = &found;
        return MEED_OK;
    }
    void *library = dlopen(LIBRARY_NAME, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *reason = dlerror();
        return MEED_FAIL(MEED_UNSUPPORTED, "NCCL is missing (%s); install libnccl2",
                         reason ? reason : LIBRARY_NAME);
    }
    MEED_TRY(
        entry_find(library, "ncclGetErrorString", &found.error_string, sizeof found.error_string));
#define NCCL_FIND(member, name, parameters)                                                        \
    MEED_TRY(entry_find(library, name, &found.member, sizeof found.member));
    NCCL_CALLS(NCCL_FIND)
#undef NCCL_FIND
    complete = true;
    *calls = &found;
    return MEED_OK;
}

static enum meed_status nccl_status(const struct nccl_calls *nccl, int result, const char *what)
{
    if (result == NCCL_SUCCESS) {
        return MEED_OK;
    }
    return MEED_FAIL(MEED_DEVICE, "NCCL, %s: %s", what, nccl->error_string(result));
}

/* --- groups ----------------------------------------------------------------------------------- */

static enum meed_status comm_make_id(const struct meed_backend *be,
                                     uint8_t id[MEED_DEVICE_COMM_ID_BYTES])
{
    const struct nccl_calls *nccl = NULL;
    struct nccl_id made;
    (void)be;
    MEED_TRY(library_open(&nccl));
    MEED_TRY(nccl_status(nccl, nccl->get_unique_id(&made), "a name for the ranks"));
    memcpy(id, made.bytes, sizeof made.bytes);
    return MEED_OK;
}

static enum meed_status comm_open(const struct meed_backend *be,
                                  const uint8_t id[MEED_DEVICE_COMM_ID_BYTES], int32_t rank,
                                  int32_t world)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    struct nccl_id name;
    struct meed_cuda_comm *made = (struct meed_cuda_comm *)meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->rank = rank;
    made->world = world;
    memcpy(name.bytes, id, sizeof name.bytes);
    enum meed_status st = library_open(&made->nccl);
    if (st == MEED_OK) {
        meed_cuda_check(be, cudaSetDevice(state->device), "NCCL");
        st = nccl_status(made->nccl, made->nccl->init_rank(&made->group, world, name, rank),
                         "joining the ranks");
    }
    if (st != MEED_OK) {
        cudaGetLastError();
        meed_heap_free(made);
        return st;
    }
    state->comm = made;
    return MEED_OK;
}

static void comm_close(const struct meed_backend *be)
{
    struct meed_cuda_state *state = meed_cuda_state_of(be);
    if (state->comm) {
        state->comm->nccl->destroy(state->comm->group);
        meed_heap_free(state->comm);
        state->comm = NULL;
    }
}

/* --- sums ------------------------------------------------------------------------------------- */

static constexpr int FOLD_THREADS = 256;
static constexpr int64_t PIECE_STEP = 64; /* pieces begin at multiples of 256 bytes */

/* sum[i] = (…(sum[i] + part_0[i]) + …) + part_(parts−1)[i]; part r is row r of `rows`, but rank
 * `me`'s is `own`. */
static __global__ void __launch_bounds__(FOLD_THREADS)
    comm_fold_kernel(float *sum, const float *rows, int64_t pitch, const float *own, int32_t me,
                     int32_t parts, int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * FOLD_THREADS + threadIdx.x;
    if (i < count) {
        float value = sum[i];
        for (int32_t r = 0; r < parts; r++) {
            value = __fadd_rn(value, r == me ? own[i] : rows[r * pitch + i]);
        }
        sum[i] = value;
    }
}

/* The vector, cut into a piece a rank; the last ones may be shorter or empty. */
struct cut {
    int64_t count;
    int64_t pitch;
};

static int64_t piece_begin(struct cut cut, int32_t rank)
{
    return MEED_MIN(rank * cut.pitch, cut.count);
}
static int64_t piece_count(struct cut cut, int32_t rank)
{
    return piece_begin(cut, rank + 1) - piece_begin(cut, rank);
}

/* One turn of messages between all ranks: this rank sends `out_of` each other rank what that one
 * expects, and the other way round. A message of nothing is not sent. */
struct turn {
    const struct meed_cuda_comm *comm;
    cudaStream_t stream;
    int result; /* the first that is no success */
};

static void turn_send(struct turn *turn, const float *values, int64_t count, int32_t to)
{
    if (count > 0 && to != turn->comm->rank && turn->result == NCCL_SUCCESS) {
        turn->result = turn->comm->nccl->send(values, (size_t)count, NCCL_FLOAT32, to,
                                              turn->comm->group, turn->stream);
    }
}

static void turn_receive(struct turn *turn, float *values, int64_t count, int32_t from)
{
    if (count > 0 && from != turn->comm->rank && turn->result == NCCL_SUCCESS) {
        turn->result = turn->comm->nccl->receive(values, (size_t)count, NCCL_FLOAT32, from,
                                                 turn->comm->group, turn->stream);
    }
}

static enum meed_status turn_end(struct turn *turn, const char *what)
{
    int ended = turn->comm->nccl->group_end();
    return nccl_status(turn->comm->nccl, turn->result == NCCL_SUCCESS ? ended : turn->result, what);
}

/* Parts of this rank's piece into rows [parts, pitch]. */
static enum meed_status collect_parts(struct turn *turn, struct cut cut, const float *part,
                                      int32_t parts, float *rows)
{
    int32_t me = turn->comm->rank;
    turn->result = turn->comm->nccl->group_start();
    for (int32_t r = 0; r < turn->comm->world; r++) {
        if (me < parts) {
            turn_send(turn, part + piece_begin(cut, r), piece_count(cut, r), r);
        }
        if (r < parts) {
            turn_receive(turn, rows + r * cut.pitch, piece_count(cut, me), r);
        }
    }
    return turn_end(turn, "sending gradients");
}

static enum meed_status spread_sums(struct turn *turn, struct cut cut, float *sum)
{
    int32_t me = turn->comm->rank;
    turn->result = turn->comm->nccl->group_start();
    for (int32_t r = 0; r < turn->comm->world; r++) {
        turn_send(turn, sum + piece_begin(cut, me), piece_count(cut, me), r);
        turn_receive(turn, sum + piece_begin(cut, r), piece_count(cut, r), r);
    }
    return turn_end(turn, "sending sums");
}

static enum meed_status comm_sum(const struct meed_backend *be, float *sum, const float *part,
                                 int64_t count, int32_t parts)
{
    const struct meed_cuda_comm *comm = meed_cuda_state_of(be)->comm;
    struct turn turn = {comm, meed_cuda_stream(be), NCCL_SUCCESS};
    int64_t share = (count + comm->world - 1) / comm->world;
    struct cut cut = {count, (share + PIECE_STEP - 1) / PIECE_STEP * PIECE_STEP};
    int64_t mine = piece_count(cut, comm->rank);
    int64_t begin = piece_begin(cut, comm->rank);
    float *rows = (float *)meed_cuda_scratch(be, (size_t)(parts * cut.pitch) * sizeof(float));
    if (!rows) {
        return be->sync(be); /* which has the reason */
    }
    MEED_TRY(collect_parts(&turn, cut, part, parts, rows));
    if (mine > 0) {
        MEED_LAUNCH((comm_fold_kernel), dim3((unsigned)((mine + FOLD_THREADS - 1) / FOLD_THREADS)),
                    dim3(FOLD_THREADS), 0, turn.stream, sum + begin, rows, cut.pitch, part + begin,
                    comm->rank, parts, mine);
        meed_cuda_check(be, cudaGetLastError(), "sum of ranks");
    }
    return spread_sums(&turn, cut, sum);
}

const struct meed_device_comm meed_cuda_comm_table = {comm_make_id, comm_open, comm_sum,
                                                      comm_close};
