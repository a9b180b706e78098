/* See utility_shard.h. */
#include "evaluation/utility_shard.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

enum { PART_VERSION = 1, TEXT_BYTES = 8192, FLUSH_BYTES = 8 << 20, WAITING_BYTES = 1 << 30 };

struct part_head {
    char magic[8];
    uint32_t version, items, rows, zero;
    uint8_t context[MEED_SHA256_BYTES];
};
_Static_assert(sizeof(struct part_head) == 56, "the byte table of utility_shard.h");

struct meed_utility_shard {
    char folder[1024];
    int32_t idx, count, items;
    int64_t flush_ms, flushed_ns;
    uint8_t context[MEED_SHA256_BYTES];
    struct meed_buf masks;     /* u64 [waiting] */
    struct meed_buf utilities; /* fp64 [waiting, items] */
};

/* --- valuation.txt -------------------------------------------------------------------------- */

/* The name at the start of the first line in which two texts differ. */
static void difference_name(const char *ours, const char *theirs, char name[32])
{
    size_t line = 0;
    for (size_t i = 0; ours[i] && ours[i] == theirs[i]; i++) {
        line = ours[i] == '\n' ? i + 1 : line;
    }
    const char *from = ours[line] ? ours + line : theirs + line;
    snprintf(name, 32, "%.*s", (int)MEED_MIN(strcspn(from, " \n"), (size_t)31), from);
}

/* N of the last line, "shards N"; 0 if there is none. */
static int32_t shard_count_of(const char *text)
{
    const char *line = strstr(text, "\nshards ");
    int count = 0;
    return line && sscanf(line, "\nshards %d\n", &count) == 1 && count >= 1 &&
                   count <= MEED_UTILITY_SHARD_MAX
               ? count
               : 0;
}

static enum meed_status texts_compare(const struct meed_utility_shard *shard, const char *ours,
                                      const char *theirs)
{
    char name[32];
    if (strcmp(ours, theirs) == 0) {
        return MEED_OK;
    }
    difference_name(ours, theirs, name);
    return MEED_FAIL(MEED_VERSION,
                     "%s belongs to a valuation that differs in \"%s\" (its valuation.txt); give "
                     "every shard and the merge the same inputs, or use another folder",
                     shard->folder, name);
}

static enum meed_status identity_settle(struct meed_utility_shard *shard, const char *identity)
{
    enum meed_status st = MEED_OK;
    char path[MEED_PATH_BYTES], ours[TEXT_BYTES];
    struct meed_buf theirs;
    meed_buf_init(&theirs, TEXT_BYTES);
    MEED_TRY_OUT(meed_file_join(shard->folder, "valuation.txt", path, sizeof path));
    bool there = meed_file_exists(path);
    if (!there && shard->idx == 0) {
        st = MEED_FAIL(MEED_NOT_FOUND, "%s holds no valuation; run its shards first, with --shard",
                       shard->folder);
        goto out;
    }
    int length = snprintf(ours, sizeof ours, "%sshards %d\n", identity, shard->count);
    if (!there) {
        MEED_TRY_OUT(meed_file_make_folder(shard->folder));
        MEED_TRY_OUT(meed_file_write_atomic(path, ours, (size_t)length));
    }
    MEED_TRY_OUT(meed_file_read(path, &theirs));
    if (shard->idx == 0) {
        shard->count = shard_count_of(theirs.data);
        snprintf(ours, sizeof ours, "%sshards %d\n", identity, shard->count);
    }
    st = texts_compare(shard, ours, theirs.data);
out:
    meed_buf_clear(&theirs);
    return st;
}

/* --- open and close ------------------------------------------------------------------------- */

