/* What the files of `ppsim export` share. A system is a file export_NAME.c and a row of the table
 * in cmd_export.c. What a system cannot do is refused; what it can do but not be told is warned of.
 */
#ifndef PPSIM_EXPORT_INTERNAL_H
#define PPSIM_EXPORT_INTERNAL_H

#include "cli/cli.h"

#define PP_EXPORT_FILES 2

/* A plan on its way out. */
typedef struct pp_export {
    const pp_plan *plan;
    const pp_schedule *schedule;    /* its compute actions, expanded */
    const char *system;             /* "Megatron-LM", for messages */
    pp_text files[PP_EXPORT_FILES]; /* filled by the exporter */
    pp_arena arena;
    pp_error *error;
} pp_export;

typedef struct pp_exporter {
    const char *name;                   /* "megatron" */
    const char *system;                 /* "Megatron-LM" */
    const char *version;                /* whose documentation and source this was written from */
    const char *files[PP_EXPORT_FILES]; /* their names; the second may be NULL */
    pp_status (*write)(pp_export *e);
} pp_exporter;

pp_status pp_export_pytorch(pp_export *e);
pp_status pp_export_megatron(pp_export *e);
pp_status pp_export_deepspeed(pp_export *e);
pp_status pp_export_vllm(pp_export *e);

/* ---- export_common.c ------------------------------------------------------------------------ */

/* PP_E_UNSUPPORTED: "Megatron-LM cannot run this plan: …". */
pp_status pp_export_refuse(const pp_export *e, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Refuses a last microbatch that is smaller than the others. */
pp_status pp_export_even_batch(const pp_export *e);
/* Warns if processes are to run on other devices than their own numbers. */
void pp_export_warn_devices(const pp_export *e);
/* Warns if gradients are reduced beside compute, which is not told to the system itself. */
void pp_export_warn_overlap(const pp_export *e);
/* The recomputation that all stages share; stages that differ are refused. */
pp_status pp_export_recompute(const pp_export *e, pp_recompute *recompute);
pp_status pp_export_refuse_recompute(const pp_export *e, pp_recompute recompute);
/* Name of the layer at a position of the plan's order. */
const char *pp_export_layer(const pp_export *e, int position);
/* "# model, K=4, …": what the file came from, behind `comment`. */
void pp_export_heading(pp_export *e, int file, const char *comment);

/* A transformer as those systems know it that build their models themselves. */
typedef struct pp_export_transformer {
    int *blocks;           /* [stages] transformer layers of each */
    int block_count;       /* of all */
    const pp_layer *block; /* any: all are alike */
    const pp_layer *head;
    bool ends_alone; /* the embedding is not in the first stage or the head not in the last */
    int embedding_stage, head_stage;
} pp_export_transformer;

/* Refuses a model that is not embedding, equal transformer layers and head, in this order. */
pp_status pp_export_read_transformer(pp_export *e, pp_export_transformer *t);

#endif
