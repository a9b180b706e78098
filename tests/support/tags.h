/* A small checker of markup: every tag closed by its twin, in order, attributes quoted, nothing
 * raw.
 *
 * Not a parser of HTML: it knows what Meed's page uses. Browsers forgive almost everything, so that
 * a page looks right is no proof; this is.
 */
#ifndef MEED_SUPPORT_TAGS_H
#define MEED_SUPPORT_TAGS_H

/* NULL if the document is well-formed, else what is wrong and where; static storage. */
const char *tags_fault(const char *document);

#endif
