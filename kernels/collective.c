/* See collective.h. Everything on a connection is a frame: a header of 16 bytes, then its bytes. A
 * frame of another kind or size than the receiver's next step asks for means that the ranks have
 * parted, which is a bug; only STOP may come at any time, with a status and a sentence.
 *
 * Rank 0 reads the others in rank order and answers when it has read all. A sum goes in chunks,
 * each read from everybody before it is answered: so no one ever writes to someone who is writing,
 * and no buffer need hold more than a chunk.
 */
#include "kernels/collective.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/log.h"

enum {
    FRAME_MAGIC = 0x4D454652,
    GATHER_BYTES_MAX = 64 << 10,
    CHUNK_VALUES = 256 << 10, /* 1 MiB */
    STOP_TEXT_BYTES = 640,
};
enum frame_kind { FRAME_GATHER = 1, FRAME_SUM, FRAME_STOP };

struct frame {
    uint32_t magic, kind;
    uint64_t bytes;
};
struct stop {
    int32_t status;
    char text[STOP_TEXT_BYTES];
};

struct meed_collective {
    int32_t rank, world;
    int sockets[MEED_RENDEZVOUS_MAX_RANKS]; /* rank 0: of each rank; others: [0] alone */
    bool broken;                            /* the others know, or there is nobody to tell */
    float *chunk;                           /* [CHUNK_VALUES]: a part on its way */
    float *staged;                          /* [CHUNK_VALUES]: the sum, where the host has none */
    uint8_t *gathered;                      /* [world · GATHER_BYTES_MAX] */
    const struct meed_backend *device;      /* whose comm does the sums, or NULL */
};

int32_t meed_collective_rank(const struct meed_collective *collective)
{
    return collective ? collective->rank : 0;
}

int32_t meed_collective_world(const struct meed_collective *collective)
{
    return collective ? collective->world : 1;
}

bool meed_collective_on_devices(const struct meed_collective *collective)
{
    return collective && collective->device;
}

/* ---- ends -------------------------------------------------------------------------------------
 */

static void stop_send(int connection, const struct stop *stop)
{
    struct frame frame = {FRAME_MAGIC, FRAME_STOP, sizeof *stop};
    if (connection >= 0 && meed_rendezvous_send(connection, &frame, sizeof frame) == MEED_OK) {
        meed_status_discard(meed_rendezvous_send(connection, stop, sizeof *stop));
    }
}

/* To every rank that this one has a connection with, but `except`. */
static void stop_tell(struct meed_collective *collective, const struct stop *stop, int32_t except)
{
    for (int32_t i = 0; i < collective->world; i++) {
        if (i != except) {
            stop_send(collective->sockets[i], stop);
        }
    }
    collective->broken = true;
}

static enum meed_status stop_return(struct meed_collective *collective, const struct stop *stop,
                                    int32_t from)
{
    bool known = stop->status > MEED_OK && stop->status < MEED_STATUS_COUNT;
    enum meed_status status = known ? (enum meed_status)stop->status : MEED_RPC;
    stop_tell(collective, stop, from);
    return MEED_FAIL(status, "%.*s", STOP_TEXT_BYTES - 1, stop->text);
}

static enum meed_status gone(struct meed_collective *collective, int32_t rank)
{
    struct stop stop = {.status = MEED_RPC};
    snprintf(stop.text, sizeof stop.text,
             "rank %d of %d has gone without a word: it was killed, or its node failed", rank,
             collective->world);
    return stop_return(collective, &stop, rank);
}

enum meed_status meed_collective_fail(struct meed_collective *collective, enum meed_status status)
{
    if (!collective || collective->broken || status == MEED_OK) {
        return status;
    }
    struct stop stop = {.status = (int32_t)status};
    snprintf(stop.text, sizeof stop.text, "rank %d of %d: %.560s", collective->rank,
             collective->world, meed_last_error());
    stop_tell(collective, &stop, -1);
    return status;
}

/* ---- frames -----------------------------------------------------------------------------------
 */

/* Why a connection failed: a STOP that was still to be read, or nothing was said. */
static enum meed_status connection_failed(struct meed_collective *collective, int32_t rank)
{
    struct frame frame;
    struct stop stop;
    int connection = collective->sockets[rank];
    if (meed_rendezvous_receive(connection, &frame, sizeof frame) == MEED_OK &&
        frame.magic == FRAME_MAGIC && frame.kind == FRAME_STOP && frame.bytes == sizeof stop &&
        meed_rendezvous_receive(connection, &stop, sizeof stop) == MEED_OK) {
        return stop_return(collective, &stop, rank);
    }
    return gone(collective, rank);
}

static enum meed_status frame_send(struct meed_collective *collective, int32_t to,
                                   enum frame_kind kind, const void *bytes, size_t size)
{
    int connection = collective->sockets[to];
    struct frame frame = {FRAME_MAGIC, (uint32_t)kind, size};
    if (meed_rendezvous_send(connection, &frame, sizeof frame) != MEED_OK ||
        meed_rendezvous_send(connection, bytes, size) != MEED_OK) {
        return connection_failed(collective, to);
    }
    return MEED_OK;
}

