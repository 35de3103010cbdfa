/* What the files of `ppsim validate` share. */
#ifndef PPSIM_CLI_VALIDATE_INTERNAL_H
#define PPSIM_CLI_VALIDATE_INTERNAL_H

#include "cli/cli.h"
#include "sim/sim.h"

/* ---- validate_explain.c ---- */

/* Why the step of `trace` differs from the simulated one (pp_attribute): pp_attribution_free. */
pp_status pp_explain_make(const pp_plan *plan, const pp_trace *simulated, const pp_trace *trace,
                          pp_attribution **made, pp_error *error);
/* As tables. typical_s: the median step, whose difference to the traced one is a row of its own. */
void pp_explain_text(const pp_attribution *a, double typical_s, pp_text *text);
/* The value of "causes", and one of "stages". */
void pp_explain_json(const pp_attribution *a, double typical_s, pp_json *json);

/* "+1.2 ms" */
void pp_signed_cell(pp_table *table, double seconds);

#endif
