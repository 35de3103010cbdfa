/* A stand-in for libcudnn.so.9 on memory of the host: the functions that ppsim calls, with the
 * rules of the backend API: descriptors are made, set with attributes of the right type and number,
 * finalized once, and only then named by others; operations stand where their inputs are known;
 * ids are unique; a pack binds exactly the tensors that are in memory or by value. Whoever breaks
 * one is refused and counted. Running a plan evaluates the graph (evaluate.c). */
#include "stand_in_graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { SUCCESS = 0, BAD_PARAM = 2000, NOT_SUPPORTED = 3000, INTERNAL_ERROR = 4000, LIVE = 4096 };

EXPORT dnn_stand_in dnn_control;

struct dnn_context {
    void *stream;
};

static descriptor *live[LIVE];

#define control dnn_control

static int wrong(const char *what) {
    if (control.wrong++ == 0) snprintf(control.first, sizeof control.first, "%s", what);
    return BAD_PARAM;
}

/* Whether this call is the one that fails. */
static bool fails(void) {
    control.calls++;
    return control.fail_at > 0 && --control.fail_at == 0;
}

/* ---- attributes ---------------------------------------------------------------------------- */

#define D(name) DNN_BACKEND_##name##_DESCRIPTOR
#define A(name) DNN_ATTR_##name
#define T(name) DNN_TYPE_##name

/* What may be set, and must (needed): of which type and how many. names: a descriptor of which
 * type it names, or -1. */
