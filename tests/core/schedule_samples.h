/* Orders for the tests of schedules, made without the code under test: 1F1B, GPipe, interleaved and
 * random ones, and two ways to lower them (naive, and PyTorch's round robin over ranks). */
#ifndef PPSIM_TESTS_SCHEDULE_SAMPLES_H
#define PPSIM_TESTS_SCHEDULE_SAMPLES_H

#include "core/core.h"

enum { SAMPLE_RANKS = 64, SAMPLE_STAGES = 256 };

typedef struct sample_row {
    pp_action *items;
    int count, capacity;
} sample_row;

typedef struct sample {
    int ranks, stages, microbatches;
    int placement[SAMPLE_STAGES];
    pp_chain chains[2];
    int chain_count;
    sample_row row[SAMPLE_RANKS];
} sample;

pp_action sample_action(pp_action_kind kind, int stage, int microbatch);
sample sample_new(int ranks, int stages, int microbatches); /* loop placement, one chain */
void sample_push(sample *s, int rank, pp_action action);
void sample_free(sample *s);

sample sample_gpipe(int ranks, int microbatches);
sample sample_1f1b(int ranks, int microbatches);
/* Megatron's interleaved 1F1B; microbatches divisible by ranks. */
sample sample_interleaved(int ranks, int microbatches, int virtual_stages);

/* A random order of a random small shape that has at least one execution: stages placed anywhere,
 * one chain or two, whole and split backwards, some recomputed, some overlapped pairs. */
sample sample_random(uint64_t seed, int ranks_most, int microbatches_most);

/* SEND right behind its producer, RECV right before its consumer. */
sample sample_lower_naive(const sample *s);
/* Ranks take turns; whoever computes puts the SEND into its own list and the RECV into the
 * receiver's. */
sample sample_lower_round_robin(const sample *s);

pp_schedule *sample_build(const sample *s);                 /* asserts; pp_schedule_free */
int sample_neighbour(const sample *s, int stage, int step); /* step ±1; -1 at the chain's end */

/* Small deterministic generator for tests: splitmix64. */
uint64_t sample_next(uint64_t *state);
int sample_below(uint64_t *state, int bound);

/* Drops, doubles, swaps or moves an action of one rank, or parts a pair. */
void sample_damage(sample *s, uint64_t *random);

/* Reads CSV text that must be right. */
pp_schedule *sample_read(const char *csv);

/* Path of a published data file, or NULL (then the caller skips). Into a static buffer. */
const char *sample_data_path(const char *name);

#endif
