/* See ledger.h. A line is checked by one function, whether it is opened, verified or just written.
 */
#include "server/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "base/log.h"
#include "server/ledger_body.h"

enum {
    HASH_HEX = 2 * MEED_SHA256_BYTES,
    SIGNATURE_HEX = 2 * MEED_SIGNATURE_SIZE,
    PREFIX = HASH_HEX + 1 + SIGNATURE_HEX + 1, /* of a line, before its body */
    INDEX_MAX_BYTES = 512 << 20
};

struct slot {
    struct meed_ledger_place place;
    int64_t body_offset;
    int64_t body_size;
};

struct meed_ledger {
    pthread_mutex_t lock;
    int fd;
    const struct meed_signature_key *key; /* borrowed; NULL: only read */
    char path[MEED_PATH_BYTES];
    int64_t end;           /* of the last whole line */
    struct meed_buf slots; /* of struct slot */
};

static int64_t slot_count(const struct meed_ledger *ledger)
{
    return (int64_t)(ledger->slots.size / sizeof(struct slot));
}

static const struct slot *slot_at(const struct meed_ledger *ledger, int64_t index)
{
    return (const struct slot *)(const void *)ledger->slots.data + index;
}

static void last_hash(const struct meed_ledger *ledger, uint8_t hash[MEED_SHA256_BYTES])
{
    int64_t count = slot_count(ledger);
    if (count > 0) {
        memcpy(hash, slot_at(ledger, count - 1)->place.hash, MEED_SHA256_BYTES);
    } else {
        memset(hash, 0, MEED_SHA256_BYTES);
    }
}

/* ---- one line -------------------------------------------------------------------------------- */

static void signed_bytes(const uint8_t hash[MEED_SHA256_BYTES], uint8_t message[46])
{
    memcpy(message, "meed ledger 1\n", 14);
    memcpy(message + 14, hash, MEED_SHA256_BYTES);
}

static void hex_write(const uint8_t *bytes, size_t size, char *text)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
}

static bool hex_read(const char *text, size_t size, uint8_t *bytes)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < 2 * size; i++) {
        const char *digit = text[i] ? strchr(digits, text[i]) : NULL;
        if (!digit) {
            return false;
        }
        uint8_t value = (uint8_t)(digit - digits);
        bytes[i / 2] = (uint8_t)(i % 2 ? bytes[i / 2] | value : value << 4);
    }
    return true;
}

/* The line without its newline, as the entry `index` that follows prev_hash. */
static enum meed_status check_line(const char *line, size_t size, int64_t index,
                                   const uint8_t *prev_hash, const uint8_t *public_key,
                                   struct meed_ledger_place *place)
{
    if (size <= PREFIX || line[HASH_HEX] != ' ' || line[PREFIX - 1] != ' ' ||
        !hex_read(line, MEED_SHA256_BYTES, place->hash) ||
        !hex_read(line + HASH_HEX + 1, MEED_SIGNATURE_SIZE, place->signature)) {
        return MEED_FAIL(MEED_INTEGRITY, "entry %lld: the line is not hash, signature and body",
                         (long long)index);
    }
    uint8_t digest[MEED_SHA256_BYTES];
    meed_sha256(line + PREFIX, size - PREFIX, digest);
    if (memcmp(digest, place->hash, sizeof digest) != 0) {
        return MEED_FAIL(MEED_INTEGRITY, "entry %lld: the body does not match its hash",
                         (long long)index);
    }
    uint8_t message[46];
    signed_bytes(digest, message);
    if (public_key &&
        meed_signature_verify(public_key, message, sizeof message, place->signature) != MEED_OK) {
        return MEED_FAIL(MEED_INTEGRITY, "entry %lld: not signed by the ledger's key",
                         (long long)index);
    }
    struct meed_ledger_head head = {.index = -1};
    if (meed_ledger_body_head(line + PREFIX, size - PREFIX, &head) != MEED_OK) {
        char why[256];
        snprintf(why, sizeof why, "%.255s", meed_last_error());
        return MEED_FAIL(MEED_INTEGRITY, "entry %lld: %s", (long long)index, why);
    }
    if (head.index != index) {
        return MEED_FAIL(MEED_INTEGRITY,
                         "entry %lld: it calls itself %lld; one is missing, doubled "
                         "or moved",
                         (long long)index, (long long)head.index);
    }
    if (memcmp(head.prev_hash, prev_hash, MEED_SHA256_BYTES) != 0) {
        return MEED_FAIL(MEED_INTEGRITY, "entry %lld: it does not follow the entry before it",
                         (long long)index);
    }
    place->index = index;
    place->kind = head.kind;
    place->round = head.round;
    return MEED_OK;
}

