/* See run_record.h. */
#include "report/run_record.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { RECORD_MAX_BYTES = 1 << 30 };

static const char *const state_words[MEED_RUN_STATE_COUNT] = {"absent", "paid", "unpaid",
                                                              "excluded"};

void meed_run_record_init(struct meed_run_record *record)
{
    *record = (struct meed_run_record){.title = "", .kind = "", .unit = "nats per token"};
    meed_arena_init_growing(&record->arena, "report", RECORD_MAX_BYTES);
}

void meed_run_record_clear(struct meed_run_record *record)
{
    meed_arena_clear(&record->arena);
}

enum meed_status meed_run_record_array(struct meed_run_record *record, size_t count,
                                       size_t item_bytes, void **block)
{
    return meed_arena_alloc_array(&record->arena, count, item_bytes, block);
}

enum meed_status meed_run_record_text(struct meed_run_record *record, const char *text,
                                      const char **copy)
{
    char *made = NULL;
    MEED_TRY(meed_arena_strdup(&record->arena, text, strlen(text), &made));
    *copy = made;
    return MEED_OK;
}

enum meed_status meed_run_record_cells(struct meed_run_record *record, struct meed_run_cell **cells)
{
    void *block = NULL;
    MEED_TRY(meed_run_record_array(record, (size_t)record->client_count, sizeof **cells, &block));
    *cells = block;
    for (int32_t k = 0; k < record->client_count; k++) {
        (*cells)[k] = (struct meed_run_cell){.phi = NAN,
                                             .se = NAN,
                                             .reason = "",
                                             .remark = "",
                                             .loss = NAN,
                                             .bytes_up = -1,
                                             .bytes_down = -1,
                                             .score = NAN,
                                             .combined = NAN,
                                             .weight = NAN};
    }
    return MEED_OK;
}

enum meed_status meed_run_record_fact(struct meed_run_record *record, const char *name,
                                      const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    MEED_ASSERT(record->fact_count < MEED_RUN_FACTS_MOST);
    struct meed_run_fact *fact = &record->facts[record->fact_count];
    MEED_TRY(meed_run_record_text(record, text, &fact->value));
    fact->name = name;
    record->fact_count++;
    return MEED_OK;
}

int32_t meed_run_record_find(const struct meed_run_record *record, const char *client)
{
    for (int32_t k = 0; k < record->client_count; k++) {
        if (strcmp(record->clients[k], client) == 0) {
            return k;
        }
    }
    return -1;
}

const struct meed_run_round *meed_run_record_last(const struct meed_run_record *record)
{
    for (int32_t r = record->round_count - 1; r >= 0; r--) {
        if (!record->rounds[r].abandoned) {
            return &record->rounds[r];
        }
    }
    return NULL;
}

int64_t meed_run_record_add(int64_t a, int64_t b)
{
    return a > INT64_MAX - b ? INT64_MAX : a + b;
}

const char *meed_run_state_word(enum meed_run_state state)
{
    return state_words[state];
}

const char *meed_run_standing_word(enum meed_run_standing standing)
{
    static const char *const words[MEED_RUN_STANDING_COUNT] = {"", "quarantine", "probation"};
    return words[standing];
}
