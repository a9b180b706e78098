/* libnccl.so.2 for the emulator: the entry points that kernels/cuda/comm_nccl.cu asks for, between
 * processes of one machine.
 *
 * A message is a file in the folder that the group's id names, SENDER-RECEIVER-NUMBER, renamed into
 * place whole; a receiver waits for it. Calls inside a group take effect at its end, sends first,
 * as NCCL allows in any order; a receive of another size than was sent is an error, which NCCL
 * itself does not notice. Device memory is reached by the emulated runtime's copies, out of the
 * program that opened this library.
 *
 * MEED_NCCL_STUB=id or =init makes that call fail, as on a machine where NCCL does not work.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0,
    SYSTEM_ERROR = 2,
    INVALID_USAGE = 5,
    FLOAT32 = 7,
    RANKS_MAX = 64,
    OPS_MAX = 256
};
enum { TO_DEVICE = 1, FROM_DEVICE = 2, PATIENCE_MS = 30000 };

struct id {
    char folder[128];
};
struct op {
    bool send;
    void *values;
    size_t bytes;
    int peer;
};
struct group {
    char folder[128];
    int rank, world;
    long sent[RANKS_MAX], received[RANKS_MAX];
};

int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream);

int ncclGetUniqueId(struct id *id);
int ncclCommInitRank(struct group **made, int world, struct id id, int rank);
int ncclCommDestroy(struct group *group);
int ncclGroupStart(void);
int ncclGroupEnd(void);
int ncclSend(const void *values, size_t count, int type, int peer, struct group *group,
             void *stream);
int ncclRecv(void *values, size_t count, int type, int peer, struct group *group, void *stream);
const char *ncclGetErrorString(int result);

static struct op ops[OPS_MAX];
static struct group *ops_group;
static int op_count;
static bool grouped;

static bool told_to(const char *what)
{
    const char *told = getenv("MEED_NCCL_STUB");
    return told && strcmp(told, what) == 0;
}

const char *ncclGetErrorString(int result)
{
    return result == INVALID_USAGE ? "invalid usage" : "unhandled system error";
}

int ncclGetUniqueId(struct id *id)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    memset(id, 0, sizeof *id);
    snprintf(id->folder, sizeof id->folder, "/tmp/meed-nccl.%ld.%ld.%ld", (long)getpid(),
             (long)now.tv_sec, now.tv_nsec);
    return told_to("id") ? SYSTEM_ERROR : SUCCESS;
}

int ncclCommInitRank(struct group **made, int world, struct id id, int rank)
{
    if (told_to("init") || rank < 0 || rank >= world || world > RANKS_MAX ||
        (mkdir(id.folder, 0700) != 0 && errno != EEXIST)) {
        return SYSTEM_ERROR;
    }
    struct group *group = calloc(1, sizeof *group);
    memcpy(group->folder, id.folder, sizeof group->folder);
    group->rank = rank;
    group->world = world;
    *made = group;
    return SUCCESS;
}

int ncclCommDestroy(struct group *group)
{
    rmdir(group->folder); /* by the last: the others find it in use or gone */
    free(group);
    return SUCCESS;
}

static int message_send(struct group *group, const struct op *op)
{
    char path[256], unfinished[272];
    snprintf(path, sizeof path, "%s/%d-%d-%ld", group->folder, group->rank, op->peer,
             group->sent[op->peer]++);
    snprintf(unfinished, sizeof unfinished, "%s.part", path);
    void *bytes = malloc(op->bytes);
    FILE *file = fopen(unfinished, "wb");
    bool good = file && bytes &&
                cudaMemcpyAsync(bytes, op->values, op->bytes, FROM_DEVICE, NULL) == 0 &&
                fwrite(bytes, 1, op->bytes, file) == op->bytes;
    if (file) {
        good = fclose(file) == 0 && good;
    }
    free(bytes);
    return good && rename(unfinished, path) == 0 ? SUCCESS : SYSTEM_ERROR;
}

static int message_receive(struct group *group, const struct op *op)
{
    char path[256];
    struct stat info;
    snprintf(path, sizeof path, "%s/%d-%d-%ld", group->folder, op->peer, group->rank,
             group->received[op->peer]++);
    for (int waited = 0; stat(path, &info) != 0; waited++) {
        if (waited > PATIENCE_MS) {
            return SYSTEM_ERROR;
        }
        usleep(1000);
    }
    void *bytes = malloc(op->bytes);
    FILE *file = fopen(path, "rb");
    bool good = file && bytes && (size_t)info.st_size == op->bytes &&
                fread(bytes, 1, op->bytes, file) == op->bytes &&
                cudaMemcpyAsync(op->values, bytes, op->bytes, TO_DEVICE, NULL) == 0;
    if (file) {
        fclose(file);
    }
    free(bytes);
    unlink(path);
    return good ? SUCCESS : INVALID_USAGE;
}

int ncclGroupStart(void)
{
    int result = grouped ? INVALID_USAGE : SUCCESS;
    grouped = true;
    op_count = 0;
    return result;
}

int ncclGroupEnd(void)
{
    int result = grouped ? SUCCESS : INVALID_USAGE;
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < op_count && result == SUCCESS; i++) {
            if (ops[i].send == (turn == 0)) {
                result = ops[i].send ? message_send(ops_group, &ops[i])
                                     : message_receive(ops_group, &ops[i]);
            }
        }
    }
    grouped = false;
    op_count = 0;
    return result;
}

static int op_note(struct group *group, struct op op, size_t count, int type)
{
    if (!grouped || type != FLOAT32 || count == 0 || op.peer < 0 || op.peer >= group->world ||
        op.peer == group->rank || op_count == OPS_MAX) {
        return INVALID_USAGE;
    }
    op.bytes = count * sizeof(float);
    ops_group = group;
    ops[op_count++] = op;
    return SUCCESS;
}

int ncclSend(const void *values, size_t count, int type, int peer, struct group *group,
             void *stream)
{
    struct op op = {.send = true, .peer = peer};
    (void)stream;
    memcpy(&op.values, &values, sizeof values);
    return op_note(group, op, count, type);
}

int ncclRecv(void *values, size_t count, int type, int peer, struct group *group, void *stream)
{
    (void)stream;
    return op_note(group, (struct op){.values = values, .peer = peer}, count, type);
}
