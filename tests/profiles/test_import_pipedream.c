/* PipeDream's graph.txt: units, branches, what is left out, the order, refusals, and the eleven
 * published profiles. */
#include "import_support.h"

#include <jansson.h>
#include <math.h>

COUNTED_SUITE(import_pipedream, .timeout = 60);

/* in → a → { b, c } → d, and two outputs of d of which one is read. */
static const char good[] =
    "node9 -- Concat(1) -- forward_compute_time=1.000, backward_compute_time=2.000, "
    "activation_size=48.0, parameter_size=0.000\n"
    "node1 -- Input0 -- forward_compute_time=7.000, backward_compute_time=0.000, "
    "activation_size=9.0, parameter_size=0.000\n"
    "node2 -- Conv2d(3,  64) -- forward_compute_time=3.000, backward_compute_time=5.000, "
    "activation_size=[64.0; 32.0; 1.0], parameter_size=6912.000\n"
    "node4 -- ReLU -- forward_compute_time=0.500, backward_compute_time=0.000, "
    "activation_size=33.0, parameter_size=0.000 -- stage_id=3\n"
    "node3 -- Tanh -- forward_compute_time=0.500, backward_compute_time=1.000, "
    "activation_size=33.0, parameter_size=0.000\n"
    "\n"
    "node5 -- __getitem__(0) -- forward_compute_time=0.000, backward_compute_time=0.000, "
    "activation_size=1.0, parameter_size=0.000\n"
    "\tnode1 -- node2\n"
    "\tnode2 -- node3\n"
    "\tnode2 -- node4\n"
    "\tnode3 -- node9\n"
    "\tnode4 -- node9\n"
    "\tnode9 -- node5\n";

Test(import_pipedream, reads_units_and_branches) {
    pp_import_options options = {.profile_batch = 8};
    pp_model *model = import_must("pipedream", good, &options);
    cr_assert_eq(model->layer_count, 4); /* neither Input0 nor the unread output */
    cr_assert_eq(model->edge_count, 4);
    cr_assert_str_eq(model->name, "f");
    const pp_layer *conv = layer_called(model, "node2 Conv2d(3, 64)");
    cr_assert_eq(conv->op, PP_OP_OPAQUE);
    cr_assert_float_eq(conv->forward_s, 0.003 / 8, 1e-15);
    cr_assert_float_eq(conv->input_s, 0.0025 / 8, 1e-15);
    cr_assert_float_eq(conv->weight_s, 0.0025 / 8, 1e-15);
    cr_assert(conv->backward_assumed);
    cr_assert_eq(conv->parameter_bytes, 6912);
    cr_assert_eq(conv->output_bytes, 13); /* 97 / 8, rounded up */
    cr_assert_eq(conv->activation_bytes, 13);
    cr_assert(has_edge(model, "node2 Conv2d(3, 64)", "node3 Tanh"));
    cr_assert(has_edge(model, "node2 Conv2d(3, 64)", "node4 ReLU"));
    cr_assert(has_edge(model, "node4 ReLU", "node9 Concat(1)"));
    pp_model_free(model);
}

/* Readers are visited by description, ReLU before Tanh, and what is visited last comes first. */
Test(import_pipedream, orders_as_the_original) {
    static const char *const names[] = {"node2 Conv2d(3, 64)", "node3 Tanh", "node4 ReLU",
                                        "node9 Concat(1)"};
    pp_model *model = import_must("pipedream", good, NULL);
    for (int i = 0; i < 4; i++) cr_expect_str_eq(model->layers[i].name, names[i]);
    cr_assert_eq(model->layers[0].output_bytes, 97); /* the minibatch is one sample */
    pp_model_free(model);
}