/* Walks the whole lines of a file; *end is where the last one ends. */
typedef enum meed_status (*line_fn)(void *user, const struct meed_ledger_place *place,
                                    const char *body, int64_t offset, size_t size);

static enum meed_status walk(const struct meed_file_map *map, const uint8_t *public_key,
                             line_fn visit, void *user, int64_t *end)
{
    const char *bytes = map->bytes;
    uint8_t prev_hash[MEED_SHA256_BYTES] = {0};
    size_t at = 0;
    for (int64_t index = 0; at < map->size; index++) {
        const char *newline = memchr(bytes + at, '\n', map->size - at);
        if (!newline) {
            break;
        }
        size_t size = (size_t)(newline - bytes) - at;
        struct meed_ledger_place place;
        MEED_TRY(check_line(bytes + at, size, index, prev_hash, public_key, &place));
        MEED_TRY(visit(user, &place, bytes + at + PREFIX, (int64_t)at + PREFIX, size - PREFIX));
        memcpy(prev_hash, place.hash, sizeof prev_hash);
        at += size + 1;
    }
    *end = (int64_t)at;
    return MEED_OK;
}

/* ---- open ------------------------------------------------------------------------------------ */

static enum meed_status remember(void *user, const struct meed_ledger_place *place,
                                 const char *body, int64_t offset, size_t size)
{
    (void)body;
    struct meed_ledger *ledger = user;
    struct slot slot = {*place, offset, (int64_t)size};
    return meed_buf_append(&ledger->slots, &slot, sizeof slot);
}

/* *torn: bytes behind the last whole line. */
static enum meed_status load_file(struct meed_ledger *ledger, const uint8_t *public_key,
                                  int64_t *torn)
{
    struct meed_file_map map = {NULL, 0};
    MEED_TRY(meed_file_map_open(ledger->path, &map));
    enum meed_status st = walk(&map, public_key, remember, ledger, &ledger->end);
    *torn = (int64_t)map.size - ledger->end;
    meed_file_map_close(&map);
    return st;
}

static enum meed_status torn_failed(const char *path, int64_t end)
{
    return MEED_FAIL(MEED_INTEGRITY, "%s ends in the middle of an entry, after byte %lld", path,
                     (long long)end);
}

/* The file opened with `flags`, before any of it is read. */
static enum meed_status open_file(const char *path, int flags, struct meed_ledger **ledger)
{
    struct meed_ledger *opened = meed_heap_alloc(1, sizeof *opened);
    if (!opened) {
        return MEED_NOMEM;
    }
    pthread_mutex_init(&opened->lock, NULL);
    meed_buf_init(&opened->slots, INDEX_MAX_BYTES);
    opened->fd = open(path, flags | O_CLOEXEC, 0644);
    if (opened->fd < 0 ||
        snprintf(opened->path, sizeof opened->path, "%s", path) >= (int)sizeof opened->path) {
        enum meed_status st =
            MEED_FAIL(MEED_IO, "cannot open the ledger %s: %s", path, strerror(errno));
        meed_ledger_close(opened);
        return st;
    }
    *ledger = opened;
    return MEED_OK;
}

enum meed_status meed_ledger_open_read(const char *path,
                                       const uint8_t public_key[MEED_SIGNATURE_KEY_BYTES],
                                       struct meed_ledger **ledger)
{
    struct meed_ledger *opened = NULL;
    int64_t torn = 0;
    MEED_TRY(open_file(path, O_RDONLY, &opened));
    enum meed_status st = load_file(opened, public_key, &torn);
    if (st == MEED_OK && torn > 0) {
        st = torn_failed(path, opened->end);
    }
    if (st != MEED_OK) {
        meed_ledger_close(opened);
        return st;
    }
    *ledger = opened;
    return MEED_OK;
}

enum meed_status meed_ledger_open(const char *path, const struct meed_signature_key *key,
                                  struct meed_ledger **ledger)
{
    enum meed_status st = MEED_OK;
    struct meed_ledger *opened = NULL;
    uint8_t public_key[MEED_SIGNATURE_KEY_BYTES];
    int64_t torn = 0;
    MEED_TRY(open_file(path, O_RDWR | O_CREAT, &opened));
    opened->key = key;
    meed_signature_key_public(key, public_key);
    MEED_TRY_OUT(meed_file_sync_folder_of(path));
    MEED_TRY_OUT(load_file(opened, public_key, &torn));
    if (torn > 0 && (ftruncate(opened->fd, opened->end) != 0 || fsync(opened->fd) != 0)) {
        st = MEED_FAIL(MEED_IO, "cannot cut the torn last line of %s: %s", path, strerror(errno));
        goto out;
    }
    *ledger = opened;
    opened = NULL;
out:
    meed_ledger_close(opened);
    return st;
}

