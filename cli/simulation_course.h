/* The course of a combination: utility and leakage of what each round published, means over seeds.
 *
 * Ends alone do not compare methods that learn at different speeds: one that leaks less may only be
 * behind. Along the course every method passes the same utilities, and what each leaked there can
 * be compared.
 */
#ifndef MEED_CLI_SIMULATION_COURSE_H
#define MEED_CLI_SIMULATION_COURSE_H

#include <jansson.h>

/* [{"round", "utility", "leak": gain of ROUGE-L over the base}] from the documents of a row's
 * cells, the rounds that were attacked; [] where none were. NULL when out of memory. */
json_t *meed_simulation_course(const json_t *documents);

#endif
