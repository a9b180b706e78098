/* See rendezvous.h. A handshake is one and a half turns, each with a few seconds to come:
 *
 *   rank 0 → caller   nonce of the listener
 *   caller → rank 0   magic, world, rank, nonce of the caller, proof over the listener's nonce
 *   rank 0 → caller   proof over the caller's nonce
 *
 * A connection that fails anywhere is closed and forgotten: it was a port scanner, or a rank of an
 * earlier start, and the right one will come or the deadline will name it.
 */
#include "kernels/rendezvous.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"

enum {
    TOKEN_BYTES = MEED_SHA256_BYTES,
    HOST_BYTES = 256,
    FILE_BYTES_MAX = 1024,
    HANDSHAKE_SECONDS = 5,
    RETRY_MS = 50,
};
#define MAGIC 0x4D45454452414E4Bu /* "MEEDRANK" */

struct published {
    char host[HOST_BYTES];
    char port[8];
    uint8_t token[TOKEN_BYTES];
};

struct hello {
    uint64_t magic;
    int32_t world, rank;
    uint8_t nonce[TOKEN_BYTES];
    uint8_t proof[MEED_SHA256_BYTES];
};

enum meed_status meed_rendezvous_check(const struct meed_rendezvous *place)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t length = strlen(place->key);
    if (place->world < 1 || place->world > MEED_RENDEZVOUS_MAX_RANKS || place->rank < 0 ||
        place->rank >= place->world) {
        return MEED_FAIL(MEED_ARG, "rank %d of %d ranks; ranks count from 0, %d are the most",
                         place->rank, place->world, MEED_RENDEZVOUS_MAX_RANKS);
    }
    if (length == 0 || length >= MEED_RENDEZVOUS_KEY_BYTES ||
        strspn(place->key, allowed) != length) {
        return MEED_FAIL(MEED_ARG, "\"%.64s\" names no start of a job; use letters, digits and ._-",
                         place->key);
    }
    return MEED_OK;
}

/* ---- bytes ------------------------------------------------------------------------------------
 */

enum meed_status meed_rendezvous_send(int connection, const void *bytes, size_t size)
{
    const char *at = bytes;
    while (size > 0) {
        ssize_t sent = send(connection, at, size, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR) {
            return MEED_RPC;
        }
        if (sent > 0) {
            at += sent;
            size -= (size_t)sent;
        }
    }
    return MEED_OK;
}

enum meed_status meed_rendezvous_receive(int connection, void *bytes, size_t size)
{
    char *at = bytes;
    while (size > 0) {
        ssize_t got = recv(connection, at, size, MSG_WAITALL);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return MEED_RPC;
        }
        if (got > 0) {
            at += got;
            size -= (size_t)got;
        }
    }
    return MEED_OK;
}

static enum meed_status random_bytes(uint8_t bytes[TOKEN_BYTES])
{
    if (getrandom(bytes, TOKEN_BYTES, 0) != TOKEN_BYTES) {
        return MEED_FAIL(MEED_IO, "no random bytes for the rendezvous: %s", strerror(errno));
    }
    return MEED_OK;
}

/* SHA-256(token ‖ nonce ‖ world ‖ rank). Rank 0 proves itself as rank 0, which no caller can be. */
static void prove(const uint8_t *token, const uint8_t *nonce, int32_t world, int32_t rank,
                  uint8_t proof[MEED_SHA256_BYTES])
{
    struct {
        uint8_t token[TOKEN_BYTES], nonce[TOKEN_BYTES];
        int32_t world, rank;
    } said;
    memcpy(said.token, token, sizeof said.token);
    memcpy(said.nonce, nonce, sizeof said.nonce);
    said.world = world;
    said.rank = rank;
    meed_sha256(&said, sizeof said, proof);
}

/* In a time that does not tell where they differ. */
static bool same_bytes(const uint8_t *a, const uint8_t *b, size_t size)
{
    uint8_t differ = 0;
    for (size_t i = 0; i < size; i++) {
        differ |= (uint8_t)(a[i] ^ b[i]);
    }
    return differ == 0;
}