void meed_ledger_close(struct meed_ledger *ledger)
{
    if (!ledger) {
        return;
    }
    if (ledger->fd >= 0) {
        close(ledger->fd);
    }
    meed_buf_clear(&ledger->slots);
    pthread_mutex_destroy(&ledger->lock);
    meed_heap_free(ledger);
}

/* ---- append ---------------------------------------------------------------------------------- */

static enum meed_status write_line(struct meed_ledger *ledger, const char *line, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t wrote = pwrite(ledger->fd, line + done, size - done, ledger->end + (off_t)done);
        if (wrote < 0 && errno == EINTR) {
            continue;
        }
        if (wrote <= 0) {
            break;
        }
        done += (size_t)wrote;
    }
    if (done == size && fsync(ledger->fd) == 0) {
        return MEED_OK;
    }
    enum meed_status st =
        MEED_FAIL(MEED_IO, "cannot append to %s: %s", ledger->path, strerror(errno));
    if (ftruncate(ledger->fd, ledger->end) != 0) {
        MEED_LOG_WARN("server", "a torn line stays in the ledger until it is opened again");
    }
    return st;
}

/* Under the lock: signs the body, writes the line, checks it as a reader would, and remembers it.
 */
static enum meed_status append_body(struct meed_ledger *ledger, const struct meed_buf *body)
{
    enum meed_status st = MEED_OK;
    struct meed_buf line;
    meed_buf_init(&line, PREFIX + MEED_LIMIT_LEDGER_BODY_BYTES + 2);
    uint8_t hash[MEED_SHA256_BYTES], prev_hash[MEED_SHA256_BYTES], message[46];
    uint8_t signature[MEED_SIGNATURE_SIZE], public_key[MEED_SIGNATURE_KEY_BYTES];
    meed_sha256(body->data, body->size, hash);
    signed_bytes(hash, message);
    MEED_TRY_OUT(meed_signature_sign(ledger->key, message, sizeof message, signature));
    char prefix[PREFIX];
    hex_write(hash, sizeof hash, prefix);
    prefix[HASH_HEX] = ' ';
    hex_write(signature, sizeof signature, prefix + HASH_HEX + 1);
    prefix[PREFIX - 1] = ' ';
    MEED_TRY_OUT(meed_buf_append(&line, prefix, sizeof prefix));
    MEED_TRY_OUT(meed_buf_append(&line, body->data, body->size));
    MEED_TRY_OUT(meed_buf_append(&line, "\n", 1));
    last_hash(ledger, prev_hash);
    meed_signature_key_public(ledger->key, public_key);
    struct meed_ledger_place place;
    MEED_TRY_OUT(
        check_line(line.data, line.size - 1, slot_count(ledger), prev_hash, public_key, &place));
    MEED_TRY_OUT(write_line(ledger, line.data, line.size));
    MEED_TRY_OUT(remember(ledger, &place, NULL, ledger->end + PREFIX, body->size));
    ledger->end += (int64_t)line.size;
out:
    meed_buf_clear(&line);
    return st;
}

/* The four appends differ in their encoder only; this is what they share. */
struct append {
    struct meed_ledger *ledger;
    struct meed_buf body;
    uint8_t prev_hash[MEED_SHA256_BYTES];
    struct meed_ledger_link link;
};

static void append_begin(struct append *append, struct meed_ledger *ledger)
{
    MEED_ASSERT(ledger->key);
    append->ledger = ledger;
    meed_buf_init(&append->body, MEED_LIMIT_LEDGER_BODY_BYTES);
    pthread_mutex_lock(&ledger->lock);
    last_hash(ledger, append->prev_hash);
    append->link = (struct meed_ledger_link){slot_count(ledger), append->prev_hash};
}

static enum meed_status append_end(struct append *append, enum meed_status st)
{
    if (st == MEED_OK) {
        st = append_body(append->ledger, &append->body);
    }
    pthread_mutex_unlock(&append->ledger->lock);
    meed_buf_clear(&append->body);
    return st;
}

enum meed_status meed_ledger_append_genesis(struct meed_ledger *ledger,
                                            const struct meed_ledger_genesis *entry)
{
    struct append append;
    append_begin(&append, ledger);
    return append_end(&append, meed_ledger_body_genesis(&append.link, entry, &append.body));
}