enum meed_status meed_utility_shard_open(const struct meed_utility_shard_options *options,
                                         const char *identity,
                                         const uint8_t context[MEED_SHA256_BYTES], int32_t items,
                                         struct meed_utility_shard **shard)
{
    if (strlen(options->folder) >= sizeof(*shard)->folder) {
        return MEED_FAIL(MEED_LIMIT, "path too long: %.80s…", options->folder);
    }
    struct meed_utility_shard *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    snprintf(made->folder, sizeof made->folder, "%s", options->folder);
    made->idx = options->idx;
    made->count = options->count;
    made->items = items;
    made->flush_ms = options->flush_ms;
    made->flushed_ns = meed_clock_monotonic_ns();
    memcpy(made->context, context, sizeof made->context);
    meed_buf_init(&made->masks, WAITING_BYTES);
    meed_buf_init(&made->utilities, WAITING_BYTES);
    enum meed_status st = identity_settle(made, identity);
    if (st != MEED_OK) {
        meed_utility_shard_close(made);
        return st;
    }
    *shard = made;
    return MEED_OK;
}

void meed_utility_shard_close(struct meed_utility_shard *shard)
{
    if (shard) {
        meed_buf_clear(&shard->masks);
        meed_buf_clear(&shard->utilities);
        meed_heap_free(shard);
    }
}

int32_t meed_utility_shard_count(const struct meed_utility_shard *shard)
{
    return shard->count;
}

bool meed_utility_shard_merges(const struct meed_utility_shard *shard)
{
    return shard->idx == 0;
}

bool meed_utility_shard_owns(const struct meed_utility_shard *shard, int32_t ordinal)
{
    return shard->idx > 0 && ordinal % shard->count == shard->idx - 1;
}

/* --- reading -------------------------------------------------------------------------------- */

static enum meed_status part_check(const struct meed_utility_shard *shard, const char *path,
                                   const struct meed_file_map *map, struct part_head *head)
{
    uint8_t digest[MEED_SHA256_BYTES];
    bool sound = map->size > sizeof *head + sizeof digest;
    if (sound) {
        memcpy(head, map->bytes, sizeof *head);
        uint64_t row_bytes = 8 * (1 + (uint64_t)head->items);
        sound = memcmp(head->magic, "MEEDPART", sizeof head->magic) == 0 &&
                head->version == PART_VERSION &&
                map->size == sizeof *head + head->rows * row_bytes + sizeof digest;
    }
    if (sound) {
        meed_sha256(map->bytes, map->size - sizeof digest, digest);
        sound = memcmp((const char *)map->bytes + map->size - sizeof digest, digest,
                       sizeof digest) == 0;
    }
    if (!sound) {
        return MEED_FAIL(MEED_INTEGRITY,
                         "%s is damaged; remove it and run the shard that its name says again",
                         path);
    }
    if (memcmp(head->context, shard->context, sizeof head->context) != 0 ||
        head->items != (uint32_t)shard->items) {
        return MEED_FAIL(MEED_VERSION,
                         "%s was scored for another valuation; remove it and run the shard that "
                         "its name says again",
                         path);
    }
    return MEED_OK;
}

static enum meed_status part_read(const struct meed_utility_shard *shard, const char *path,
                                  meed_utility_shard_row_fn row, void *user)
{
    struct part_head head;
    struct meed_file_map map;
    MEED_TRY(meed_file_map_open(path, &map));
    enum meed_status st = part_check(shard, path, &map, &head);
    if (st == MEED_OK) {
        const uint64_t *masks = (const void *)((const char *)map.bytes + sizeof head);
        const double *utilities = (const void *)(masks + head.rows);
        for (uint32_t i = 0; i < head.rows; i++) {
            row(user, (uint32_t)masks[i], utilities + (size_t)i * head.items);
        }
    }
    meed_file_map_close(&map);
    return st;
}

static bool part_wanted(const struct meed_utility_shard *shard, const char *name)
{
    char prefix[48] = "shard-";
    if (shard->idx > 0) {
        snprintf(prefix, sizeof prefix, "shard-%d-of-%d.", shard->idx, shard->count);
    }
    size_t length = strlen(name);
    return strncmp(name, prefix, strlen(prefix)) == 0 && length > 5 &&
           strcmp(name + length - 5, ".part") == 0;
}