static const struct rule {
    int type, name, attribute_type;
    int64_t least, most;
    bool needed;
    int names;
} rules[] = {
    {D(TENSOR), A(TENSOR_UNIQUE_ID), T(INT64), 1, 1, true, -1},
    {D(TENSOR), A(TENSOR_DATA_TYPE), T(DATA_TYPE), 1, 1, true, -1},
    {D(TENSOR), A(TENSOR_DIMENSIONS), T(INT64), 4, 4, true, -1},
    {D(TENSOR), A(TENSOR_STRIDES), T(INT64), 4, 4, true, -1},
    {D(TENSOR), A(TENSOR_BYTE_ALIGNMENT), T(INT64), 1, 1, true, -1},
    {D(TENSOR), A(TENSOR_IS_VIRTUAL), T(BOOLEAN), 1, 1, false, -1},
    {D(TENSOR), A(TENSOR_IS_BY_VALUE), T(BOOLEAN), 1, 1, false, -1},
    {D(POINTWISE), A(POINTWISE_MODE), T(POINTWISE_MODE), 1, 1, true, -1},
    {D(POINTWISE), A(POINTWISE_MATH_PREC), T(DATA_TYPE), 1, 1, true, -1},
    {D(POINTWISE), A(POINTWISE_AXIS), T(INT64), 1, 1, false, -1},
    {D(MATMUL), A(MATMUL_COMP_TYPE), T(DATA_TYPE), 1, 1, true, -1},
    {D(REDUCTION), A(REDUCTION_OPERATOR), T(REDUCTION_OPERATOR_TYPE), 1, 1, true, -1},
    {D(REDUCTION), A(REDUCTION_COMP_TYPE), T(DATA_TYPE), 1, 1, true, -1},
    {D(OPERATION_POINTWISE), A(OPERATION_POINTWISE_PW_DESCRIPTOR), T(BACKEND_DESCRIPTOR), 1, 1,
     true, D(POINTWISE)},
    {D(OPERATION_POINTWISE), A(OPERATION_POINTWISE_XDESC), T(BACKEND_DESCRIPTOR), 1, 1, true,
     D(TENSOR)},
    {D(OPERATION_POINTWISE), A(OPERATION_POINTWISE_BDESC), T(BACKEND_DESCRIPTOR), 1, 1, false,
     D(TENSOR)},
    {D(OPERATION_POINTWISE), A(OPERATION_POINTWISE_TDESC), T(BACKEND_DESCRIPTOR), 1, 1, false,
     D(TENSOR)},
    {D(OPERATION_POINTWISE), A(OPERATION_POINTWISE_YDESC), T(BACKEND_DESCRIPTOR), 1, 1, true,
     D(TENSOR)},
    {D(OPERATION_MATMUL), A(OPERATION_MATMUL_DESC), T(BACKEND_DESCRIPTOR), 1, 1, true, D(MATMUL)},
    {D(OPERATION_MATMUL), A(OPERATION_MATMUL_ADESC), T(BACKEND_DESCRIPTOR), 1, 1, true, D(TENSOR)},
    {D(OPERATION_MATMUL), A(OPERATION_MATMUL_BDESC), T(BACKEND_DESCRIPTOR), 1, 1, true, D(TENSOR)},
    {D(OPERATION_MATMUL), A(OPERATION_MATMUL_CDESC), T(BACKEND_DESCRIPTOR), 1, 1, true, D(TENSOR)},
    {D(OPERATION_REDUCTION), A(OPERATION_REDUCTION_DESC), T(BACKEND_DESCRIPTOR), 1, 1, true,
     D(REDUCTION)},
    {D(OPERATION_REDUCTION), A(OPERATION_REDUCTION_XDESC), T(BACKEND_DESCRIPTOR), 1, 1, true,
     D(TENSOR)},
    {D(OPERATION_REDUCTION), A(OPERATION_REDUCTION_YDESC), T(BACKEND_DESCRIPTOR), 1, 1, true,
     D(TENSOR)},
    {D(OPERATION_RESHAPE), A(OPERATION_RESHAPE_XDESC), T(BACKEND_DESCRIPTOR), 1, 1, true,
     D(TENSOR)},
    {D(OPERATION_RESHAPE), A(OPERATION_RESHAPE_YDESC), T(BACKEND_DESCRIPTOR), 1, 1, true,
     D(TENSOR)},
    {D(OPERATIONGRAPH), A(OPERATIONGRAPH_HANDLE), T(HANDLE), 1, 1, true, -1},
    {D(OPERATIONGRAPH), A(OPERATIONGRAPH_OPS), T(BACKEND_DESCRIPTOR), 1, 64, true, -1},
    {D(ENGINEHEUR), A(ENGINEHEUR_OPERATION_GRAPH), T(BACKEND_DESCRIPTOR), 1, 1, true,
     D(OPERATIONGRAPH)},
    {D(ENGINEHEUR), A(ENGINEHEUR_MODE), T(HEUR_MODE), 1, 1, true, -1},
    {D(EXECUTION_PLAN), A(EXECUTION_PLAN_HANDLE), T(HANDLE), 1, 1, true, -1},
    {D(EXECUTION_PLAN), A(EXECUTION_PLAN_ENGINE_CONFIG), T(BACKEND_DESCRIPTOR), 1, 1, true,
     D(ENGINECFG)},
    {D(VARIANT_PACK), A(VARIANT_PACK_UNIQUE_IDS), T(INT64), 1, 64, true, -1},
    {D(VARIANT_PACK), A(VARIANT_PACK_DATA_POINTERS), T(VOID_PTR), 1, 64, true, -1},
    {D(VARIANT_PACK), A(VARIANT_PACK_WORKSPACE), T(VOID_PTR), 1, 1, true, -1},
};
enum { RULES = sizeof rules / sizeof *rules };

static size_t width_of(int attribute_type) {
    switch (attribute_type) {
    case DNN_TYPE_BOOLEAN:
        return sizeof(bool);
    case DNN_TYPE_INT64:
        return sizeof(int64_t);
    case DNN_TYPE_HANDLE:
    case DNN_TYPE_VOID_PTR:
    case DNN_TYPE_BACKEND_DESCRIPTOR:
        return sizeof(void *);
    default:
        return sizeof(int);
    }
}

static const attribute *find(const descriptor *d, int name) {
    for (int i = 0; i < d->attribute_count; i++)
        if (d->attributes[i].name == name) return &d->attributes[i];
    return NULL;
}

const void *dnn_values(const descriptor *d, int name, int64_t *count) {
    const attribute *found = find(d, name);
    if (count) *count = found ? found->count : 0;
    return found ? found->values : NULL;
}

