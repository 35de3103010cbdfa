/* The formats beside PipeDream's: units, what is repeated, chosen and assumed, refusals, and the
 * published files. */
#include "import_support.h"

#include <math.h>

COUNTED_SUITE(import_formats, .timeout = 60);

#define CLOSE(a, b) cr_expect_float_eq(a, b, 1e-12 * fabs(b) + 1e-300, "%.17g, not %.17g", a, b)

/* ---- layers ---------------------------------------------------------------------------------- */

#define LAYERS_HEADER "layer,forward_ms,backward_ms,parameter_bytes,activation_bytes,output_bytes\n"

static const char layers[] = LAYERS_HEADER "# measured on a Tuesday\n"
                                           "conv1,1.5,2.5,37632,1605632,3211264\n"
                                           "\"fc(8, 2)\", 0.5 ,1e-1,4,9,8\n"
                                           "loss,0,0,0,0,0\n";

Test(import_formats, layers_are_a_chain) {
    pp_import_options options = {.profile_batch = 4};
    pp_model *model = import_must("layers", layers, &options);
    cr_assert_eq(model->layer_count, 3);
    cr_assert_eq(model->edge_count, 2);
    cr_assert(has_edge(model, "conv1", "fc(8, 2)") && has_edge(model, "fc(8, 2)", "loss"));
    const pp_layer *conv = layer_called(model, "conv1"), *fc = layer_called(model, "fc(8, 2)");
    CLOSE(conv->forward_s, 0.0015 / 4);
    CLOSE(conv->input_s, 0.00125 / 4);
    CLOSE(conv->weight_s, 0.00125 / 4);
    cr_assert(conv->backward_assumed);
    cr_assert_eq(conv->parameter_bytes, 37632);
    cr_assert_eq(conv->activation_bytes, 401408);
    cr_assert_eq(conv->output_bytes, 802816);
    cr_assert_eq(fc->activation_bytes, 3); /* 9 / 4, rounded up */
    pp_model_free(model);
}

static const spoiled layers_refusals[] = {
    {NULL, "", ":1:1", "no layers"},
    {NULL, LAYERS_HEADER, ":1:1", "no layers"},
    {"layer,", "", ":1:1", "expected the header layer,forward_ms"},
    {"backward_ms", "backward_s", ":1:18", "unexpected column 'backward_s'"},
    {"backward_ms", "forward_ms", ":1:18", "stands twice"},
    {",output_bytes", "", ":1:1", "expected the header"},
    {"loss", "conv1", ":5:1", "'conv1' stands here a second time"},
    {"loss", "", ":5:1", "the layer has no name"},
    {"1.5", "-1.5", ":3:7", "forward_ms must be a number, 0 or more, not '-1.5'"},
    {"1.5", "nan", ":3:7", "not 'nan'"},
    {"1.5", "inf", ":3:7", "not 'inf'"},
    {"1.5", "0x10", ":3:7", "not '0x10'"},
    {"1.5", "", ":3:7", "not ''"},
    {"37632", "1e15", ":3:15", "parameter_bytes is more than 2^46"},
    {",3211264", "", ":3:1", "expected 6 cells"},
    {",3211264", ",1,2", ":3:1", "expected 6 cells"},
    {"2)\"", "2)", ":4:1", "never closed"},
    {"2)\"", "2)\"x", ":4:11", "expected a comma"},
};

Test(import_formats, layers_refuses) {
    for (size_t i = 0; i < sizeof layers_refusals / sizeof *layers_refusals; i++)
        expect_refusal("layers", layers, &layers_refusals[i]);
}

/* ---- aceso ----------------------------------------------------------------------------------- */

static const char aceso[] = "op_name,forward-compute,backward-compute,input_size,output_size,"
                            "weights,activations,fwd_reserved,bwd_reserved\n"
                            "encoder-embedding,173.5,1486.5,0.008,8.000,208.000,12.000,0.000,220\n"
                            "enc-qkv,708.0,1296.0,16.000,32.000,24.000,24.500,20.000,202.000\n"
                            "enc-mlp,100,200,32,8,1,2,0,0\n"
                            "post,9476.5,10278.5,8.000,0.000,200.000,400.025,199.975,0.000\n";