static const spoiled refusals[] = {
    {NULL, "", ":1:1", "no layers"},
    {NULL, "\n\n", ":2:1", "no layers"},
    {"Conv2d(3,  64) -- ", "", ":3:1", "expected 'nodeN -- description"},
    {"forward_compute_time=3.000, ", "", ":3:28", "forward_compute_time is missing"},
    {"forward_compute_time=3.000", "forward_compute_time=-3", ":3:49", "0 or more, not '-3'"},
    {"forward_compute_time=3.000", "forward_compute_time=nan", ":3:49", "not 'nan'"},
    {"forward_compute_time=3.000", "forward_compute_time=inf", ":3:49", "not 'inf'"},
    {"forward_compute_time=3.000", "forward_compute_time=", ":3:49", "not ''"},
    {"forward_compute_time=3.000", "forward_compute_time=1e300", ":3:49", "more than 2^46"},
    {"backward_compute_time=5.000", "forward_compute_time=5.000", ":3:56", "stands twice"},
    {"backward_compute_time=5.000", "sideways=5.000", ":3:56", "unknown field 'sideways'"},
    {"backward_compute_time=5.000", "backward", ":3:56", "expected 'nodeN"},
    {"[64.0; 32.0; 1.0]", "[64.0; 32.0", ":3:101", "has no ']'"},
    {"[64.0; 32.0; 1.0]", "[64.0; x]", ":3:108", "not 'x'"},
    {" -- stage_id=3", " -- 3", ":4:121", "stage_id=N"},
    {"node4 -- ReLU", "node3 -- ReLU", ":5:1", "'node3' stands here a second time"},
    {"\tnode1 -- node2", "\tnode1 node2", ":8:2", "expected an edge"},
    {"\tnode1 -- node2", "\tnode1 -- node7", ":8:11", "no node is called 'node7'"},
    {"\tnode9 -- node5", "\tnode9 -- node2", ":12:2", "cycle"},
    {"\tnode9 -- node5", "\tnode9 -- node9", ":13:2", "closes a cycle through 'node9'"},
    {"Tanh", "T\xC0nh", ":5:11", "0xc0; expected UTF-8"},
    {"Tanh", "T\x1bnh", ":5:11", "0x1b; expected UTF-8"},
    {NULL, "\xFF\xFEn", ":1:1", "UTF-16"},
};

Test(import_pipedream, refuses) {
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        expect_refusal("pipedream", good, &refusals[i]);
}

/* ---- the published profiles ------------------------------------------------------------------ */

static pp_model *published(const char *name) {
    char path[400], file[100];
    pp_model *model;
    pp_error error = {0};
    snprintf(file, sizeof file, "pipedream/%s/graph.txt", name);
    if (!data_file(file, path)) cr_skip_test("no %s (set PPSIM_TEST_DATA)", path);
    cr_assert_eq(pp_import_file("pipedream", path, NULL, &model, &error), PP_OK, "%s: %s",
                 error.place, error.message);
    cr_assert_str_eq(model->name, name);
    return model;
}

/* Layers and edges, counted by another program (grep). */
static const struct {
    const char *name;
    int layers, edges;
} profiles[] = {{"alexnet", 22, 22},       {"densenet121", 428, 486},  {"gnmt", 37, 46},
                {"gnmt_large", 77, 102},   {"inception_v3", 325, 361}, {"resnet101", 346, 379},
                {"resnet18", 70, 78},      {"resnet50", 176, 192},     {"resnext50", 176, 192},
                {"squeezenet1_0", 67, 75}, {"vgg16", 40, 40}};

Test(import_pipedream, reads_the_published_profiles) {
    for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++) {
        pp_model *model = published(profiles[i].name);
        cr_expect_eq(model->layer_count, profiles[i].layers, "%s", profiles[i].name);
        cr_expect_eq(model->edge_count, profiles[i].edges, "%s", profiles[i].name);
        pp_model_free(model);
    }
}

static void compare_order(const pp_model *model, const json_t *expected) {
    const json_t *ids = json_object_get(expected, "node_ids");
    const json_t *costs = json_object_get(expected, "cost");
    cr_assert_eq(json_array_size(ids), (size_t)model->layer_count);
    for (int i = 0; i < model->layer_count; i++) {
        const pp_layer *layer = &model->layers[i];
        const char *id = json_string_value(json_array_get(ids, (size_t)i));
        double us = 1e6 * (layer->forward_s + layer->input_s + layer->weight_s);
        cr_expect(strncmp(layer->name, id, strlen(id)) == 0 && layer->name[strlen(id)] == ' ',
                  "%s: layer %d is %s, not %s", model->name, i, layer->name, id);
        cr_expect_eq(llround(us), json_integer_value(json_array_get(costs, (size_t)i)));
    }
}

/* The order in which PipeDream's own topological_sort puts them, and its times. */
Test(import_pipedream, keeps_the_published_order) {
    char path[400];
    if (!data_file("planner/chain_partition.json", path))
        cr_skip_test("no %s (set PPSIM_TEST_DATA)", path);
    pp_model *vgg16 = published("vgg16"), *resnet50 = published("resnet50");
    json_set_alloc_funcs(malloc, free); /* ours serve documents alone */
    json_t *document = json_load_file(path, 0, NULL);
    cr_assert(document);
    compare_order(vgg16, json_object_get(document, "pipedream/vgg16"));
    compare_order(resnet50, json_object_get(document, "pipedream/resnet50"));
    json_decref(document);
    pp_model_free(vgg16);
    pp_model_free(resnet50);
}
