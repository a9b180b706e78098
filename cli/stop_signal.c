/* See stop_signal.h. */
#include "cli/stop_signal.h"

#include <stddef.h>

static volatile sig_atomic_t requested;

static void request(int signal_number)
{
    (void)signal_number;
    requested = 1;
}

volatile sig_atomic_t *meed_stop_signal_catch(void)
{
    struct sigaction action = {.sa_handler = request};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    action.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);
    return &requested;
}
