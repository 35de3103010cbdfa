/* A wire between threads that play processes. Sends rendezvous: a payload is copied when the other
 * side has asked for it, and not before that is the sender done. Letters of two processes keep
 * their order, and arrive after a random while. */
#ifndef PPSIM_TESTS_MEMORY_WIRE_H
#define PPSIM_TESTS_MEMORY_WIRE_H

#include "executor/wire.h"

extern const pp_wire_ops memory_wire;

/* For so many processes, which get their numbers as they join; delays are below delay_s. */
void memory_wire_open(int processes, double delay_s, uint64_t seed);
/* Nothing comes from or reaches this process any more; -1: none. */
void memory_wire_cut(int process);
/* The n-th send from now on fails; 0: none does. */
void memory_wire_fail_send(int n);
/* How many left in order. Frees what was never received. */
int memory_wire_close(void);

#endif
