/* One line of a data file to one record: a dialogue or a plain text.
 *
 * Apart from dataset.h because it knows JSON and nothing of tokens. The reader is strict where a
 * mistake would change what is learned (roles, kinds, empty answers) and silent about keys it does
 * not know, since data files carry ids, sources and scores.
 */
#ifndef MEED_CLIENT_DATASET_FORM_H
#define MEED_CLIENT_DATASET_FORM_H

#include "base/arena.h"
#include "engine/chat.h"

MEED_BEGIN_C

struct meed_dataset_record {
    struct meed_dialogue dialogue; /* count 0: `text` instead */
    int32_t score_from;            /* first message whose answer is learned */
    const char *text;
    size_t text_size;
};

/* Everything is allocated from arena. FORMAT with a sentence that completes "FILE:LINE: ". */
MEED_MUST_CHECK enum meed_status meed_dataset_form_parse(const char *line, size_t size,
                                                         struct meed_arena *arena,
                                                         struct meed_dataset_record *record);

MEED_END_C
#endif
