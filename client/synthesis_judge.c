/* See synthesis_internal.h. The words of rouge_words.h serve the filters of form as well. What
 * opens as a role statement or an apology is told by English words, as in the paper; other
 * languages pass. */
#include "client/synthesis_internal.h"

#include <string.h>
#include "engine/rouge_words.h"

/* A question of fewer words asks nothing; LOOP_WORDS of which half the triples occur before are a
 * loop; the first OPENING words hold an apology. */
enum { MIN_QUESTION_WORDS = 3, LOOP_WORDS = 8, OPENING = 4, MAX_WORDS = 4096 };

static bool opens_badly(const char *const *words, int32_t count)
{
    if (count >= 2 && strcmp(words[0], "as") == 0 &&
        (strcmp(words[1], "a") == 0 || strcmp(words[1], "an") == 0)) {
        return true;
    }
    for (int32_t w = 0; w < MEED_MIN(count, OPENING); w++) {
        if (strcmp(words[w], "sorry") == 0) {
            return true;
        }
    }
    return false;
}

static bool runs_in_circles(const char *const *words, int32_t count)
{
    int32_t seen_before = 0;
    for (int32_t w = 0; w + 2 < count; w++) {
        for (int32_t v = 0; v < w; v++) {
            if (strcmp(words[v], words[w]) == 0 && strcmp(words[v + 1], words[w + 1]) == 0 &&
                strcmp(words[v + 2], words[w + 2]) == 0) {
                seen_before++;
                break;
            }
        }
    }
    return count >= LOOP_WORDS && 2 * seen_before >= count - 2;
}

static enum meed_status is_well_formed(enum meed_role role, const char *text, bool *well_formed)
{
    struct meed_buf bytes;
    meed_buf_init(&bytes, SIZE_MAX / 4);
    enum meed_status st = meed_rouge_words_append(text, strlen(text), &bytes);
    const char **words = meed_heap_alloc(MAX_WORDS, sizeof *words);
    if (st == MEED_OK && !words) {
        st = MEED_NOMEM;
    }
    MEED_TRY_OUT(st);
    int32_t count = 0;
    const char *end = bytes.data + bytes.size;
    for (const char *word = bytes.data; word < end && count < MAX_WORDS; count++) {
        words[count] = word;
        word += strlen(word) + 1;
    }
    bool asks = role == MEED_ROLE_USER;
    *well_formed = count >= (asks ? MIN_QUESTION_WORDS : 1) &&
                   !(asks && opens_badly(words, count)) && !runs_in_circles(words, count);
out:
    meed_heap_free(words);
    meed_buf_clear(&bytes);
    return st;
}

enum meed_status meed_synthesis_judge(const struct meed_synthesis_source *source,
                                      const struct meed_rouge_corpus *own, enum meed_role role,
                                      double rouge_max, const char *text,
                                      enum meed_synthesis_fate *fate, double *rouge)
{
    bool well_formed = false;
    struct meed_rouge_score nearest;
    int64_t text_idx;
    size_t size = strlen(text);
    *rouge = 0;
    MEED_TRY(is_well_formed(role, text, &well_formed));
    if (!well_formed) {
        *fate = MEED_SYNTHESIS_MALFORMED;
        return MEED_OK;
    }
    if (own) {
        MEED_TRY(meed_rouge_corpus_nearest(own, text, size, &text_idx, &nearest));
        if (nearest.f1 == 1) {
            *fate = MEED_SYNTHESIS_REPEATED;
            return MEED_OK;
        }
    }
    MEED_TRY(meed_rouge_corpus_nearest(role == MEED_ROLE_USER ? source->users : source->replies,
                                       text, size, &text_idx, &nearest));
    *rouge = nearest.f1;
    *fate = nearest.f1 > rouge_max ? MEED_SYNTHESIS_COPIED : MEED_SYNTHESIS_WRITTEN;
    return MEED_OK;
}
