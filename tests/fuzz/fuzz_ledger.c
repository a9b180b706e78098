/* libFuzzer target: ledger lines and the bodies in them.
 *
 * The input is a list of bodies, a line each; hashes are made right and signatures are not asked
 * for, so that mutations reach the JSON behind them. Then the same bytes are read as a ledger file
 * as they stand. Whatever round is accepted must conserve its credits: Σ shares + retained =
 * budget.
 */
#include <string.h>

#include "proto/limits.h"
#include "server/ledger.h"
#include "tests/fuzz/memory_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct memory_file file;

static void check_round(const char *body, size_t size)
{
    struct meed_arena arena;
    struct meed_ledger_round entry;
    meed_arena_init_growing(&arena, "ledger", 1 << 24);
    if (meed_ledger_parse_round(body, size, &arena, &entry) == MEED_OK) {
        int64_t sum = entry.retained;
        for (int32_t i = 0; i < entry.client_count; i++) {
            sum += entry.clients[i].share;
        }
        if (sum != entry.budget || entry.budget < 0) {
            fprintf(stderr, "accepted, but credits are made or lost\n");
            abort();
        }
    }
    meed_arena_clear(&arena);
}

static void visit(void *user, const struct meed_ledger_place *place, const char *body, size_t size)
{
    int64_t *index = user;
    if (place->index != (*index)++) {
        fprintf(stderr, "accepted, but out of order\n");
        abort();
    }
    if (place->kind == MEED_LEDGER_ROUND) {
        check_round(body, size);
    }
}

/* Hash, an empty signature and the body, for every line. */
static void add_prefixes(const uint8_t *data, size_t size, struct meed_buf *lines)
{
    static const char no_signature[2 * MEED_SIGNATURE_SIZE + 1] =
        "0000000000000000000000000000000000000000000000000000000000000000"
        "0000000000000000000000000000000000000000000000000000000000000000";
    for (size_t at = 0; at < size;) {
        const uint8_t *newline = memchr(data + at, '\n', size - at);
        size_t length = newline ? (size_t)(newline - data) - at : size - at;
        uint8_t hash[MEED_SHA256_BYTES];
        char hex[MEED_SHA256_HEX_BYTES];
        meed_sha256(data + at, length, hash);
        meed_sha256_hex(hash, hex);
        if (meed_buf_printf(lines, "%s %s ", hex, no_signature) != MEED_OK ||
            meed_buf_append(lines, data + at, length) != MEED_OK ||
            meed_buf_append(lines, "\n", 1) != MEED_OK) {
            abort();
        }
        at += length + 1;
    }
}

static void verify(const void *bytes, size_t size)
{
    int64_t index = 0;
    meed_status_discard(
        meed_ledger_verify(memory_file_put(&file, bytes, size), NULL, visit, &index));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct meed_buf lines;
    meed_buf_init(&lines, 1 << 26);
    add_prefixes(data, size, &lines);
    verify(lines.data ? lines.data : "", lines.size);
    verify(data, size);
    check_round((const char *)data, size);
    meed_buf_clear(&lines);
    return 0;
}
