/* Tiny models, plans and schedules for tests of the executor, made by hand: what is tested here
 * must not lean on the simulator's schedules. No Criterion: the thread sanitizer runs these too. */
#ifndef PPSIM_TESTS_RUN_FIXTURE_H
#define PPSIM_TESTS_RUN_FIXTURE_H

#include "executor/executor.h"

/* Says why a test fails; false. */
bool fixture_failed(char message[512], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Models as documents. */
extern const char fixture_gpt[];    /* 6 layers, embedding tied with the head, dropout */
extern const char fixture_ties[];   /* 5 layers, one matrix shared by three of them */
extern const char fixture_graph[];  /* 12 layers with edges over one and more layers, dropout */
extern const char fixture_llama[];  /* 5 layers, RMS norms, shared keys and values */
extern const char fixture_bert[];   /* 4 layers, tied, hidden tokens, dropout */
extern const char fixture_mlp[];    /* 6 layers fed with features */
extern const char fixture_opaque[]; /* 4 layers of known times */

/* Split: 1F1B with B as I and W, W late. Pairs: 1F1B whose steady state runs B and F as one. Loops:
 * all forwards of a stage, then the next stage of the rank; for virtual stages. */
typedef enum fixture_order {
    ORDER_GPIPE,
    ORDER_1F1B,
    ORDER_SPLIT,
    ORDER_PAIRS,
    ORDER_LOOPS
} fixture_order;

/* What to run. Zero is a default where it can be. */
typedef struct fixture_request {
    const char *model;
    int ranks, virtual_stages; /* virtual 0: 1 */
    int splits[64];            /* first layer of stages 1 …; splits[0] = 0: even */
    int microbatches;
    int64_t microbatch_size, global_batch; /* global 0: full microbatches */
    int dp;                                /* 0: 1 */
    int zero;                              /* 1: replicas share out the optimizer */
    pp_dtype dtype;
    pp_optimizer optimizer;
    fixture_order order;
    pp_recompute recompute; /* mixed: fixture_policy of each stage */
} fixture_request;

/* Each of a few policies in turn, for stages of a mixed plan and for loops over policies: 0 … count
 * - 1 are all of them. */
enum { FIXTURE_POLICIES = 7 };
pp_recompute fixture_policy(int index);

typedef struct fixture {
    pp_plan *plan;
    pp_schedule *schedule;
} fixture;

/* False, with the reason in message, on any failure. */
bool fixture_make(const fixture_request *request, fixture *made, char message[512]);
void fixture_free(fixture *made);

/* Everything that a run computed. */
typedef struct fixture_record {
    int steps, replicas;
    double losses[64];
    double norms[64]; /* of gradients; NAN where nothing is clipped */
    size_t values; /* per step and replica: all parameters of the model, ties in each */
    double *gradients, *weights; /* [steps · replicas · values] */
    int64_t peak_bytes[64];
    const pp_model *model; /* while running */
} fixture_record;

/* Runs and records. hook: before_action, with its context; NULL for none. */
bool fixture_run(const fixture *what, int steps, const pp_run_options *options,
                 fixture_record *record, char message[512]);
void fixture_record_free(fixture_record *record);
/* Losses, norms, gradients and weights are equal bit for bit. */
bool fixture_same(const fixture_record *a, const fixture_record *b, char message[512]);
/* Norm of the difference of all values over the norm of b's. */
double fixture_distance(const double *a, const double *b, size_t count);

/* Bytes a rank holds at its peak: an oracle that walks the rank's actions over the layouts. */
int64_t fixture_peak(const fixture *what, int rank);

#endif