static enum meed_status frame_receive(struct meed_collective *collective, int32_t from,
                                      enum frame_kind kind, void *bytes, size_t size)
{
    int connection = collective->sockets[from];
    struct frame frame;
    struct stop stop;
    if (meed_rendezvous_receive(connection, &frame, sizeof frame) != MEED_OK) {
        return gone(collective, from);
    }
    if (frame.magic == FRAME_MAGIC && frame.kind == FRAME_STOP && frame.bytes == sizeof stop &&
        meed_rendezvous_receive(connection, &stop, sizeof stop) == MEED_OK) {
        return stop_return(collective, &stop, from);
    }
    if (frame.magic != FRAME_MAGIC || frame.kind != (uint32_t)kind || frame.bytes != size) {
        return MEED_FAIL(MEED_BUG, "rank %d and rank %d are at different points (%u, %llu bytes)",
                         collective->rank, from, frame.kind, (unsigned long long)frame.bytes);
    }
    return meed_rendezvous_receive(connection, bytes, size) == MEED_OK ? MEED_OK
                                                                       : gone(collective, from);
}

/* ---- life -------------------------------------------------------------------------------------
 */

static enum meed_status open_connections(const struct meed_rendezvous *place,
                                         struct meed_collective *made)
{
    if (place->rank > 0) {
        return meed_rendezvous_join(place, &made->sockets[0]);
    }
    enum meed_status st = meed_rendezvous_host(place, made->sockets);
    return meed_collective_fail(made, st);
}

enum meed_status meed_collective_open(const struct meed_rendezvous *place,
                                      struct meed_collective **collective)
{
    enum meed_status st = MEED_OK;
    struct meed_collective *made = NULL;
    char nothing[MEED_RENDEZVOUS_MAX_RANKS];
    MEED_TRY(meed_rendezvous_check(place));
    made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    made->rank = place->rank;
    made->world = place->world;
    for (int32_t i = 0; i < MEED_RENDEZVOUS_MAX_RANKS; i++) {
        made->sockets[i] = -1;
    }
    made->chunk = meed_heap_alloc(CHUNK_VALUES, sizeof *made->chunk);
    made->staged = meed_heap_alloc(CHUNK_VALUES, sizeof *made->staged);
    made->gathered = meed_heap_alloc((size_t)place->world, GATHER_BYTES_MAX);
    if (!made->chunk || !made->staged || !made->gathered) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(open_connections(place, made));
    MEED_TRY_OUT(meed_collective_gather(made, "", 1, nothing)); /* all are there, and know it */
    *collective = made;
    made = NULL;
out:
    meed_collective_close(made);
    return st;
}

void meed_collective_close(struct meed_collective *collective)
{
    if (!collective) {
        return;
    }
    if (collective->device) {
        collective->device->comm->close(collective->device);
    }
    for (int32_t i = 0; i < collective->world; i++) {
        if (collective->sockets[i] >= 0) {
            shutdown(collective->sockets[i], SHUT_WR); /* what was said still arrives */
            close(collective->sockets[i]);
        }
    }
    meed_heap_free(collective->chunk);
    meed_heap_free(collective->staged);
    meed_heap_free(collective->gathered);
    meed_heap_free(collective);
}

/* ---- small things -----------------------------------------------------------------------------
 */

enum meed_status meed_collective_gather(struct meed_collective *collective, const void *mine,
                                        size_t bytes, void *all)
{
    MEED_ASSERT(bytes > 0 && bytes <= GATHER_BYTES_MAX);
    int32_t world = meed_collective_world(collective);
    if (world == 1) {
        memcpy(all, mine, bytes);
        return MEED_OK;
    }
    if (collective->rank > 0) {
        MEED_TRY(frame_send(collective, 0, FRAME_GATHER, mine, bytes));
        return frame_receive(collective, 0, FRAME_GATHER, all, bytes * (size_t)world);
    }
    uint8_t *gathered = collective->gathered;
    memcpy(gathered, mine, bytes);
    for (int32_t i = 1; i < world; i++) {
        MEED_TRY(frame_receive(collective, i, FRAME_GATHER, gathered + (size_t)i * bytes, bytes));
    }
    for (int32_t i = 1; i < world; i++) {
        MEED_TRY(frame_send(collective, i, FRAME_GATHER, gathered, bytes * (size_t)world));
    }
    memcpy(all, gathered, bytes * (size_t)world);
    return MEED_OK;
}

enum meed_status meed_collective_any(struct meed_collective *collective, bool mine, bool *any)
{
    uint8_t flag = mine, flags[MEED_RENDEZVOUS_MAX_RANKS];
    MEED_TRY(meed_collective_gather(collective, &flag, 1, flags));
    bool found = false;
    for (int32_t i = 0; i < meed_collective_world(collective); i++) {
        found = found || flags[i];
    }
    *any = found;
    return MEED_OK;
}

