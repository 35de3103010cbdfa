/* List scheduling along an order that is given (guided.c). */
#ifndef PPSIM_SIM_GUIDED_INTERNAL_H
#define PPSIM_SIM_GUIDED_INTERNAL_H

#include "sim/sim.h"

typedef struct pp_guided_rule {
    int limit;          /* chunks that a rank may hold, from the start of F to the end of W */
    int backlog;        /* with more W waiting, one goes before the next F */
    bool keeps_weights; /* W stay in sequence as well; backlog is not used */
    double overrun_s;   /* an action taken from behind may keep the next one waiting so long */
} pp_guided_rule;

/* The order that the rule makes of input->schedule (F, I and W of one chain, each stage's
 * microbatches in sequence), for the input's stage and border costs. *made: NULL if the rule ends
 * with all ranks waiting. Time O(actions · ranks), memory O(actions). */
pp_status pp_guided_schedule(const pp_sim_input *input, const pp_guided_rule *rule,
                             pp_schedule **made, pp_error *error);

#endif
