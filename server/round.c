/* See round.h. The stages are one table; only OPEN has logic of its own. */
#include "server/round.h"

#include <string.h>

/* From a phase, by the one event it waits for, to the next phase with its action. */
struct stage {
    enum meed_round_phase from;
    enum meed_round_event_kind by;
    enum meed_round_phase to;
    uint32_t action;
};
static const struct stage stages[] = {
    {MEED_ROUND_SCREEN, MEED_ROUND_EVENT_SCREENED, MEED_ROUND_VALUE, MEED_ROUND_DO_VALUE},
    {MEED_ROUND_VALUE, MEED_ROUND_EVENT_VALUED, MEED_ROUND_SETTLE, MEED_ROUND_DO_SETTLE},
    {MEED_ROUND_SETTLE, MEED_ROUND_EVENT_SETTLED, MEED_ROUND_PUBLISH, MEED_ROUND_DO_PUBLISH},
    {MEED_ROUND_PUBLISH, MEED_ROUND_EVENT_PUBLISHED, MEED_ROUND_OPEN, MEED_ROUND_DO_OPEN},
    {MEED_ROUND_ABANDON, MEED_ROUND_EVENT_PUBLISHED, MEED_ROUND_OPEN, MEED_ROUND_DO_OPEN},
};

enum meed_status meed_round_init(const struct meed_round_config *config, struct meed_round *round)
{
    return meed_round_resume(config, 1, MEED_ROUND_OPEN, round);
}

enum meed_status meed_round_resume(const struct meed_round_config *config, int32_t round_idx,
                                   enum meed_round_phase phase, struct meed_round *round)
{
    if (config->rounds < 1 || config->rounds > MEED_LIMIT_ROUNDS) {
        return MEED_FAIL(MEED_CONFIG, "rounds is %d; 1 to %d", config->rounds, MEED_LIMIT_ROUNDS);
    }
    if (config->clients < 1 || config->clients > MEED_LIMIT_CLIENTS) {
        return MEED_FAIL(MEED_CONFIG, "%d clients; a run has 1 to %d", config->clients,
                         MEED_LIMIT_CLIENTS);
    }
    if (config->quorum < 1 || config->quorum > config->clients) {
        return MEED_FAIL(MEED_CONFIG, "quorum is %d; 1 to the number of clients, %d",
                         config->quorum, config->clients);
    }
    if (config->deadline_ms < 1) {
        return MEED_FAIL(MEED_CONFIG, "deadline is %lld ms; it must be positive",
                         (long long)config->deadline_ms);
    }
    if (round_idx < 1 || round_idx > config->rounds || phase < 0 ||
        phase >= MEED_ROUND_PHASE_COUNT) {
        return MEED_FAIL(MEED_STATE, "the stored round %d in phase %d is not one of this run",
                         round_idx, (int)phase);
    }
    memset(round, 0, sizeof *round);
    round->config = *config;
    round->round = round_idx;
    round->phase = phase;
    round->deadline_at_ms = -1;
    return MEED_OK;
}

static bool client_known(const struct meed_round *round, int32_t client)
{
    return client >= 0 && client < round->config.clients;
}

enum meed_status meed_round_mark(struct meed_round *round, int32_t client)
{
    if (!client_known(round, client) || meed_round_has(round, client)) {
        return MEED_FAIL(MEED_STATE, "a stored update of client %d cannot be", client);
    }
    round->arrived[client / 8] |= (uint8_t)(1u << (client % 8));
    round->arrived_count++;
    return MEED_OK;
}

bool meed_round_has(const struct meed_round *round, int32_t client)
{
    return client_known(round, client) && (round->arrived[client / 8] >> (client % 8) & 1) != 0;
}

int64_t meed_round_remaining_ms(const struct meed_round *round, int64_t now_ms)
{
    if (round->deadline_at_ms < 0) {
        return -1;
    }
    return now_ms < round->deadline_at_ms ? round->deadline_at_ms - now_ms : 0;
}

/* Order matters: who, which round, a repetition (good news even after closing), then when and what.
 */
enum meed_round_verdict meed_round_judge(const struct meed_round *round,
                                         const struct meed_round_event *event)
{
    if (!client_known(round, event->client)) {
        return MEED_ROUND_STRANGER;
    }
    if (event->round < round->round) {
        return MEED_ROUND_STALE;
    }
    if (event->round > round->round) {
        return MEED_ROUND_EARLY;
    }
    if (meed_round_has(round, event->client)) {
        return event->same_bytes ? MEED_ROUND_DUPLICATE : MEED_ROUND_CONFLICT;
    }
    if (round->phase != MEED_ROUND_OPEN) {
        return MEED_ROUND_LATE;
    }
    return event->shape_fits ? MEED_ROUND_TAKEN : MEED_ROUND_MISSHAPEN;
}

static void close_round(struct meed_round_outcome *outcome, enum meed_round_phase phase,
                        uint32_t action)
{
    outcome->next.phase = phase;
    outcome->next.deadline_at_ms = -1;
    outcome->actions |= action;
}