Test(import_formats, aceso_is_in_microseconds_and_mebibytes) {
    pp_model *model = import_must("aceso", aceso, NULL);
    cr_assert_eq(model->layer_count, 4);
    const pp_layer *qkv = layer_called(model, "enc-qkv");
    CLOSE(qkv->forward_s, 708e-6);
    CLOSE(qkv->input_s + qkv->weight_s, 1296e-6);
    cr_assert_eq(qkv->parameter_bytes, 24 << 20);
    cr_assert_eq(qkv->output_bytes, 32 << 20);
    cr_assert_eq(qkv->activation_bytes, 49 << 19);
    pp_model_free(model);
}

Test(import_formats, aceso_repeats_its_layer) {
    static const char *const names[] = {
        "encoder-embedding", "enc-qkv layer0", "enc-mlp layer0", "enc-qkv layer1",
        "enc-mlp layer1",    "enc-qkv layer2", "enc-mlp layer2", "post"};
    pp_import_options options = {.layers = 3};
    pp_model *model = import_must("aceso", aceso, &options);
    cr_assert_eq(model->layer_count, 8);
    cr_assert_eq(model->edge_count, 7);
    for (int i = 0; i < 8; i++) cr_expect_str_eq(model->layers[i].name, names[i]);
    for (int i = 0; i < 7; i++) cr_expect(model->edges[i].from == i && model->edges[i].to == i + 1);
    CLOSE(model->layers[6].forward_s, 100e-6);
    pp_model_free(model);
}