int64_t dnn_number(const descriptor *d, int name) {
    const attribute *found = find(d, name);
    if (!found) return -1;
    size_t width = width_of(found->type);
    if (width == sizeof(bool)) return *(const bool *)found->values;
    if (width == sizeof(int64_t)) return *(const int64_t *)found->values;
    return *(const int *)found->values;
}

descriptor *dnn_other(const descriptor *d, int name) {
    const attribute *found = find(d, name);
    return found ? *(descriptor *const *)found->values : NULL;
}

static bool lives(const descriptor *d) {
    for (int i = 0; d && i < LIVE; i++)
        if (live[i] == d) return true;
    return false;
}

static const struct rule *rule_of(int type, int name) {
    for (int i = 0; i < RULES; i++)
        if (rules[i].type == type && rules[i].name == name) return &rules[i];
    return NULL;
}

static int check_named(const struct rule *rule, int64_t count, const void *values) {
    for (int64_t i = 0; i < count; i++) {
        const descriptor *named = ((descriptor *const *)values)[i];
        if (!lives(named)) return wrong("a descriptor is named that is not there");
        if (!named->finalized) return wrong("a descriptor is named before it is finalized");
        if (rule->names >= 0 && named->type != rule->names) return wrong("the wrong kind is named");
    }
    return SUCCESS;
}

/* ---- graphs -------------------------------------------------------------------------------- */

static const struct {
    int type, inputs[3], output;
} operations[] = {
    {D(OPERATION_POINTWISE),
     {A(OPERATION_POINTWISE_XDESC), A(OPERATION_POINTWISE_BDESC), A(OPERATION_POINTWISE_TDESC)},
     A(OPERATION_POINTWISE_YDESC)},
    {D(OPERATION_MATMUL),
     {A(OPERATION_MATMUL_ADESC), A(OPERATION_MATMUL_BDESC), -1},
     A(OPERATION_MATMUL_CDESC)},
    {D(OPERATION_REDUCTION), {A(OPERATION_REDUCTION_XDESC), -1, -1}, A(OPERATION_REDUCTION_YDESC)},
    {D(OPERATION_RESHAPE), {A(OPERATION_RESHAPE_XDESC), -1, -1}, A(OPERATION_RESHAPE_YDESC)},
};

typedef struct seen {
    const descriptor *tensors[64];
    int written[64], read[64], count;
} seen;

/* The tensor's place among those seen; -1: its id is another's. */
static int place(seen *s, const descriptor *tensor) {
    for (int i = 0; i < s->count; i++) {
        if (s->tensors[i] == tensor) return i;
        if (dnn_number(s->tensors[i], A(TENSOR_UNIQUE_ID)) ==
            dnn_number(tensor, A(TENSOR_UNIQUE_ID)))
            return -1;
    }
    s->tensors[s->count] = tensor;
    return s->count++;
}

static int check_operation(seen *s, const descriptor *operation) {
    int kind = 0;
    while (kind < 4 && operations[kind].type != operation->type) kind++;
    if (kind == 4) return wrong("a graph of something else than operations");
    for (int i = 0; i < 3; i++) {
        const descriptor *input = dnn_other(operation, operations[kind].inputs[i]);
        int at = input ? place(s, input) : 0;
        if (!input) continue;
        if (at < 0) return wrong("two tensors have one id");
        s->read[at]++;
        if (dnn_number(input, A(TENSOR_IS_VIRTUAL)) > 0 && s->written[at] == 0)
            return wrong("a virtual tensor is read before it is made");
    }
    const descriptor *output = dnn_other(operation, operations[kind].output);
    int at = place(s, output);
    if (at < 0) return wrong("two tensors have one id");
    if (dnn_number(output, A(TENSOR_IS_BY_VALUE)) > 0) return wrong("a number is written to");
    return s->written[at]++ > 0 ? wrong("a tensor is written twice") : SUCCESS;
}

