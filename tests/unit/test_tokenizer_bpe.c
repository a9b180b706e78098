/* The byte-pair loops against the definition.
 *
 * Goal: array loop and heap loop give what "join the pair of lowest rank, leftmost first, until
 * none is left" gives. Method: random small models (three letters, random merges), random words on
 * both sides of the length where the loops change, and the definition written out below.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include "base/rng.h"
#include "engine/tokenizer_bpe.h"

enum { TOKENS = 64, MERGES = 40, WORD = 300 };

struct model {
    struct meed_arena arena;
    struct meed_tokenizer_bpe bpe;
    char texts[TOKENS][64];
    int32_t left[MERGES];
    int32_t right[MERGES];
    int32_t merged[MERGES];
    int merges;
};

static void model_make(struct model *model, struct meed_rng *rng)
{
    memset(model, 0, sizeof *model);
    meed_arena_init_growing(&model->arena, "test", 1 << 22);
    assert_int_equal(meed_tokenizer_bpe_init(&model->bpe, &model->arena, TOKENS, MERGES), MEED_OK);
    int count = 3;
    for (int i = 0; i < count; i++) {
        model->texts[i][0] = (char)('a' + i);
    }
    for (int i = 0; i < count; i++) {
        model->bpe.tokens[i] = (struct meed_tokenizer_text){model->texts[i], 1};
        meed_tokenizer_bpe_enter(&model->bpe, i);
    }
    while (model->merges < MERGES) {
        int32_t left = (int32_t)meed_rng_below(rng, (uint64_t)count);
        int32_t right = (int32_t)meed_rng_below(rng, (uint64_t)count);
        char text[128];
        size_t length =
            (size_t)snprintf(text, sizeof text, "%s%s", model->texts[left], model->texts[right]);
        if (length > 12) {
            continue;
        }
        int32_t id = meed_tokenizer_bpe_find(&model->bpe, text, length);
        if (id < 0) {
            id = count++;
            memcpy(model->texts[id], text, length);
            model->bpe.tokens[id] = (struct meed_tokenizer_text){model->texts[id], (int32_t)length};
            meed_tokenizer_bpe_enter(&model->bpe, id);
        }
        bool again = false;
        for (int i = 0; i < model->merges; i++) {
            again = again || (model->left[i] == left && model->right[i] == right);
        }
        if (!again) {
            model->left[model->merges] = left;
            model->right[model->merges] = right;
            model->merged[model->merges] = id;
            meed_tokenizer_bpe_add_merge(&model->bpe, left, right, model->merges, id);
        }
        model->merges += !again;
    }
}

static int by_definition(const struct model *model, const char *word, size_t size, int32_t *ids)
{
    int count = (int)size;
    for (int i = 0; i < count; i++) {
        ids[i] = word[i] - 'a';
    }
    for (int rank = 0; rank < model->merges; rank++) {
        for (int i = 0; i + 1 < count; i++) {
            if (ids[i] == model->left[rank] && ids[i + 1] == model->right[rank]) {
                ids[i] = model->merged[rank];
                memmove(&ids[i + 1], &ids[i + 2], (size_t)(count - i - 2) * sizeof *ids);
                count--;
                rank = -1; /* a lower rank may have become possible: start over */
                break;
            }
        }
    }
    return count;
}

static void tokenizer_bpe_follows_the_definition(void **state)
{
    (void)state;
    struct meed_rng rng = meed_rng_stream(11, "bpe", 0);
    struct meed_tokenizer_scratch scratch;
    meed_tokenizer_bpe_scratch_init(&scratch);
    static struct model model;
    for (int m = 0; m < 30; m++) {
        model_make(&model, &rng);
        for (int w = 0; w < 200; w++) {
            char word[WORD];
            int32_t want[WORD];
            size_t size = 1 + meed_rng_below(&rng, w % 2 ? WORD - 1 : 60);
            for (size_t i = 0; i < size; i++) {
                word[i] = (char)('a' + meed_rng_below(&rng, 3));
            }
            struct meed_buf ids;
            meed_buf_init(&ids, 1 << 16);
            assert_int_equal(meed_tokenizer_bpe_encode(&model.bpe, word, size, &scratch, &ids),
                             MEED_OK);
            int count = by_definition(&model, word, size, want);
            assert_int_equal(ids.size, (size_t)count * sizeof *want);
            assert_memory_equal(ids.data, want, ids.size);
            meed_buf_clear(&ids);
        }
        meed_arena_clear(&model.arena);
    }
    meed_tokenizer_bpe_scratch_clear(&scratch);
}

/* A byte without a token is dropped, or becomes the unknown token, once for a run if fused. */
static void tokenizer_bpe_handles_bytes_without_token(void **state)
{
    (void)state;
    struct meed_rng rng = meed_rng_stream(12, "bpe", 0);
    static struct model model;
    model_make(&model, &rng);
    struct meed_tokenizer_scratch scratch;
    meed_tokenizer_bpe_scratch_init(&scratch);
    static const struct {
        int32_t unknown;
        bool fuse;
        size_t count;
    } cases[] = {{-1, false, 2}, {9, false, 4}, {9, true, 3}};
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        model.bpe.unknown = cases[i].unknown;
        model.bpe.fuse_unknown = cases[i].fuse;
        model.bpe.merge_mask = 0; /* one free slot: no merges */
        model.bpe.merges[0].pair = MEED_TOKENIZER_NO_PAIR;
        struct meed_buf ids;
        meed_buf_init(&ids, 1 << 16);
        assert_int_equal(meed_tokenizer_bpe_encode(&model.bpe, "axyb", 4, &scratch, &ids), MEED_OK);
        assert_int_equal(ids.size, cases[i].count * sizeof(int32_t));
        meed_buf_clear(&ids);
    }
    meed_tokenizer_bpe_scratch_clear(&scratch);
    meed_arena_clear(&model.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_bpe_follows_the_definition),
        cmocka_unit_test(tokenizer_bpe_handles_bytes_without_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