Test(import_formats, options_of_other_formats_are_refused) {
    pp_model *model;
    pp_error error = {0};
    const struct {
        const char *format, *text;
        pp_import_options options;
        const char *place;
    } cases[] = {{"layers", layers, {.layers = 2}, "--layers"},
                 {"aceso", aceso, {.tp = 2}, "--tp"},
                 {"pipedream", "", {.layers = 1}, "--layers"},
                 {"aceso", "op_name\n", {.layers = INT32_MAX}, "f.txt:1:1"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_status status = pp_import_text(cases[i].format, cases[i].text, strlen(cases[i].text),
                                          "f.txt", &cases[i].options, &model, &error);
        cr_expect_eq(status, PP_E_INPUT);
        cr_expect_str_eq(error.place, cases[i].place);
    }
    cr_assert_eq(pp_import_text("onnx", "", 0, "f", NULL, &model, &error), PP_E_INPUT);
    cr_assert(strstr(error.message, "known: pipedream, dapple, aceso, piper"));
}

/* ---- piper ----------------------------------------------------------------------------------- */

/* 3 → 7, 3 → 8, 7 → 8. Recomputing 3 takes 0.1 s more: its forward pass. 7 has no such entry, and 8
 * one that makes no sense. */
#define ENTRY(id, time, memory)                                                                    \
    "{\"id\": \"" id "\", \"timePerSample\": " time                                                \
    ", \"parameterSize\": 100, \"memoryUsageA\": " memory ", \"memoryUsageB\": 5}"
static const char piper[] =
    "{\"maxDevices\": 2, \"nodes\": [\n"
    "{\"id\": 8, \"name\": \"head\", \"TMPCs\": {\"1\": [" ENTRY("vanilla", "0.6", "64") ", " ENTRY(
        "activation recomp", "0.5",
        "1") "]}},\n"
             "{\"id\": 3, \"name\": \"embed\", \"TMPCs\": {\"1\": [" ENTRY(
                 "activation recomp", "0.4",
                 "8") ", " ENTRY("slow", "0.9",
                                 "1") ", " ENTRY("vanilla", "0.3",
                                                 "33") "], \"2\": [" ENTRY("vanilla", "0.2",
                                                                           "16") "]}},\n"
                                                                                 "{\"id\": 7, "
                                                                                 "\"name\": "
                                                                                 "\"block\", "
                                                                                 "\"TMPCs\": "
                                                                                 "{\"1\": [" ENTRY(
                                                                                     "vanilla",
                                                                                     "0.9",
                                                                                     "9") "]}}],\n"
                                                                                          "\"edges"
                                                                                          "\": "
                                                                                          "[{"
                                                                                          "\"source"
                                                                                          "Id\": "
                                                                                          "3, "
                                                                                          "\"destId"
                                                                                          "\": 7, "
                                                                                          "\"commun"
                                                                                          "icationC"
                                                                                          "ost\": "
                                                                                          "10},\n"
                                                                                          "{\"sourc"
                                                                                          "eId\": "
                                                                                          "3, "
                                                                                          "\"destId"
                                                                                          "\": 8, "
                                                                                          "\"commun"
                                                                                          "icationC"
                                                                                          "ost\": "
                                                                                          "12.0},\n"
                                                                                          "{\"sourc"
                                                                                          "eId\": "
                                                                                          "7, "
                                                                                          "\"destId"
                                                                                          "\": 8, "
                                                                                          "\"commun"
                                                                                          "icationC"
                                                                                          "ost\": "
                                                                                          "14}]}";

Test(import_formats, piper_takes_what_does_not_recompute) {
    pp_model *model = import_must("piper", piper, NULL);
    cr_assert_eq(model->layer_count, 3);
    cr_assert_eq(model->edge_count, 3);
    const pp_layer *embed = layer_called(model, "3 embed"), *block = layer_called(model, "7 block"),
                   *head = layer_called(model, "8 head");
    CLOSE(embed->forward_s, 0.4 - 0.3);
    CLOSE(embed->input_s, (0.3 - (0.4 - 0.3)) / 2);
    CLOSE(block->forward_s, 0.9 / 3);
    CLOSE(block->weight_s, 0.9 / 3);
    CLOSE(head->forward_s, 0.6 / 3);
    cr_assert_eq(embed->activation_bytes, 33);
    cr_assert_eq(embed->parameter_bytes, 100);
    cr_assert_eq(embed->output_bytes, 12);
    cr_assert_eq(head->output_bytes, 0);
    cr_assert(has_edge(model, "3 embed", "8 head"));
    pp_model_free(model);
}

#define P(text) "f.txt /" text
static const struct {
    const char *find, *replacement, *place, *message;
} piper_refusals[] = {
    {"\"nodes\"", "\"knots\"", "nodes", "expected an array"},
    {"\"edges\"", "\"hedges\"", "edges", "expected an array"},
    {"\"id\": 7", "\"id\": 8", "nodes/2", "'8' stands here a second time"},
    {"\"id\": 7", "\"id\": \"7\"", "nodes/2", "must be the number of a node"},
    {"\"block\"", "7", "nodes/2", "must be the node's name"},
    {"\"TMPCs\": {\"1\": [{\"id\": \"activation", "\"x\": {\"1\": [{\"id\": \"activation",
     "nodes/1", "\"TMPCs\" must be"},
    {"\"timePerSample\": 0.9", "\"timePerSample\": -1", "nodes/1/TMPCs/1/1/timePerSample",
     "expected a number from 0"},
    {"\"timePerSample\": 0.9", "\"timePerSample\": \"1\"", "nodes/1/TMPCs/1/1/timePerSample",
     "got \"1\""},
    {"\"timePerSample\": 0.9", "\"time\": 1", "nodes/1/TMPCs/1/1", "\"timePerSample\""},
    {"\"sourceId\": 7", "\"sourceId\": 9", "edges/2", "no node is called '9'"},
    {"\"destId\": 7", "\"destId\": 3", "edges/0", "closes a cycle through '3'"},
    {"\"communicationCost\": 14", "\"communicationCost\": 1e30", "edges/2/communicationCost",
     "2^46"},
};

Test(import_formats, piper_refuses) {
    for (size_t i = 0; i < sizeof piper_refusals / sizeof *piper_refusals; i++) {
        char place[100];
        snprintf(place, sizeof place, " /%s", piper_refusals[i].place);
        expect_refusal("piper", piper,
                       &(spoiled){piper_refusals[i].find, piper_refusals[i].replacement, place,
                                  piper_refusals[i].message});
    }
    expect_refusal("piper", piper,
                   &(spoiled){NULL, "{\"nodes\": [nan]}", ":1:14", "not valid JSON"});
}

Test(import_formats, piper_has_costs_per_width) {
    pp_model *model;
    pp_error error = {0};
    pp_import_options two = {.tp = 2};
    pp_status status = pp_import_text("piper", piper, strlen(piper), "f.txt", &two, &model, &error);
    cr_assert_eq(status, PP_E_INPUT); /* the head has none */
    cr_assert_str_eq(error.place, "f.txt /nodes/0/TMPCs");
    cr_assert(strstr(error.message, "width of 2; there are: 1"));
}

/* ---- dapple ---------------------------------------------------------------------------------- */

Test(import_formats, dapple_indents_as_it_likes) {
    pp_model *model =
        import_must("dapple",
                    "node1 -- Input -- forward_compute_time=0.61, backward_compute_time=0, "
                    "activation_size=[602112; 4004], parameter_size=0\n"
                    "node2 -- stem -- forward_compute_time=8, backward_compute_time=13.4, "
                    "activation_size=12976128, parameter_size=50384896 \n"
                    "node3 -- softmax_loss -- forward_compute_time=0.2, backward_compute_time=0, "
                    "activation_size=0, parameter_size=0\n"
                    "  node1 -- node2\n \tnode2 -- node3\n\tnode1 -- node3\n",
                    &(pp_import_options){.profile_batch = 6});
    cr_assert_eq(model->layer_count, 2);
    cr_assert_eq(model->edge_count, 1);
    const pp_layer *stem = layer_called(model, "node2 stem");
    CLOSE(stem->forward_s, 0.008 / 6);
    cr_assert_eq(stem->output_bytes, 2162688);
    pp_model_free(model);
}

/* ---- the published files --------------------------------------------------------------------- */

static double total_s(const pp_model *model) {
    double sum = 0;
    for (int i = 0; i < model->layer_count; i++)
        sum += model->layers[i].forward_s + model->layers[i].input_s + model->layers[i].weight_s;
    return sum;
}

static void expect_published(const char *format, const char *name, const pp_import_options *options,
                             int count, double seconds) {
    char path[400];
    pp_model *model;
    pp_error error = {0};
    if (!data_file(name, path)) cr_skip_test("no %s (set PPSIM_TEST_DATA)", path);
    pp_status status = pp_import_file(format, path, options, &model, &error);
    cr_assert_eq(status, PP_OK, "%s: %s", error.place, error.message);
    cr_expect_eq(model->layer_count, count, "%s: %d layers", name, model->layer_count);
    if (seconds > 0) cr_expect_float_eq(total_s(model), seconds, 1e-6 * seconds);
    pp_model_free(model);
}

/* Totals: sums over the files by other means (awk, Python). */
Test(import_formats, reads_the_published_files) {
    static const int sizes[] = {1, 2, 4, 8};
    expect_published("piper", "piper/bert32a100.json", NULL, 37, 0.972864);
    expect_published("piper", "piper/bert32a100.json", &(pp_import_options){.tp = 8}, 37, 0.30398);
    expect_published("aceso", "aceso/gpt_1_3B_mbs1_tp1_algo0.csv", NULL, 16, 0.037275901);
    expect_published("aceso", "aceso/gpt_1_3B_mbs1_tp1_algo0.csv",
                     &(pp_import_options){.layers = 24}, 3 + 13 * 24, 0);
    for (int i = 0; i < 32; i++) {
        char name[100];
        snprintf(name, sizeof name, "aceso/gpt_%s_mbs%d_tp%d_algo0.csv", i < 16 ? "1_3B" : "2_6B",
                 sizes[i % 4], sizes[i / 4 % 4]);
        expect_published("aceso", name, NULL, 16, 0);
    }
}

/* ---- memory ---------------------------------------------------------------------------------- */

static long allocations_left;
static bool failing_for_ever;

static void *failing_allocate(size_t size_bytes) {
    if (allocations_left-- == 0 || (failing_for_ever && allocations_left < 0)) return NULL;
    return malloc(size_bytes);
}

/* Fails the n-th allocation, once and from then on, for every n. */
static void expect_survives(const char *format, const char *text,
                            const pp_import_options *options) {
    pp_platform failing = *pp_platform_get();
    failing.allocate = failing_allocate;
    for (int for_ever = 0; for_ever < 2; for_ever++) {
        pp_status status = PP_E_OUT_OF_MEMORY;
        for (long n = 0; status != PP_OK; n++) {
            pp_model *model = NULL;
            pp_error error = {0};
            int64_t before = pp_live_bytes();
            allocations_left = n;
            failing_for_ever = for_ever != 0;
            pp_platform_set(&failing);
            status = pp_import_text(format, text, strlen(text), "f.txt", options, &model, &error);
            pp_platform_set(NULL);
            cr_assert(status == PP_OK || status == PP_E_OUT_OF_MEMORY, "%s, allocation %ld: %s",
                      format, n, error.message);
            pp_model_free(model);
            cr_assert_eq(pp_live_bytes(), before, "%s: allocation %ld leaks", format, n);
            cr_assert_lt(n, 10000);
        }
    }
}

Test(import_formats, every_allocation_may_fail) {
    expect_survives("layers", layers, NULL);
    expect_survives("aceso", aceso, &(pp_import_options){.layers = 3});
    expect_survives("piper", piper, NULL);
}
