/* Max-min fairness by progressive filling (Bertsekas and Gallager, "Data networks", 6.5.2): all
 * rates rise together from 0; when a card is full, those through it stay where they are and the
 * rest goes on; none rises above 1. In the end each flow has rate 1 or passes a full card on which
 * none has more than it.
 *
 * A flow that comes or goes changes rates only where flows hang together through common cards: that
 * part of the network is found first. */
#include "sim/fair_share_internal.h"

void pp_network_init(pp_network *network, int cards, int flows, pp_arena *arena) {
    *network = (pp_network){.flows = PP_NEW(arena, pp_flow, flows),
                            .first = PP_NEW(arena, int, cards),
                            .left = PP_NEW(arena, double, cards),
                            .load = PP_NEW(arena, int, cards),
                            .card_stamp = PP_NEW(arena, int, cards),
                            .cards = PP_NEW(arena, int, cards),
                            .changed = PP_NEW(arena, int, flows)};
    for (int c = 0; !arena->failed && c < cards; c++) network->first[c] = -1;
}

/* ---- who is there -------------------------------------------------------------------------- */

/* Which of its two lists a flow is in for this card. */
static int side_of(const pp_flow *flow, int card) {
    return flow->card[0] == card ? 0 : 1;
}

static void join(pp_network *network, int f, int side) {
    pp_flow *flow = &network->flows[f];
    int card = flow->card[side], next = network->first[card];
    flow->previous[side] = -1;
    flow->next[side] = next;
    if (next >= 0) network->flows[next].previous[side_of(&network->flows[next], card)] = f;
    network->first[card] = f;
}

static void leave(pp_network *network, int f, int side) {
    pp_flow *flow = &network->flows[f];
    int card = flow->card[side], next = flow->next[side], previous = flow->previous[side];
    if (next >= 0) network->flows[next].previous[side_of(&network->flows[next], card)] = previous;
    if (previous >= 0)
        network->flows[previous].next[side_of(&network->flows[previous], card)] = next;
    else
        network->first[card] = next;
}

/* ---- the part that a change concerns --------------------------------------------------------- */

static void add_card(pp_network *network, int card) {
    if (network->card_stamp[card] == network->stamp) return;
    network->card_stamp[card] = network->stamp;
    network->left[card] = 1;
    network->load[card] = 0;
    network->cards[network->card_count++] = card;
}

static void add_flow(pp_network *network, int f) {
    pp_flow *flow = &network->flows[f];
    if (flow->stamp == network->stamp) return;
    flow->stamp = network->stamp;
    flow->rate = -1; /* not known yet */
    network->changed[network->changed_count++] = f;
    for (int side = 0; side < 2; side++) {
        add_card(network, flow->card[side]);
        network->load[flow->card[side]] += flow->copies;
    }
}

static void gather(pp_network *network, const pp_flow *around) {
    network->stamp++;
    network->card_count = network->changed_count = 0;
    for (int side = 0; side < 2; side++) add_card(network, around->card[side]);
    for (int i = 0; i < network->card_count; i++) {
        int card = network->cards[i];
        for (int f = network->first[card]; f >= 0;) {
            const pp_flow *flow = &network->flows[f];
            add_flow(network, f);
            f = flow->next[side_of(flow, card)];
        }
    }
}

/* ---- filling ------------------------------------------------------------------------------- */

/* The rate at which the next card is full; 1 if none will be. */
static double next_level(const pp_network *network, int *full) {
    double level = 1;
    *full = -1;
    for (int i = 0; i < network->card_count; i++) {
        int card = network->cards[i];
        if (network->load[card] == 0) continue;
        double share = network->left[card] / network->load[card];
        if (share >= level) continue;
        level = share;
        *full = card;
    }
    return level;
}

static void settle(pp_network *network, pp_flow *flow, double rate) {
    if (flow->rate >= 0) return;
    flow->rate = rate;
    for (int side = 0; side < 2; side++) {
        network->left[flow->card[side]] -= flow->copies * rate;
        network->load[flow->card[side]] -= flow->copies;
    }
}

static void fill(pp_network *network) {
    int full;
    double level = next_level(network, &full);
    for (; full >= 0; level = next_level(network, &full))
        for (int f = network->first[full]; f >= 0;) {
            pp_flow *flow = &network->flows[f];
            settle(network, flow, level);
            f = flow->next[side_of(flow, full)];
        }
    for (int i = 0; i < network->changed_count; i++)
        settle(network, &network->flows[network->changed[i]], 1);
}

void pp_network_start(pp_network *network, int flow) {
    for (int side = 0; side < 2; side++) join(network, flow, side);
    gather(network, &network->flows[flow]);
    fill(network);
}

void pp_network_stop(pp_network *network, int flow) {
    for (int side = 0; side < 2; side++) leave(network, flow, side);
    network->flows[flow].rate = 0;
    gather(network, &network->flows[flow]);
    fill(network);
}
