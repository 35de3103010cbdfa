/* Private to the model files: the table of ops as documents know them, and the steps between an
 * empty model and a valid one. */
#ifndef PPSIM_MODEL_INTERNAL_H
#define PPSIM_MODEL_INTERNAL_H

#include "core/json_reader.h"

#define PP_LAYERS_MAX 100000
#define PP_EDGES_MAX 1000000
/* Elements of the largest tensor of a layer, for one sample or of its weights: keeps every product
 * that is formed from a model far from overflow. */
#define PP_TENSOR_ELEMENTS_MAX 70368744177664.0 /* 2^46 */

typedef enum pp_op_inputs {
    PP_INPUTS_NONE, /* reads token ids of the data set */
    PP_INPUTS_ONE,  /* one edge, or the data set's features */
    PP_INPUTS_MANY, /* one edge or more */
    PP_INPUTS_ANY   /* opaque: whatever was measured */
} pp_op_inputs;

/* What a layer of an op may and must say in a document, and how it may be connected. */
typedef struct pp_op_rule {
    const pp_field *fields;
    int field_count;
    pp_op_inputs inputs;
    bool loss;
    bool sequence; /* its layers have one, 1 or more */
} pp_op_rule;

const pp_op_rule *pp_op_rule_get(pp_op op);

pp_model *pp_model_new_empty(void); /* NULL when out of memory */
/* edges = the chain */
pp_status pp_model_connect_chain(pp_model *model, pp_error *error);
bool pp_model_is_chain(const pp_model *model);

/* The model of a document, part of a larger one or not. */
pp_status pp_model_from_node(const pp_json_node *document, pp_model **model, pp_error *error);
/* The meaning: names, edges, dimensions, ties, losses. `document` is for places only. */
pp_status pp_model_check(const pp_model *model, const pp_json_node *document, pp_error *error);
/* The elements of the largest tensor of one sample (and, apart, of the weights), over all layers.
 */
double pp_model_sample_elements(const pp_model *model);

/* A preset by name; *found false: there is none. */
pp_status pp_model_preset_make(const char *name, bool *found, pp_model **model, pp_error *error);

#endif
