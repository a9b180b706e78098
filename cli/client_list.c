/* See client_list.h. */
#include "cli/client_list.h"

#include <string.h>
#include "base/buf.h"

enum meed_status meed_client_list_parse(const char *text, struct meed_client_list *list)
{
    size_t length = strlen(text), count = 1;
    for (size_t i = 0; i < length; i++) {
        count += text[i] == ',';
    }
    struct meed_client_list made = {meed_heap_alloc(length + 1, 1),
                                    meed_heap_alloc(count, sizeof *made.ids), 0};
    if (!made.text || !made.ids) {
        meed_client_list_clear(&made);
        return MEED_NOMEM;
    }
    memcpy(made.text, text, length);
    for (char *at = made.text; at;) {
        char *comma = strchr(at, ',');
        if (comma) {
            *comma = '\0';
        }
        if (*at == '\0') {
            meed_client_list_clear(&made);
            return MEED_FAIL(MEED_ARG, "\"%.64s\" names an empty client", text);
        }
        made.ids[made.count++] = at;
        at = comma ? comma + 1 : NULL;
    }
    *list = made;
    return MEED_OK;
}

void meed_client_list_clear(struct meed_client_list *list)
{
    meed_heap_free(list->text);
    meed_heap_free(list->ids);
    *list = (struct meed_client_list){NULL, NULL, 0};
}
