/* See ranks.h. */
#include "tests/support/ranks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

void ranks_run(ranks_body body, int32_t world, const char *key, unsigned seconds)
{
    pid_t ranks[RANKS_MOST];
    int how = 0;
    assert_in_range(world, 1, RANKS_MOST);
    fflush(NULL);
    for (int32_t r = 0; r < world; r++) {
        ranks[r] = fork();
        assert_true(ranks[r] >= 0);
        if (ranks[r] == 0) {
            alarm(seconds);
            _exit(body(r, world, key));
        }
    }
    for (int32_t r = 0; r < world; r++) {
        assert_int_equal(waitpid(ranks[r], &how, 0), ranks[r]);
        if (!WIFEXITED(how) || WEXITSTATUS(how) != 0) {
            fail_msg("rank %d of %d ended with %d", r, world, how);
        }
    }
}
