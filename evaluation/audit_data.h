/* What an audit reads of a client's data: dialogues as they were learned, and the secrets in them.
 *
 * The reader stands in cli/ (the forms of a data line belong to client/, which this folder does not
 * know); the attacks of extraction.h, membership.h and prefix_frequency.h take records. A secret is
 * a span of a message that somebody labelled: a card number, a name, an access code. It is given as
 * its text, the key "secrets" of a line.
 */
#ifndef MEED_EVALUATION_AUDIT_DATA_H
#define MEED_EVALUATION_AUDIT_DATA_H

#include "base/arena.h"
#include "engine/chat.h"

MEED_BEGIN_C

struct meed_audit_record {
    struct meed_dialogue dialogue; /* count 0: `text` instead, all of it learned */
    const char *text;
    struct meed_sequence sequence; /* the record's tokens; scored: what was learned */
    const char **secrets;          /* [secret_count] each a part of some message */
    int32_t secret_count;
    int32_t line; /* of the file, from 1 */
};

struct meed_audit_data {
    struct meed_arena arena; /* owns everything */
    const char *path;        /* for messages */
    struct meed_audit_record *records;
    int32_t count;
    int32_t secret_count; /* of all records */
};

MEED_END_C
#endif
