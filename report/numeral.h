/* Numerals: how numbers look on a page, the same everywhere.
 *
 * An estimate is written to the second digit of its error and no further, with a true minus sign
 * (U+2212, as wide as a plus) and a sign always, so that columns line up under tabular figures.
 * Integers of money and bytes get separators and units as in the command line's tables. What is not
 * finite is an en dash: "not known" must not look like 0.
 */
#ifndef MEED_REPORT_NUMERAL_H
#define MEED_REPORT_NUMERAL_H

#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

struct meed_numeral {
    char text[64];
};

/* −1.7282; with a plus sign where `sign`. decimals 0 … 12. */
struct meed_numeral meed_numeral_fixed(double value, int decimals, bool sign);
/* +0.1173 ± 0.0067: as many decimals as show two digits of se; six where se is 0; "0"
 * where both are; six digits where se is not known. */
struct meed_numeral meed_numeral_estimate(double value, double se);
/* 98.2 ± 1.3 % of a share of 1 and its error; 98.2 % where the error is not known or 0. */
struct meed_numeral meed_numeral_share(double share, double error);
struct meed_numeral meed_numeral_count(int64_t value);             /* 7,969 */
struct meed_numeral meed_numeral_bytes(int64_t bytes);             /* 268 kB; "–" if negative */
struct meed_numeral meed_numeral_percent(double part, double all); /* 26.6 %; "–" of nothing */

MEED_END_C
#endif
