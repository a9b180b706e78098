/* See quarantine.h. */
#include "server/quarantine.h"

#include <string.h>
#include "server/ledger.h"

enum { MOST = 1 << 20 };

enum meed_status meed_quarantine_check(const struct meed_quarantine_options *options)
{
    bool on = options->strikes > 0;
    if (options->strikes < 0 || options->strikes > MOST || options->rounds < (on ? 1 : 0) ||
        options->rounds > MOST || options->probation < 0 || options->probation > MOST) {
        return MEED_FAIL(MEED_CONFIG,
                         "quarantine: after %d strikes, %d rounds out and %d on probation; strikes "
                         "are 0 (never) or more, rounds out 1 or more, probation 0 or more",
                         options->strikes, options->rounds, options->probation);
    }
    return MEED_OK;
}

bool meed_quarantine_holds(const struct meed_quarantine_client *client, int32_t round)
{
    return round <= client->out_until;
}

void meed_quarantine_note(const struct meed_quarantine_options *options, int32_t round,
                          bool excluded, struct meed_quarantine_client *client)
{
    if (options->strikes <= 0 || meed_quarantine_holds(client, round) || !excluded) {
        return;
    }
    bool watched = round <= client->on_until;
    client->strikes++;
    if (watched || client->strikes >= options->strikes) {
        client->strikes = 0;
        client->out_until = round + options->rounds;
        client->on_until = client->out_until + options->probation;
    }
}

/* Both lists are in id order. */
static void note_round(const struct meed_quarantine_options *options,
                       const struct meed_ledger_round *entry, const char *const *names,
                       int32_t count, struct meed_quarantine_client *clients)
{
    int32_t line = 0;
    for (int32_t i = 0; i < count; i++) {
        while (line < entry->client_count && strcmp(entry->clients[line].id, names[i]) < 0) {
            line++;
        }
        if (line < entry->client_count && strcmp(entry->clients[line].id, names[i]) == 0) {
            bool excluded = entry->clients[line].state == MEED_RECEIPT_EXCLUDED;
            meed_quarantine_note(options, entry->round, excluded, &clients[i]);
        }
    }
}

enum meed_status meed_quarantine_replay(const struct meed_quarantine_options *options,
                                        struct meed_ledger *ledger, int32_t round,
                                        const char *const *names, int32_t count,
                                        struct meed_quarantine_client *clients)
{
    enum meed_status st = MEED_OK;
    struct meed_ledger_place place;
    struct meed_ledger_round entry;
    struct meed_arena arena;
    memset(clients, 0, (size_t)count * sizeof *clients);
    meed_arena_init_growing(&arena, "message", MEED_LIMIT_CLIENTS * 1024u);
    for (int32_t at = 1; at < round && options->strikes > 0; at++) {
        if (!meed_ledger_find(ledger, at, &place)) {
            break;
        }
        if (place.kind != MEED_LEDGER_ROUND) {
            continue;
        }
        meed_arena_reset(&arena);
        MEED_TRY_OUT(meed_ledger_read_round(ledger, place.index, &arena, &entry));
        note_round(options, &entry, names, count, clients);
    }
out:
    meed_arena_clear(&arena);
    return st;
}