static void step_update(const struct meed_round *round, const struct meed_round_event *event,
                        struct meed_round_outcome *outcome)
{
    outcome->verdict = meed_round_judge(round, event);
    if (outcome->verdict != MEED_ROUND_TAKEN) {
        return;
    }
    struct meed_round *next = &outcome->next;
    next->arrived[event->client / 8] |= (uint8_t)(1u << (event->client % 8));
    next->arrived_count++;
    outcome->actions = MEED_ROUND_DO_STORE;
    if (next->arrived_count == next->config.clients) {
        close_round(outcome, MEED_ROUND_SCREEN, MEED_ROUND_DO_SCREEN);
    }
}

static void step_tick(const struct meed_round *round, int64_t now_ms,
                      struct meed_round_outcome *outcome)
{
    if (round->phase != MEED_ROUND_OPEN) {
        return;
    }
    bool all_in = round->arrived_count == round->config.clients;
    bool over = round->deadline_at_ms >= 0 && now_ms >= round->deadline_at_ms;
    if (all_in || (over && round->arrived_count >= round->config.quorum)) {
        close_round(outcome, MEED_ROUND_SCREEN, MEED_ROUND_DO_SCREEN);
    } else if (over) {
        close_round(outcome, MEED_ROUND_ABANDON, MEED_ROUND_DO_ABANDON);
    }
}

static void step_stage(const struct meed_round *round, enum meed_round_event_kind by,
                       struct meed_round_outcome *outcome)
{
    outcome->verdict = MEED_ROUND_OUT_OF_ORDER;
    for (size_t i = 0; i < MEED_COUNT(stages); i++) {
        if (stages[i].from != round->phase || stages[i].by != by) {
            continue;
        }
        struct meed_round *next = &outcome->next;
        outcome->verdict = MEED_ROUND_TAKEN;
        outcome->actions = stages[i].action;
        next->phase = stages[i].to;
        if (next->phase != MEED_ROUND_OPEN) {
            return;
        }
        if (round->round == round->config.rounds) {
            next->phase = MEED_ROUND_FINISHED;
            outcome->actions = MEED_ROUND_DO_FINISH;
            return;
        }
        next->round++;
        next->arrived_count = 0;
        memset(next->arrived, 0, sizeof next->arrived);
        return;
    }
}

void meed_round_step(const struct meed_round *round, const struct meed_round_event *event,
                     struct meed_round_outcome *outcome)
{
    outcome->verdict = MEED_ROUND_TAKEN;
    outcome->actions = 0;
    outcome->next = *round;
    switch (event->kind) {
    case MEED_ROUND_EVENT_PRESENT:
        if (round->phase == MEED_ROUND_OPEN && round->deadline_at_ms < 0) {
            outcome->next.deadline_at_ms = event->now_ms + round->config.deadline_ms;
        }
        break;
    case MEED_ROUND_EVENT_UPDATE:
        step_update(round, event, outcome);
        break;
    case MEED_ROUND_EVENT_TICK:
        step_tick(round, event->now_ms, outcome);
        break;
    default:
        step_stage(round, event->kind, outcome);
        break;
    }
}

enum meed_status meed_round_verdict_status(const struct meed_round *round,
                                           enum meed_round_verdict verdict, int32_t update_round)
{
    switch (verdict) {
    case MEED_ROUND_TAKEN:
    case MEED_ROUND_DUPLICATE:
        return MEED_OK;
    case MEED_ROUND_CONFLICT:
        return MEED_FAIL(MEED_STATE, "another update of this client is in for round %d; it stands",
                         round->round);
    case MEED_ROUND_LATE:
        return MEED_FAIL(MEED_STATE, "round %d has closed; wait for the next to open",
                         round->round);
    case MEED_ROUND_STALE:
        return MEED_FAIL(MEED_STATE, "round %d is over, round %d is on; pull and train again",
                         update_round, round->round);
    case MEED_ROUND_EARLY:
        return MEED_FAIL(MEED_STATE, "round %d has not begun, round %d is on", update_round,
                         round->round);
    case MEED_ROUND_STRANGER:
        return MEED_FAIL(MEED_DENIED, "this client is not in the roster");
    case MEED_ROUND_MISSHAPEN:
        return MEED_FAIL(
            MEED_FORMAT,
            "the update does not fit the plan of round %d in size or model; train with "
            "the terms that Join returned",
            round->round);
    default:
        return MEED_FAIL(MEED_BUG, "a result of a stage that round %d (%s) does not wait for",
                         round->round, meed_round_phase_name(round->phase));
    }
}

const char *meed_round_verdict_name(enum meed_round_verdict verdict)
{
    static const char *const names[MEED_ROUND_VERDICT_COUNT] = {
        "taken", "duplicate", "conflict",  "late",        "stale",
        "early", "stranger",  "misshapen", "out_of_order"};
    return verdict >= 0 && verdict < MEED_ROUND_VERDICT_COUNT ? names[verdict] : "?";
}

const char *meed_round_phase_name(enum meed_round_phase phase)
{
    static const char *const names[MEED_ROUND_PHASE_COUNT] = {
        "open", "screening", "valuing", "settling", "publishing", "abandoned", "finished"};
    return phase >= 0 && phase < MEED_ROUND_PHASE_COUNT ? names[phase] : "?";
}
