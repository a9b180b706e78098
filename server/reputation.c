/* See reputation.h. Rounds are read backwards, and most often one is enough. */
#include "server/reputation.h"

#include <string.h>

int32_t meed_reputation_note(const struct meed_ledger_round *entry, const char *const *names,
                             int32_t count, double *standing)
{
    int64_t paid = entry->budget - entry->retained;
    int32_t heads = 0, unknown = 0;
    for (int32_t c = 0; c < entry->client_count; c++) {
        heads += entry->clients[c].share > 0;
    }
    for (int32_t i = 0, line = 0; i < count; i++) { /* both lists are in id order */
        while (line < entry->client_count && strcmp(entry->clients[line].id, names[i]) < 0) {
            line++;
        }
        const struct meed_ledger_client *client = &entry->clients[line];
        bool there = line < entry->client_count && strcmp(client->id, names[i]) == 0 &&
                     client->state != MEED_RECEIPT_ABSENT;
        if (standing[i] < 0.0 && there && paid > 0) {
            standing[i] = (double)client->share * heads / (double)paid;
        }
        unknown += standing[i] < 0.0;
    }
    return unknown;
}

enum meed_status meed_reputation_replay(struct meed_ledger *ledger, int32_t round,
                                        const char *const *names, int32_t count, double *standing)
{
    enum meed_status st = MEED_OK;
    struct meed_ledger_place place;
    struct meed_ledger_round entry;
    struct meed_arena arena;
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    for (int32_t i = 0; i < count; i++) {
        standing[i] = -1.0;
    }
    int32_t unknown = count;
    for (int32_t at = round - 1; at > 0 && unknown > 0; at--) {
        if (!meed_ledger_find(ledger, at, &place) || place.kind != MEED_LEDGER_ROUND) {
            continue;
        }
        meed_arena_reset(&arena);
        MEED_TRY_OUT(meed_ledger_read_round(ledger, place.index, &arena, &entry));
        unknown = meed_reputation_note(&entry, names, count, standing);
    }
out:
    meed_arena_clear(&arena);
    return st;
}
