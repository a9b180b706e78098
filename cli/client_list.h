/* "a,b,c" on a command line as a list of names. Ids themselves are checked where they are used. */
#ifndef MEED_CLI_CLIENT_LIST_H
#define MEED_CLI_CLIENT_LIST_H

#include <stdint.h>
#include "base/status.h"

struct meed_client_list {
    char *text; /* a copy, cut into pieces */
    const char **ids;
    int32_t count;
};

/* ARG for an empty name. */
MEED_MUST_CHECK enum meed_status meed_client_list_parse(const char *text,
                                                        struct meed_client_list *list);
void meed_client_list_clear(struct meed_client_list *list); /* accepts a zeroed struct */

#endif