static void set_timeout(int connection, int seconds)
{
    struct timeval limit = {.tv_sec = seconds};
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

/* From now on waits as long as a step takes; a node that lost power is noticed in 90 s. */
static void settle_down(int connection)
{
    const int on = 1, idle = 30, interval = 10, probes = 6;
    set_timeout(connection, 0);
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(connection, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(connection, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(connection, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(connection, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

/* ---- the file ---------------------------------------------------------------------------------
 */

static enum meed_status file_path(const struct meed_rendezvous *place, char path[MEED_PATH_BYTES])
{
    char name[MEED_RENDEZVOUS_KEY_BYTES + 16];
    snprintf(name, sizeof name, "rendezvous-%s", place->key);
    return meed_file_join(place->folder, name, path, MEED_PATH_BYTES);
}

static enum meed_status file_publish(const struct meed_rendezvous *place,
                                     const struct published *here)
{
    char path[MEED_PATH_BYTES], text[FILE_BYTES_MAX], token[MEED_SHA256_HEX_BYTES];
    MEED_TRY(file_path(place, path));
    MEED_TRY(meed_file_make_folder(place->folder));
    meed_sha256_hex(here->token, token);
    int length = snprintf(text, sizeof text, "meed-rendezvous 1\nkey %s\naddress %s %s\ntoken %s\n",
                          place->key, here->host, here->port, token);
    return meed_file_write_private(path, text, (size_t)length);
}

/* The message says why the file cannot be used (yet). */
static enum meed_status file_consult(const struct meed_rendezvous *place, struct published *there)
{
    char path[MEED_PATH_BYTES], key[MEED_RENDEZVOUS_KEY_BYTES], token[MEED_SHA256_HEX_BYTES];
    struct stat info;
    struct meed_buf text;
    MEED_TRY(file_path(place, path));
    if (stat(path, &info) != 0) {
        return MEED_FAIL(MEED_NOT_FOUND, "%.512s is not there", path);
    }
    if (info.st_uid != geteuid() || (info.st_mode & 077) != 0) {
        return MEED_FAIL(MEED_DENIED, "%.512s is another user's, or others may read it", path);
    }
    meed_buf_init(&text, FILE_BYTES_MAX);
    enum meed_status st = meed_file_read(path, &text);
    if (st == MEED_OK) {
        st = meed_buf_append(&text, "", 1);
    }
    if (st == MEED_OK &&
        (sscanf((const char *)text.data,
                "meed-rendezvous 1\nkey %127s\naddress %255s %7s\ntoken %64s", key, there->host,
                there->port, token) != 4 ||
         strcmp(key, place->key) != 0 || meed_sha256_from_hex(token, there->token) != MEED_OK)) {
        st = MEED_FAIL(MEED_FORMAT, "%.512s is no rendezvous of this job", path);
    }
    meed_buf_clear(&text);
    return st;
}

/* ---- rank 0 -----------------------------------------------------------------------------------
 */

static enum meed_status start_listening(const struct meed_rendezvous *place, int *listener,
                                        struct published *here)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(place->one_machine ? INADDR_LOOPBACK : INADDR_ANY);
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made < 0 || bind(made, (struct sockaddr *)&address, size) != 0 ||
        listen(made, MEED_RENDEZVOUS_MAX_RANKS) != 0 ||
        getsockname(made, (struct sockaddr *)&address, &size) != 0) {
        int reason = errno;
        if (made >= 0) {
            close(made);
        }
        return MEED_FAIL(MEED_IO, "rank 0 cannot listen for the others: %s", strerror(reason));
    }
    *listener = made;
    snprintf(here->port, sizeof here->port, "%d", ntohs(address.sin_port));
    if (place->one_machine) {
        snprintf(here->host, sizeof here->host, "127.0.0.1");
    } else if (gethostname(here->host, sizeof here->host) != 0) {
        return MEED_FAIL(MEED_IO, "this node has no host name: %s", strerror(errno));
    }
    here->host[sizeof here->host - 1] = '\0';
    return random_bytes(here->token);
}

/* Lets a caller in, or not: *rank is then 0. */
static void admit(const struct meed_rendezvous *place, const struct published *here,
                  const int *sockets, int connection, int32_t *rank)
{
    uint8_t nonce[TOKEN_BYTES], proof[MEED_SHA256_BYTES];
    struct hello hello;
    *rank = 0;
    set_timeout(connection, HANDSHAKE_SECONDS);
    if (random_bytes(nonce) != MEED_OK ||
        meed_rendezvous_send(connection, nonce, sizeof nonce) != MEED_OK ||
        meed_rendezvous_receive(connection, &hello, sizeof hello) != MEED_OK ||
        hello.magic != MAGIC || hello.world != place->world || hello.rank < 1 ||
        hello.rank >= place->world || sockets[hello.rank] >= 0) {
        return;
    }
    prove(here->token, nonce, hello.world, hello.rank, proof);
    if (!same_bytes(proof, hello.proof, sizeof proof)) {
        return;
    }
    prove(here->token, hello.nonce, hello.world, 0, proof);
    if (meed_rendezvous_send(connection, proof, sizeof proof) == MEED_OK) {
        *rank = hello.rank;
    }
}

static enum meed_status wait_for_all(const struct meed_rendezvous *place,
                                     const struct published *here, int listener, int *sockets)
{
    int64_t start_ns = meed_clock_monotonic_ns();
    int32_t missing = place->world - 1;
    while (missing > 0) {
        int64_t waited_ms = (meed_clock_monotonic_ns() - start_ns) / 1000000;
        int32_t rank = 1;
        while (sockets[rank] >= 0) {
            rank++;
        }
        if (waited_ms >= place->patience_ms) {
            return MEED_FAIL(MEED_TIMEOUT,
                             "rank %d of %d did not come within %lld s; see what became of it, "
                             "and whether it sees %.256s",
                             rank, place->world, (long long)(place->patience_ms / 1000),
                             place->folder);
        }
        struct pollfd ready = {.fd = listener, .events = POLLIN};
        if (poll(&ready, 1, (int)MEED_MIN(place->patience_ms - waited_ms, (int64_t)1000)) <= 0) {
            continue;
        }
        int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0) {
            continue;
        }
        admit(place, here, sockets, connection, &rank);
        if (rank == 0) {
            MEED_LOG_WARN("kernels", "a stranger at the rendezvous was turned away");
            close(connection);
            continue;
        }
        settle_down(connection);
        sockets[rank] = connection;
        missing--;
    }
    return MEED_OK;
}

enum meed_status meed_rendezvous_host(const struct meed_rendezvous *place,
                                      int sockets[MEED_RENDEZVOUS_MAX_RANKS])
{
    enum meed_status st = MEED_OK;
    struct published here = {.host = ""};
    char path[MEED_PATH_BYTES];
    int listener = -1;
    for (int32_t i = 0; i < MEED_RENDEZVOUS_MAX_RANKS; i++) {
        sockets[i] = -1;
    }
    MEED_TRY(meed_rendezvous_check(place));
    MEED_TRY(file_path(place, path));
    MEED_TRY_OUT(start_listening(place, &listener, &here));
    MEED_TRY_OUT(file_publish(place, &here));
    st = wait_for_all(place, &here, listener, sockets);
    unlink(path);
out:
    if (listener >= 0) {
        close(listener);
    }
    return st;
}

/* ---- the others -------------------------------------------------------------------------------
 */

static enum meed_status dial(const struct published *there, int *connection)
{
    struct addrinfo wanted = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int code = getaddrinfo(there->host, there->port, &wanted, &found);
    if (code != 0) {
        return MEED_FAIL(MEED_RPC, "the name of rank 0's node, %.256s, means nothing here: %s",
                         there->host, gai_strerror(code));
    }
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made >= 0) {
        set_timeout(made, HANDSHAKE_SECONDS);
    }
    if (made < 0 || connect(made, found->ai_addr, found->ai_addrlen) != 0) {
        int reason = errno;
        freeaddrinfo(found);
        if (made >= 0) {
            close(made);
        }
        return MEED_FAIL(MEED_RPC, "rank 0 does not answer at %.256s:%s: %s", there->host,
                         there->port, strerror(reason));
    }
    freeaddrinfo(found);
    *connection = made;
    return MEED_OK;
}

static enum meed_status introduce(const struct meed_rendezvous *place,
                                  const struct published *there, int connection)
{
    uint8_t nonce[TOKEN_BYTES], proof[MEED_SHA256_BYTES], want[MEED_SHA256_BYTES];
    struct hello hello = {.magic = MAGIC, .world = place->world, .rank = place->rank};
    MEED_TRY(random_bytes(hello.nonce));
    enum meed_status st = meed_rendezvous_receive(connection, nonce, sizeof nonce);
    if (st == MEED_OK) {
        prove(there->token, nonce, hello.world, hello.rank, hello.proof);
        st = meed_rendezvous_send(connection, &hello, sizeof hello);
    }
    if (st == MEED_OK) {
        st = meed_rendezvous_receive(connection, proof, sizeof proof);
    }
    prove(there->token, hello.nonce, hello.world, 0, want);
    if (st != MEED_OK || !same_bytes(proof, want, sizeof want)) {
        return MEED_FAIL(MEED_UNAUTHENTICATED,
                         "who listens at %.256s:%s does not take this process for rank %d of %d",
                         there->host, there->port, place->rank, place->world);
    }
    return MEED_OK;
}

static enum meed_status try_join(const struct meed_rendezvous *place, int *connection)
{
    struct published there;
    int made = -1;
    MEED_TRY(file_consult(place, &there));
    MEED_TRY(dial(&there, &made));
    enum meed_status st = introduce(place, &there, made);
    if (st != MEED_OK) {
        close(made);
        return st;
    }
    settle_down(made);
    *connection = made;
    return MEED_OK;
}

enum meed_status meed_rendezvous_join(const struct meed_rendezvous *place, int *connection)
{
    int64_t start_ns = meed_clock_monotonic_ns();
    MEED_TRY(meed_rendezvous_check(place));
    while (try_join(place, connection) != MEED_OK) {
        if ((meed_clock_monotonic_ns() - start_ns) / 1000000 >= place->patience_ms) {
            char reason[600];
            snprintf(reason, sizeof reason, "%s", meed_last_error());
            return MEED_FAIL(MEED_TIMEOUT, "rank %d of %d found no rank 0 within %lld s: %s",
                             place->rank, place->world, (long long)(place->patience_ms / 1000),
                             reason);
        }
        meed_clock_sleep_ms(RETRY_MS);
    }
    return MEED_OK;
}