static int check_graph(const descriptor *graph) {
    seen s = {.count = 0};
    int64_t count;
    descriptor *const *ops = dnn_values(graph, A(OPERATIONGRAPH_OPS), &count);
    for (int64_t i = 0; i < count; i++)
        if (check_operation(&s, ops[i]) != SUCCESS) return BAD_PARAM;
    control.operations = (int)count;
    control.tensors = s.count;
    control.virtual_tensors = 0;
    for (int i = 0; i < s.count; i++) {
        if (dnn_number(s.tensors[i], A(TENSOR_IS_VIRTUAL)) <= 0) continue;
        control.virtual_tensors++;
        if (s.read[i] == 0) return wrong("nobody reads a virtual tensor");
    }
    return SUCCESS;
}

static int check_tensor(const descriptor *tensor) {
    const int64_t *dims = dnn_values(tensor, A(TENSOR_DIMENSIONS), NULL);
    for (int axis = 0; axis < 4; axis++)
        if (dims[axis] < 1) return wrong("a dimension is below 1");
    return dnn_number(tensor, A(TENSOR_IS_VIRTUAL)) > 0 &&
                   dnn_number(tensor, A(TENSOR_IS_BY_VALUE)) > 0
               ? wrong("a tensor is virtual and by value")
               : SUCCESS;
}

static int check_pointwise(const descriptor *operation) {
    const descriptor *math = dnn_other(operation, A(OPERATION_POINTWISE_PW_DESCRIPTOR));
    const descriptor *b = dnn_other(operation, A(OPERATION_POINTWISE_BDESC));
    const descriptor *t = dnn_other(operation, A(OPERATION_POINTWISE_TDESC));
    const descriptor *y = dnn_other(operation, A(OPERATION_POINTWISE_YDESC));
    int64_t mode = dnn_number(math, A(POINTWISE_MODE)), type = dnn_number(y, A(TENSOR_DATA_TYPE));
    bool unary = mode == DNN_POINTWISE_EXP || mode == DNN_POINTWISE_LOG ||
                 mode == DNN_POINTWISE_IDENTITY || mode == DNN_POINTWISE_GEN_INDEX;
    bool select = mode == DNN_POINTWISE_BINARY_SELECT;
    if ((b == NULL) != unary || (t != NULL) != select) return wrong("the wrong number of inputs");
    if (mode == DNN_POINTWISE_GEN_INDEX &&
        (type != DNN_DATA_INT32 || dnn_number(math, A(POINTWISE_AXIS)) < 0))
        return wrong("an index has an axis and is an integer");
    if ((mode == DNN_POINTWISE_CMP_GE) != (type == DNN_DATA_BOOLEAN))
        return wrong("comparisons are boolean, and nothing else");
    return select && dnn_number(t, A(TENSOR_DATA_TYPE)) != DNN_DATA_BOOLEAN
               ? wrong("a choice is boolean")
               : SUCCESS;
}

static int check_matmul(const descriptor *operation) {
    const int64_t *a =
        dnn_values(dnn_other(operation, A(OPERATION_MATMUL_ADESC)), A(TENSOR_DIMENSIONS), NULL);
    const int64_t *b =
        dnn_values(dnn_other(operation, A(OPERATION_MATMUL_BDESC)), A(TENSOR_DIMENSIONS), NULL);
    const int64_t *c =
        dnn_values(dnn_other(operation, A(OPERATION_MATMUL_CDESC)), A(TENSOR_DIMENSIONS), NULL);
    bool fits = a[0] == b[0] && a[0] == c[0] && a[1] == c[1] && a[1] % b[1] == 0 && a[2] == c[2] &&
                a[3] == b[2] && b[3] == c[3];
    return fits ? SUCCESS : wrong("shapes of a product do not fit");
}

static int finish_plan(descriptor *plan) {
    const descriptor *engine = dnn_other(plan, A(EXECUTION_PLAN_ENGINE_CONFIG));
    plan->engine = engine->engine;
    plan->graph = engine->graph;
    return plan->engine < control.refusing ? NOT_SUPPORTED : SUCCESS;
}

static int check_pack(const descriptor *pack) {
    int64_t ids, pointers;
    dnn_values(pack, A(VARIANT_PACK_UNIQUE_IDS), &ids);
    dnn_values(pack, A(VARIANT_PACK_DATA_POINTERS), &pointers);
    return ids == pointers ? SUCCESS : wrong("ids and pointers differ in number");
}