enum meed_status meed_ledger_append_round(struct meed_ledger *ledger,
                                          const struct meed_ledger_round *entry)
{
    struct append append;
    append_begin(&append, ledger);
    return append_end(&append, meed_ledger_body_round(&append.link, entry, &append.body));
}

enum meed_status meed_ledger_append_abandoned(struct meed_ledger *ledger, const char *run_id,
                                              int32_t round, const uint8_t *before_hash,
                                              const char *reason)
{
    struct append append;
    append_begin(&append, ledger);
    return append_end(&append, meed_ledger_body_abandoned(&append.link, run_id, round, before_hash,
                                                          reason, &append.body));
}

enum meed_status meed_ledger_append_final(struct meed_ledger *ledger, const char *run_id,
                                          const uint8_t *adapter_hash,
                                          const struct meed_ledger_total *totals,
                                          int32_t total_count)
{
    struct append append;
    append_begin(&append, ledger);
    return append_end(&append, meed_ledger_body_final(&append.link, run_id, adapter_hash, totals,
                                                      total_count, &append.body));
}

/* ---- read ------------------------------------------------------------------------------------ */

int64_t meed_ledger_count(struct meed_ledger *ledger)
{
    pthread_mutex_lock(&ledger->lock);
    int64_t count = slot_count(ledger);
    pthread_mutex_unlock(&ledger->lock);
    return count;
}

void meed_ledger_head(struct meed_ledger *ledger, uint8_t hash[MEED_SHA256_BYTES])
{
    pthread_mutex_lock(&ledger->lock);
    last_hash(ledger, hash);
    pthread_mutex_unlock(&ledger->lock);
}

/* From the end: the round asked for is nearly always the last. */
bool meed_ledger_find(struct meed_ledger *ledger, int32_t round, struct meed_ledger_place *place)
{
    bool found = false;
    pthread_mutex_lock(&ledger->lock);
    for (int64_t i = slot_count(ledger) - 1; i >= 0 && !found; i--) {
        const struct meed_ledger_place *at = &slot_at(ledger, i)->place;
        found = round > 0 ? at->round == round : at->kind == MEED_LEDGER_FINAL;
        if (found) {
            *place = *at;
        }
    }
    pthread_mutex_unlock(&ledger->lock);
    return found;
}

enum meed_status meed_ledger_read(struct meed_ledger *ledger, int64_t index,
                                  struct meed_ledger_place *place, struct meed_buf *body)
{
    pthread_mutex_lock(&ledger->lock);
    if (index < 0 || index >= slot_count(ledger)) {
        pthread_mutex_unlock(&ledger->lock);
        return MEED_FAIL(MEED_NOT_FOUND, "the ledger has no entry %lld", (long long)index);
    }
    struct slot slot = *slot_at(ledger, index);
    pthread_mutex_unlock(&ledger->lock);
    void *bytes = NULL;
    size_t size_before = body->size;
    MEED_TRY(meed_buf_extend(body, (size_t)slot.body_size, &bytes));
    ssize_t got = pread(ledger->fd, bytes, (size_t)slot.body_size, (off_t)slot.body_offset);
    uint8_t digest[MEED_SHA256_BYTES] = {0};
    if (got == (ssize_t)slot.body_size) {
        meed_sha256(bytes, (size_t)slot.body_size, digest);
    }
    if (memcmp(digest, slot.place.hash, sizeof digest) != 0) {
        body->size = size_before;
        return MEED_FAIL(MEED_INTEGRITY, "entry %lld of %s has changed since it was written",
                         (long long)index, ledger->path);
    }
    *place = slot.place;
    return MEED_OK;
}

struct visitor {
    meed_ledger_visit_fn visit;
    void *user;
};

static enum meed_status show(void *user, const struct meed_ledger_place *place, const char *body,
                             int64_t offset, size_t size)
{
    (void)offset;
    const struct visitor *visitor = user;
    if (visitor->visit) {
        visitor->visit(visitor->user, place, body, size);
    }
    return MEED_OK;
}

enum meed_status meed_ledger_verify(const char *path, const uint8_t *public_key,
                                    meed_ledger_visit_fn visit, void *user)
{
    struct meed_file_map map = {NULL, 0};
    MEED_TRY(meed_file_map_open(path, &map));
    struct visitor visitor = {visit, user};
    int64_t end = 0;
    enum meed_status st = walk(&map, public_key, show, &visitor, &end);
    if (st == MEED_OK && end < (int64_t)map.size) {
        st = torn_failed(path, end);
    }
    meed_file_map_close(&map);
    return st;
}