enum meed_status meed_collective_same(struct meed_collective *collective, const void *mine,
                                      size_t bytes, const char *what)
{
    int32_t world = meed_collective_world(collective);
    uint8_t *all = meed_heap_alloc((size_t)world, bytes);
    if (!all) {
        return MEED_NOMEM;
    }
    enum meed_status st = meed_collective_gather(collective, mine, bytes, all);
    for (int32_t i = 1; st == MEED_OK && i < world; i++) {
        if (memcmp(all, all + (size_t)i * bytes, bytes) != 0) {
            st = MEED_FAIL(MEED_VERSION, "rank %d has not rank 0's %s", i, what);
        }
    }
    meed_heap_free(all);
    return st;
}

/* ---- sums -------------------------------------------------------------------------------------
 */

static void add(float *sum, const float *part, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        sum[i] += part[i];
    }
}

/* A chunk of be's memory where the host can read it: itself, or a copy in `staging`. */
static enum meed_status chunk_read(const struct meed_backend *be, const float *values,
                                   int64_t count, float *staging, const float **host)
{
    *host = values;
    if (be->host_memory) {
        return MEED_OK;
    }
    *host = staging;
    return be->copy_from(be, staging, values, (size_t)count * sizeof(float));
}

static enum meed_status chunk_sum(struct meed_collective *collective, const struct meed_backend *be,
                                  float *sum, const float *part, int64_t count, int32_t parts)
{
    size_t bytes = (size_t)count * sizeof(float);
    float *total = be->host_memory ? sum : collective->staged;
    const float *mine = NULL;
    if (collective->rank > 0) {
        if (collective->rank < parts) {
            MEED_TRY(chunk_read(be, part, count, collective->chunk, &mine));
            MEED_TRY(frame_send(collective, 0, FRAME_SUM, mine, bytes));
        }
        MEED_TRY(frame_receive(collective, 0, FRAME_SUM, total, bytes));
    } else {
        MEED_TRY(chunk_read(be, sum, count, collective->staged, &mine));
        MEED_TRY(chunk_read(be, part, count, collective->chunk, &mine));
        add(total, mine, count);
        for (int32_t i = 1; i < parts; i++) {
            MEED_TRY(frame_receive(collective, i, FRAME_SUM, collective->chunk, bytes));
            add(total, collective->chunk, count);
        }
        for (int32_t i = 1; i < collective->world; i++) {
            MEED_TRY(frame_send(collective, i, FRAME_SUM, total, bytes));
        }
    }
    return be->host_memory ? MEED_OK : be->copy_to(be, sum, total, bytes);
}

enum meed_status meed_collective_sum(struct meed_collective *collective,
                                     const struct meed_backend *be, float *sum, const float *part,
                                     int64_t count, int32_t parts)
{
    MEED_ASSERT(collective && parts >= 1 && parts <= collective->world);
    if (collective->device == be) {
        return be->comm->sum(be, sum, part, count, parts);
    }
    for (int64_t at = 0; at < count; at += CHUNK_VALUES) {
        int64_t n = MEED_MIN(count - at, (int64_t)CHUNK_VALUES);
        MEED_TRY(chunk_sum(collective, be, sum + at, part + at, n, parts));
    }
    return MEED_OK;
}

/* Whether all ranks could; this rank's reason, if it has one, goes to the log. */
static enum meed_status all_could(struct meed_collective *collective, enum meed_status mine,
                                  bool *all)
{
    bool none = false;
    if (mine != MEED_OK) {
        MEED_LOG_WARN("kernels", "sums of %d ranks go by the host: %s", collective->world,
                      meed_last_error());
    }
    MEED_TRY(meed_collective_any(collective, mine != MEED_OK, &none));
    *all = !none;
    return MEED_OK;
}

enum meed_status meed_collective_use_devices(struct meed_collective *collective,
                                             const struct meed_backend *be)
{
    if (!collective || !be->comm) {
        return MEED_OK;
    }
    uint8_t mine[MEED_DEVICE_COMM_ID_BYTES] = {0};
    uint8_t ids[MEED_RENDEZVOUS_MAX_RANKS][MEED_DEVICE_COMM_ID_BYTES];
    bool able = false;
    MEED_TRY(all_could(collective, be->comm->make_id(be, mine), &able));
    if (!able) {
        return MEED_OK;
    }
    MEED_TRY(meed_collective_gather(collective, mine, sizeof mine, ids));
    enum meed_status opened = be->comm->open(be, ids[0], collective->rank, collective->world);
    MEED_TRY(all_could(collective, opened, &able));
    if (able) {
        collective->device = be;
    } else if (opened == MEED_OK) {
        be->comm->close(be);
    }
    return MEED_OK;
}