static int check(descriptor *d) {
    switch (d->type) {
    case D(TENSOR):
        return check_tensor(d);
    case D(OPERATION_POINTWISE):
        return check_pointwise(d);
    case D(OPERATION_MATMUL):
        return check_matmul(d);
    case D(OPERATIONGRAPH):
        return check_graph(d);
    case D(EXECUTION_PLAN):
        return finish_plan(d);
    case D(VARIANT_PACK):
        return check_pack(d);
    default:
        return SUCCESS;
    }
}

/* ---- the functions ------------------------------------------------------------------------- */

EXPORT size_t cudnnGetVersion(void) {
    return control.version ? control.version : 91900;
}

EXPORT const char *cudnnGetErrorString(int status) {
    return status == SUCCESS         ? "success"
           : status == BAD_PARAM     ? "bad parameter"
           : status == NOT_SUPPORTED ? "not supported"
                                     : "internal error";
}

EXPORT int cudnnCreate(dnn_context **context) {
    if (fails()) return INTERNAL_ERROR;
    *context = calloc(1, sizeof **context);
    control.contexts++;
    return SUCCESS;
}

EXPORT int cudnnDestroy(dnn_context *context) {
    control.contexts--;
    free(context);
    return SUCCESS;
}

EXPORT int cudnnSetStream(dnn_context *context, void *stream) {
    if (fails()) return INTERNAL_ERROR;
    context->stream = stream;
    return SUCCESS;
}

EXPORT int cudnnBackendCreateDescriptor(int type, dnn_descriptor *made) {
    int i = 0;
    if (fails()) return INTERNAL_ERROR;
    while (i < LIVE && live[i]) i++;
    if (i == LIVE) return INTERNAL_ERROR;
    live[i] = calloc(1, sizeof *live[i]);
    live[i]->type = type;
    control.made++;
    control.live++;
    *made = live[i];
    return SUCCESS;
}

EXPORT int cudnnBackendDestroyDescriptor(dnn_descriptor given) {
    descriptor *d = given;
    if (!lives(d)) return wrong("a descriptor is destroyed that is not there");
    for (int i = 0; i < LIVE; i++)
        if (live[i] == d) live[i] = NULL;
    for (int i = 0; i < d->attribute_count; i++) free(d->attributes[i].values);
    free(d);
    control.live--;
    return SUCCESS;
}

EXPORT int cudnnBackendSetAttribute(dnn_descriptor given, int name, int type, int64_t count,
                                    const void *values) {
    descriptor *d = given;
    if (fails()) return INTERNAL_ERROR;
    if (!lives(d)) return wrong("an attribute of a descriptor that is not there");
    const struct rule *rule = rule_of(d->type, name);
    if (!rule) return wrong("an attribute that the descriptor does not have");
    if (d->finalized) return wrong("an attribute is set after the descriptor is finalized");
    if (find(d, name)) return wrong("an attribute is set twice");
    if (type != rule->attribute_type) return wrong("an attribute has the wrong type");
    if (count < rule->least || count > rule->most)
        return wrong("an attribute has the wrong number");
    if (type == DNN_TYPE_BACKEND_DESCRIPTOR && check_named(rule, count, values) != SUCCESS)
        return BAD_PARAM;
    attribute set = {name, type, count, malloc((size_t)count * width_of(type))};
    memcpy(set.values, values, (size_t)count * width_of(type));
    d->attributes[d->attribute_count++] = set;
    return SUCCESS;
}

EXPORT int cudnnBackendFinalize(dnn_descriptor given) {
    descriptor *d = given;
    if (fails()) return INTERNAL_ERROR;
    if (!lives(d) || d->finalized) return wrong("a descriptor is not there or finalized twice");
    for (int i = 0; i < RULES; i++)
        if (rules[i].type == d->type && rules[i].needed && !find(d, rules[i].name))
            return wrong("an attribute is missing");
    int status = check(d);
    d->finalized = status == SUCCESS;
    control.finalized += d->finalized;
    return status;
}

