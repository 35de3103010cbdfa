/* Who gets how much of the network cards: max-min fair rates of flows that come and go. */
#ifndef PPSIM_SIM_FAIR_SHARE_INTERNAL_H
#define PPSIM_SIM_FAIR_SHARE_INTERNAL_H

#include "core/core.h"

/* One transfer, or several equal ones side by side, through two different cards. */
typedef struct pp_flow {
    int card[2];
    int copies;               /* side by side; each gets `rate` */
    double rate;              /* 0 … 1, which is a whole card; 0: it is not there */
    int next[2], previous[2]; /* in the list of either card; -1: none */
    int stamp;
} pp_flow;

typedef struct pp_network {
    pp_flow *flows;
    int *first;   /* [cards] first flow through each; -1: none */
    double *left; /* [cards] scratch of a change … */
    int *load;    /* [cards] … copies without a rate yet */
    int *card_stamp;
    int stamp;
    int *cards; /* the cards that the last change concerned … */
    int card_count;
    int *changed; /* … and the flows there are on them, whose rates it has set */
    int changed_count;
} pp_network;

/* The caller then sets card and copies of each flow. Memory is the arena's, which says if there was
 * none. */
void pp_network_init(pp_network *network, int cards, int flows, pp_arena *arena);
/* A flow comes or goes: sets the rates of all that it shares cards with, directly or through
 * others. O(flows · cards among those). */
void pp_network_start(pp_network *network, int flow);
void pp_network_stop(pp_network *network, int flow);

#endif
