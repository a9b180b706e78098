/* Gates of a stack: one number an adapter and gate set, spread over the tail columns of each layout
 * on the way in; gradients of the columns summed back to one number an adapter on the way out. The
 * sums run in fp64, layout by layout and column by column, so they repeat. */
#include "engine/net_internal.h"

#include <string.h>
#include "base/buf.h"

void meed_net_gates_clear(struct meed_net *net)
{
    struct meed_net_gates *gates = &net->gates;
    meed_heap_free(gates->gates_host);
    meed_heap_free(gates->dgates_host);
    meed_device_arena_clear(&gates->device);
    *gates = (struct meed_net_gates){0};
}

static void lay_out(const struct meed_net *net, struct meed_net_gates *gates)
{
    int64_t count = net->layout_width * gates->capacity;
    gates->gates = meed_device_arena_take(&gates->device, count, sizeof(float));
    gates->dgates = meed_device_arena_take(&gates->device, count, sizeof(double));
}

/* Room for `sets` vectors: asked for before a batch, never inside one. */
static enum meed_status make_room(struct meed_net *net, int32_t sets)
{
    struct meed_net_gates *gates = &net->gates;
    if (sets <= gates->capacity) {
        return MEED_OK;
    }
    meed_net_gates_clear(net);
    gates->capacity = sets;
    size_t count = (size_t)(net->layout_width * sets);
    gates->gates_host = meed_heap_alloc(MEED_MAX(count, (size_t)1), sizeof(float));
    gates->dgates_host = meed_heap_alloc(MEED_MAX(count, (size_t)1), sizeof(double));
    enum meed_status st = gates->gates_host && gates->dgates_host ? MEED_OK : MEED_NOMEM;
    if (st == MEED_OK) {
        meed_device_arena_init(&gates->device, net->be);
        lay_out(net, gates);
        st = meed_device_arena_reserve(&gates->device);
    }
    if (st != MEED_OK) {
        meed_net_gates_clear(net);
        return st;
    }
    lay_out(net, gates);
    return MEED_OK;
}

static void spread(const struct meed_net *net, const float *gates, int32_t sets)
{
    for (int32_t i = 0; i < net->layout_count; i++) {
        const struct meed_net_group *model = net->layouts[i].model;
        for (int32_t set = 0; set < sets; set++) {
            float *to = net->gates.gates_host + net->layouts[i].begin * sets + set * model->r;
            memset(to, 0, (size_t)model->r * sizeof *to);
            for (int32_t s = 0; s < model->slot_count; s++) {
                const struct meed_net_slot *slot = &model->slots[s];
                for (int64_t j = 0; j < slot->r; j++) {
                    to[slot->t_begin + j] = gates[set * net->options.adapter_count + slot->adapter];
                }
            }
        }
    }
}

enum meed_status meed_net_set_gates(struct meed_net *net, const float *gates, int32_t gate_sets)
{
    if (gate_sets < 0) {
        return MEED_FAIL(MEED_ARG, "%d gate sets", gate_sets);
    }
    MEED_TRY(make_room(net, gate_sets));
    spread(net, gates, gate_sets);
    net->gates.sets = gate_sets;
    return net->be->copy_to(net->be, net->gates.gates, net->gates.gates_host,
                            (size_t)(net->layout_width * gate_sets) * sizeof(float));
}

int32_t meed_net_gate_sets(const struct meed_net *net)
{
    return net->gates.sets;
}

float *meed_net_gates_of(const struct meed_net *net, const struct meed_net_group *group)
{
    MEED_ASSERT(group->layout >= 0);
    return net->gates.gates + net->layouts[group->layout].begin * net->gates.sets;
}

double *meed_net_dgates_of(const struct meed_net *net, const struct meed_net_group *group)
{
    MEED_ASSERT(group->layout >= 0);
    return net->gates.dgates + net->layouts[group->layout].begin * net->gates.sets;
}

void meed_net_dgates_zero(struct meed_net *net)
{
    net->be->zero(net->be, net->gates.dgates,
                  (size_t)(net->layout_width * net->gates.sets) * sizeof(double));
}

enum meed_status meed_net_dgates_collect(struct meed_net *net, double *dgates)
{
    int32_t sets = net->gates.sets;
    double *host = net->gates.dgates_host;
    MEED_TRY(net->be->copy_from(net->be, host, net->gates.dgates,
                                (size_t)(net->layout_width * sets) * sizeof(double)));
    MEED_TRY(net->be->sync(net->be));
    for (int32_t i = 0; i < net->layout_count; i++) {
        const struct meed_net_group *model = net->layouts[i].model;
        for (int32_t set = 0; set < sets; set++) {
            const double *from = host + net->layouts[i].begin * sets + set * model->r;
            for (int32_t s = 0; s < model->slot_count; s++) {
                const struct meed_net_slot *slot = &model->slots[s];
                for (int64_t j = 0; j < slot->r; j++) {
                    dgates[set * net->options.adapter_count + slot->adapter] -=
                        from[slot->t_begin + j];
                }
            }
        }
    }
    return MEED_OK;
}
