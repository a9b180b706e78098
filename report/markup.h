/* Markup: the text of a page as it grows, with one place where strangers' words become harmless.
 *
 * Two ways in. meed_markup_raw takes what this folder's own source says (tags, coordinates);
 * meed_markup_text takes everything else (client ids, reasons, file names) and escapes it, so that
 * an id of "<script>" is seen and not run. The two are separate functions instead of a format flag,
 * so that a reader can find every raw call with one search.
 *
 * Drawing code appends hundreds of times and can do nothing about a failure in the middle. The
 * status is therefore sticky: after the first failure every append is a no-op, and the page's
 * writer asks once at the end (the rule of stdio's ferror).
 */
#ifndef MEED_REPORT_MARKUP_H
#define MEED_REPORT_MARKUP_H

#include "base/buf.h"

MEED_BEGIN_C

struct meed_markup {
    struct meed_buf text;
    enum meed_status status; /* of the first failure */
    int next_id;             /* for ids that titles and labels refer to */
};

enum { MEED_MARKUP_MAX_BYTES = 256 << 20 };

void meed_markup_init(struct meed_markup *markup);
void meed_markup_clear(struct meed_markup *markup); /* accepts zeroed */
/* Trusted markup only: no %s may carry anything that was read. */
void meed_markup_raw(struct meed_markup *markup, const char *format, ...) MEED_PRINTF(2, 3);
/* Escapes & < > " ' and replaces control characters and what is not UTF-8 by U+FFFD. */
void meed_markup_text(struct meed_markup *markup, const char *text);
/* The same, at most `most` characters, the last an ellipsis where something was cut. */
void meed_markup_text_cut(struct meed_markup *markup, const char *text, int most);
/* Characters (not bytes) of a text. */
int meed_markup_length(const char *text);

MEED_END_C
#endif
