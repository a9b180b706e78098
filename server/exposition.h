/* The pages of the small HTTP server, rendered from a runner: Prometheus text, health, dashboard.
 *
 * Metric names follow Prometheus' rules: prefix meed_, base units, counters end in _total. Client
 * ids are labels, because the roster is fixed and bounded; nothing else of a stranger is. Counters
 * count this process's life, as scrapers expect; money and rounds come from the state.
 */
#ifndef MEED_SERVER_EXPOSITION_H
#define MEED_SERVER_EXPOSITION_H

#include "server/metrics.h"
#include "server/runner.h"

MEED_BEGIN_C

/* A meed_metrics_render_fn; user is a struct meed_runner *. */
MEED_MUST_CHECK enum meed_status meed_exposition_render(void *user, enum meed_metrics_page page,
                                                        struct meed_buf *text, bool *good);

MEED_END_C
#endif