static int get_engines(const descriptor *heuristics, int64_t room, int64_t *count, void *values) {
    int engines = control.engines == 0 ? 1 : control.engines < 0 ? 0 : control.engines;
    descriptor **configurations = values;
    for (int64_t i = 0; i < engines && i < room; i++) {
        descriptor *c = configurations[i];
        if (!lives(c) || c->type != D(ENGINECFG) || c->finalized)
            return wrong("engines are asked for in something else");
        c->finalized = true;
        c->engine = (int)i;
        c->graph = dnn_other(heuristics, A(ENGINEHEUR_OPERATION_GRAPH));
    }
    *count = engines;
    return SUCCESS;
}

EXPORT int cudnnBackendGetAttribute(dnn_descriptor given, int name, int type, int64_t room,
                                    int64_t *count, void *values) {
    const descriptor *d = given;
    if (fails()) return INTERNAL_ERROR;
    if (!lives(d) || !d->finalized) return wrong("a descriptor is asked before it is finalized");
    if (name == A(ENGINEHEUR_RESULTS) && type == T(BACKEND_DESCRIPTOR) && d->type == D(ENGINEHEUR))
        return get_engines(d, room, count, values);
    if (name != A(EXECUTION_PLAN_WORKSPACE_SIZE) || type != T(INT64) || room < 1)
        return wrong("something is asked for that there is not");
    *(int64_t *)values = control.workspace_bytes[d->engine];
    *count = 1;
    return SUCCESS;
}

/* ---- running ------------------------------------------------------------------------------- */

static void *bound(void *context, int64_t id) {
    int64_t count;
    const int64_t *ids = dnn_values(context, A(VARIANT_PACK_UNIQUE_IDS), &count);
    void *const *pointers = dnn_values(context, A(VARIANT_PACK_DATA_POINTERS), NULL);
    for (int64_t i = 0; i < count; i++)
        if (ids[i] == id) return control.host ? control.host(pointers[i]) : pointers[i];
    return NULL;
}

/* Exactly the tensors that are not virtual, at aligned addresses. */
static int check_bindings(const descriptor *graph, descriptor *pack) {
    int bound_count = 0;
    int64_t count, op_count;
    descriptor *const *ops = dnn_values(graph, A(OPERATIONGRAPH_OPS), &op_count);
    seen s = {.count = 0};
    for (int64_t i = 0; i < op_count; i++)
        for (int k = 0; k < ops[i]->attribute_count; k++) {
            descriptor *named = *(descriptor *const *)ops[i]->attributes[k].values;
            if (named->type == D(TENSOR)) place(&s, named);
        }
    for (int i = 0; i < s.count; i++) {
        if (dnn_number(s.tensors[i], A(TENSOR_IS_VIRTUAL)) > 0) continue;
        void *address = bound(pack, dnn_number(s.tensors[i], A(TENSOR_UNIQUE_ID)));
        bound_count++;
        if (!address) return wrong("a tensor has no memory");
        if (dnn_number(s.tensors[i], A(TENSOR_IS_BY_VALUE)) <= 0 && (uintptr_t)address % 16 != 0)
            return wrong("memory is not aligned");
    }
    dnn_values(pack, A(VARIANT_PACK_UNIQUE_IDS), &count);
    return count == bound_count ? SUCCESS
                                : wrong("memory for a tensor that the graph does not have");
}

EXPORT int cudnnBackendExecute(dnn_context *context, dnn_descriptor plan, dnn_descriptor pack) {
    const descriptor *p = plan;
    if (fails()) return INTERNAL_ERROR;
    if (!context || !lives(p) || !p->finalized || !lives(pack) || !((descriptor *)pack)->finalized)
        return wrong("a plan or a pack is not finalized");
    if (!lives(p->graph)) return wrong("the graph of a plan is gone");
    if (check_bindings(p->graph, pack) != SUCCESS) return BAD_PARAM;
    void *workspace = *(void *const *)dnn_values(pack, A(VARIANT_PACK_WORKSPACE), NULL);
    int64_t bytes = control.workspace_bytes[p->engine];
    if (bytes > 0) memset(control.host ? control.host(workspace) : workspace, 0xff, (size_t)bytes);
    dnn_evaluate(p->graph, bound, pack);
    control.executed++;
    return SUCCESS;
}
