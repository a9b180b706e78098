/* The small HTTP server: /metrics for Prometheus, /healthz for supervisors, / for eyes.
 *
 * One thread of libmicrohttpd, GET only, bound to loopback: what clients earn is nobody's business
 * on the network, and a scraper on another host comes through a tunnel or a proxy that the operator
 * chose. Pages are rendered by the caller on each request; nothing is cached, nothing is loaded
 * from elsewhere.
 */
#ifndef MEED_SERVER_METRICS_H
#define MEED_SERVER_METRICS_H

#include "base/buf.h"

MEED_BEGIN_C

enum meed_metrics_page { MEED_METRICS_PROMETHEUS, MEED_METRICS_HEALTH, MEED_METRICS_DASHBOARD };

/* Appends the page. For HEALTH, *good decides between 200 and 503. Any thread. */
typedef enum meed_status (*meed_metrics_render_fn)(void *user, enum meed_metrics_page page,
                                                   struct meed_buf *text, bool *good);

struct meed_metrics;

/* port 0: any free one. IO if it is taken. */
MEED_MUST_CHECK enum meed_status meed_metrics_start(int port, meed_metrics_render_fn render,
                                                    void *user, struct meed_metrics **metrics);
int meed_metrics_port(const struct meed_metrics *metrics);
void meed_metrics_stop(struct meed_metrics *metrics); /* accepts NULL */

MEED_END_C
#endif