enum meed_status meed_utility_shard_each(struct meed_utility_shard *shard,
                                         meed_utility_shard_row_fn row, void *user)
{
    enum meed_status st = MEED_OK;
    DIR *folder = opendir(shard->folder);
    if (!folder) {
        return MEED_FAIL(MEED_IO, "cannot list %s: %s", shard->folder, strerror(errno));
    }
    for (struct dirent *entry; st == MEED_OK && (entry = readdir(folder)) != NULL;) {
        char path[MEED_PATH_BYTES];
        if (!part_wanted(shard, entry->d_name)) {
            continue;
        }
        MEED_TRY_OUT(meed_file_join(shard->folder, entry->d_name, path, sizeof path));
        st = part_read(shard, path, row, user);
        if (shard->idx > 0 && st == MEED_INTEGRITY) {
            MEED_LOG_WARN("evaluation", "%s is damaged; its coalitions are scored again", path);
            unlink(path);
            st = MEED_OK;
        }
    }
out:
    closedir(folder);
    return st;
}

/* --- writing -------------------------------------------------------------------------------- */

enum meed_status meed_utility_shard_put(struct meed_utility_shard *shard, const uint32_t *members,
                                        int32_t count, const double *utilities)
{
    for (int32_t i = 0; i < count; i++) {
        uint64_t mask = members[i];
        MEED_TRY(meed_buf_append(&shard->masks, &mask, sizeof mask));
    }
    size_t bytes = (size_t)count * (size_t)shard->items * sizeof *utilities;
    MEED_TRY(meed_buf_append(&shard->utilities, utilities, bytes));
    int64_t waited_ns = meed_clock_monotonic_ns() - shard->flushed_ns;
    return waited_ns >= shard->flush_ms * 1000000 || shard->utilities.size >= FLUSH_BYTES
               ? meed_utility_shard_flush(shard)
               : MEED_OK;
}

static enum meed_status part_make(const struct meed_utility_shard *shard, struct meed_buf *part)
{
    uint8_t digest[MEED_SHA256_BYTES];
    struct part_head head = {.version = PART_VERSION,
                             .items = (uint32_t)shard->items,
                             .rows = (uint32_t)(shard->masks.size / sizeof(uint64_t))};
    memcpy(head.magic, "MEEDPART", sizeof head.magic);
    memcpy(head.context, shard->context, sizeof head.context);
    MEED_TRY(meed_buf_append(part, &head, sizeof head));
    MEED_TRY(meed_buf_append(part, shard->masks.data, shard->masks.size));
    MEED_TRY(meed_buf_append(part, shard->utilities.data, shard->utilities.size));
    meed_sha256(part->data, part->size, digest);
    return meed_buf_append(part, digest, sizeof digest);
}

enum meed_status meed_utility_shard_flush(struct meed_utility_shard *shard)
{
    enum meed_status st = MEED_OK;
    char name[96], hex[MEED_SHA256_HEX_BYTES], path[MEED_PATH_BYTES];
    struct meed_buf part;
    if (shard->masks.size == 0) {
        return MEED_OK;
    }
    meed_buf_init(&part, SIZE_MAX / 2);
    MEED_TRY_OUT(part_make(shard, &part));
    meed_sha256_hex((const uint8_t *)part.data + part.size - MEED_SHA256_BYTES, hex);
    snprintf(name, sizeof name, "shard-%d-of-%d.%.16s.part", shard->idx, shard->count, hex);
    MEED_TRY_OUT(meed_file_join(shard->folder, name, path, sizeof path));
    MEED_TRY_OUT(meed_file_write_atomic(path, part.data, part.size));
    meed_buf_reset(&shard->masks);
    meed_buf_reset(&shard->utilities);
    shard->flushed_ns = meed_clock_monotonic_ns();
out:
    meed_buf_clear(&part);
    return st;
}
