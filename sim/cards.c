/* Network cards: a node has one, full duplex, so it counts as two, one outward and one inward. A
 * transfer between two nodes passes the outward one of its sender's node and the inward one of its
 * receiver's, unless its link is its own. */
#include "sim/engine_internal.h"

int pp_card_out(int node) {
    return 2 * node;
}

int pp_card_in(int node) {
    return 2 * node + 1;
}

int pp_card_count(const pp_sim_input *input) {
    int most = -1;
    for (int p = 0; input->cards && p < input->schedule->ranks; p++)
        if (input->cards->node[p] > most) most = input->cards->node[p];
    return 2 * (most + 1);
}

bool pp_passes_cards(const pp_run *run, int stage, bool backward) {
    const pp_sim_cards *cards = run->input->cards;
    const int *placement = run->schedule->placement;
    int to = backward ? run->previous[stage] : run->next[stage];
    if (!cards || to < 0 || cards->node[placement[stage]] == cards->node[placement[to]])
        return false;
    const bool *passes = backward ? cards->backward : cards->forward;
    return !passes || passes[backward ? to : stage];
}

/* The border of this stage takes a card for itself, or finds another pair of ranks there. */
static bool meets_another(const pp_run *run, int stage, bool backward, int *sender, int *receiver) {
    const pp_sim_cards *cards = run->input->cards;
    pp_sending sending = pp_action_sending(run->input, run->previous, run->next, stage,
                                           backward ? PP_BACKWARD : PP_FORWARD);
    int from = run->schedule->placement[stage];
    if (sending.to < 0 || sending.occupancy_s <= 0 || !pp_passes_cards(run, stage, backward))
        return false;
    if (cards->copies && cards->copies[from] > 1) return true;
    const int card[2] = {pp_card_out(cards->node[from]), pp_card_in(cards->node[sending.to])};
    for (int i = 0; i < 2; i++) {
        bool free = sender[card[i]] < 0;
        if (!free && (sender[card[i]] != from || receiver[card[i]] != sending.to)) return true;
        sender[card[i]] = from;
        receiver[card[i]] = sending.to;
    }
    return false;
}

pp_status pp_cards_shared(const pp_run *run, bool *shared, pp_error *error) {
    int count = pp_card_count(run->input);
    *shared = false;
    if (count == 0) return PP_OK;
    int *sender = PP_NEW(run->arena, int, count);
    int *receiver = PP_NEW(run->arena, int, count);
    if (run->arena->failed) return pp_fail_memory(error);
    for (int i = 0; i < count; i++) sender[i] = receiver[i] = -1;
    for (int s = 0; !*shared && s < run->schedule->stages; s++)
        for (int backward = 0; backward < 2; backward++)
            if (meets_another(run, s, backward, sender, receiver)) *shared = true;
    return PP_OK;
}
