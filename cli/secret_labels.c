/* See secret_labels.h. */
#include "cli/secret_labels.h"

#include <string.h>

enum { MAX_SECRETS = 1 << 10 };

static bool stands_in(const struct meed_dialogue *dialogue, const char *text, const char *secret)
{
    bool found = dialogue->count == 0 && text && strstr(text, secret);
    for (int32_t m = 0; m < dialogue->count; m++) {
        found = found || strstr(dialogue->messages[m].content, secret);
    }
    return found;
}

enum meed_status meed_secret_labels_read(const json_t *line, const struct meed_dialogue *dialogue,
                                         const char *text, struct meed_arena *arena,
                                         struct meed_secret_labels *labels)
{
    const json_t *list = json_object_get(line, "secrets");
    void *block;
    *labels = (struct meed_secret_labels){.count = 0};
    if (!list) {
        return MEED_OK;
    }
    if (!json_is_array(list) || json_array_size(list) > MAX_SECRETS) {
        return MEED_FAIL(MEED_FORMAT, "\"secrets\" has to be a list of at most %d texts",
                         MAX_SECRETS);
    }
    MEED_TRY(meed_arena_alloc_array(arena, json_array_size(list), sizeof *labels->texts, &block));
    labels->texts = block;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *secret = json_string_value(json_array_get(list, i));
        char *copy;
        if (!secret || !*secret || !stands_in(dialogue, text, secret)) {
            return MEED_FAIL(MEED_FORMAT,
                             "secret %zu is no text that stands in one of the messages", i + 1);
        }
        MEED_TRY(meed_arena_strdup(arena, secret, strlen(secret), &copy));
        labels->texts[labels->count++] = copy;
    }
    return MEED_OK;
}
