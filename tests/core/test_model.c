/* Model documents: what is read, what is refused and with which words, presets, round trips. */
#include "document_support.h"

#include <unistd.h>

COUNTED_SUITE(model);

/* ---- comparing ------------------------------------------------------------------------------ */

static bool same_text(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

static void expect_same_layer(const pp_layer *a, const pp_layer *b) {
    cr_assert(same_text(a->name, b->name));
    cr_assert(same_text(a->tie, b->tie));
    cr_assert(a->op == b->op && a->dim == b->dim && a->output_dim == b->output_dim);
    cr_assert(a->heads == b->heads && a->sequence == b->sequence && a->vocabulary == b->vocabulary);
    cr_assert_eq(memcmp(&a->dropout, &b->dropout, sizeof a->dropout), 0);
    cr_assert_eq(memcmp(&a->forward_s, &b->forward_s, sizeof a->forward_s), 0);
    cr_assert_eq(memcmp(&a->input_s, &b->input_s, sizeof a->input_s), 0);
    cr_assert_eq(memcmp(&a->weight_s, &b->weight_s, sizeof a->weight_s), 0);
    cr_assert(a->backward_assumed == b->backward_assumed);
    cr_assert_eq(memcmp(&a->weight_doubt_s, &b->weight_doubt_s, sizeof a->weight_doubt_s), 0);
    cr_assert(a->tied_bytes == b->tied_bytes);
    cr_assert(a->parameter_bytes == b->parameter_bytes && a->output_bytes == b->output_bytes &&
              a->activation_bytes == b->activation_bytes);
}

static void expect_same_model(const pp_model *a, const pp_model *b) {
    cr_assert_str_eq(a->name, b->name);
    cr_assert_eq(a->layer_count, b->layer_count);
    cr_assert_eq(a->edge_count, b->edge_count);
    for (int i = 0; i < a->layer_count; i++) expect_same_layer(&a->layers[i], &b->layers[i]);
    for (int i = 0; i < a->edge_count; i++)
        cr_assert(a->edges[i].from == b->edges[i].from && a->edges[i].to == b->edges[i].to);
}

static pp_text written(const pp_model *model) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_model_write(model, &json);
    cr_assert(!text.failed);
    return text;
}

static pp_model *read_model(const char *text) {
    pp_model *model;
    pp_error error = {0};
    pp_status status = pp_model_read(text, strlen(text), "bad.json", &model, &error);
    cr_assert_eq(status, PP_OK, "%s: %s\n%s", error.place, error.message, text);
    return model;
}

static void expect_round_trip(const pp_model *model) {
    pp_error error = {0};
    pp_model *again, *copy;
    pp_text text = written(model);
    cr_assert_eq(pp_model_read(text.bytes, text.length, "x.json", &again, &error), PP_OK, "%s: %s",
                 error.place, error.message);
    cr_assert_eq(pp_model_copy(model, &copy, &error), PP_OK);
    expect_same_model(model, again);
    expect_same_model(model, copy);
    cr_assert_eq(pp_model_hash(model), pp_model_hash(again));
    pp_model_free(copy);
    pp_model_free(again);
    pp_text_deinit(&text);
}

/* ---- what is read --------------------------------------------------------------------------- */

static const char design_example[] =
    "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"tiny\", \"layers\": [\n"
    " {\"name\": \"embed\", \"op\": \"embedding\", \"vocabulary\": 256, \"dim\": 64, "
    "\"sequence\": 128, \"tie\": \"wte\"},\n"
    " {\"name\": \"block0\", \"op\": \"gpt_block\", \"dim\": 64, \"heads\": 4, \"sequence\": "
    "128},\n"
    " {\"name\": \"conv1\", \"op\": \"opaque\", \"forward_s\": 0.012, \"input_s\": 0.011, "
    "\"weight_s\": 0.010,\n"
    "  \"parameter_bytes\": 4096, \"output_bytes\": 65536, \"activation_bytes\": 131072},\n"
    " {\"name\": \"head\", \"op\": \"lm_head\", \"vocabulary\": 256, \"dim\": 64, \"sequence\": "
    "128, \"tie\": \"wte\"}],\n"
    " \"edges\": [[0, 1], [1, 2], [0, 2], [2, 3]]}\n";

Test(model, the_example_of_the_format_is_read) {
    pp_model *model = read_model(design_example);
    const pp_layer *conv = &model->layers[2];
    static const pp_edge edges[] = {{0, 1}, {0, 2}, {1, 2}, {2, 3}}; /* sorted */
    cr_assert_str_eq(model->name, "tiny");
    cr_assert_eq(model->layer_count, 4);
    cr_assert(conv->op == PP_OP_OPAQUE && conv->forward_s == 0.012 && conv->weight_s == 0.010);
    cr_assert(conv->output_bytes == 65536 && conv->sequence == 0 && !conv->backward_assumed);
    cr_assert_str_eq(model->layers[3].tie, "wte");
    cr_assert_eq(model->edge_count, 4);
    for (int i = 0; i < 4; i++)
        cr_assert(model->edges[i].from == edges[i].from && model->edges[i].to == edges[i].to);
    expect_round_trip(model);
    pp_model_free(model);
}

/* Opaque layers share a part of their parameters: a tensor of its own. */
Test(model, opaque_layers_can_be_tied) {
    static const char text[] =
        "{\"format\": \"ppsim-model\", \"version\": 1, \"name\": \"t\", \"layers\": ["
        "{\"name\": \"a\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 1, \"weight_s\": 1,"
        " \"parameter_bytes\": 64, \"tie\": \"x\", \"tied_bytes\": 40, \"output_bytes\": 8,"
        " \"activation_bytes\": 8},"
        "{\"name\": \"b\", \"op\": \"opaque\", \"forward_s\": 1, \"input_s\": 1, \"weight_s\": 1,"
        " \"parameter_bytes\": 40, \"tie\": \"x\", \"tied_bytes\": 40, \"output_bytes\": 8,"
        " \"activation_bytes\": 8}]}";
    pp_model *model = read_model(text);
    for (int i = 0; i < 2; i++) {
        pp_tensor tensors[PP_LAYER_TENSORS];
        int count = pp_layer_tensors(&model->layers[i], 3, PP_FP32, tensors);
        int64_t own = 0, tied = 0;
        for (int t = 0; t < count; t++)
            if (tensors[t].role == PP_TENSOR_PARAMETER)
                *(tensors[t].tied ? &tied : &own) += pp_tensor_bytes(&tensors[t]);
        cr_assert(own == (i == 0 ? 24 : 0) && tied == 40);
    }
    expect_round_trip(model);
    pp_model_free(model);
}

Test(model, edges_default_to_the_chain_and_sequence_to_1) {
    pp_model *model =
        read_model("{\"format\":\"ppsim-model\",\"version\":1,\"name\":\"m\",\"layers\":["
                   "{\"name\":\"a\",\"op\":\"linear\",\"dim\":8,\"output_dim\":4},"
                   "{\"name\":\"b\",\"op\":\"dropout\",\"dim\":4,\"dropout\":0.25},"
                   "{\"name\":\"c\",\"op\":\"softmax_cross_entropy\",\"dim\":4e0}]}");
    cr_assert_eq(model->edge_count, 2);
    cr_assert(model->edges[1].from == 1 && model->edges[1].to == 2);
    cr_assert(model->layers[0].sequence == 1 && model->layers[1].dropout == 0.25);
    cr_assert_eq(model->layers[2].dim, 4);
    expect_round_trip(model);
    pp_model_free(model);
}

Test(model, branches_join_in_an_add) {
    pp_model *model =
        read_model("{\"format\":\"ppsim-model\",\"version\":1,\"name\":\"m\",\"layers\":["
                   "{\"name\":\"a\",\"op\":\"linear\",\"dim\":8,\"output_dim\":8},"
                   "{\"name\":\"b\",\"op\":\"gelu\",\"dim\":8},"
                   "{\"name\":\"c\",\"op\":\"add\",\"dim\":8}],\"edges\":[[1,2],[0,1],[0,2]]}");
    expect_round_trip(model);
    pp_model_free(model);
}

/* ---- presets -------------------------------------------------------------------------------- */

/* Parameters as published: of the released checkpoints of GPT-2 (OpenAI), Llama (Meta) and BERT
 * (Google; for masked language models, without the pooler and the next-sentence head); of GPT-3 in
 * billions (Brown et al. 2020, table 2.1; 174,604 million in its table D.1). */
Test(model, presets_have_their_published_sizes) {
    static const struct {
        const char *name;
        int layers;
        int64_t sequence;
        double parameters, tolerance;
    } table[] = {
        {"gpt-nano", 6, 128, 224000, 0.01},
        {"gpt2-124m", 14, 1024, 124439808, 0},
        {"gpt2-355m", 26, 1024, 354823168, 0},
        {"gpt2-774m", 38, 1024, 774030080, 0},
        {"gpt2-1.5b", 50, 1024, 1557611200, 0},
        {"gpt3-2.7b", 34, 2048, 2.65e9, 0.005},
        {"gpt3-6.7b", 34, 2048, 6.66e9, 0.005},
        {"gpt3-13b", 42, 2048, 12.85e9, 0.005},
        {"gpt3-175b", 98, 2048, 174604e6, 0.0001},
        {"llama-nano", 6, 128, 201000, 0.01},
        {"llama-1b", 18, 8192, 1235814400, 0},
        {"llama-2-7b", 34, 4096, 6738415616, 0},
        {"llama-2-13b", 42, 4096, 13015864320, 0},
        {"llama-2-70b", 82, 4096, 68976648192, 0},
        {"llama-3-8b", 34, 8192, 8030261248, 0},
        {"llama-3-70b", 82, 8192, 70553706496, 0},
        {"llama-3-405b", 128, 8192, 405853388800, 0},
        {"bert-nano", 6, 128, 229000, 0.01},
        {"bert-base", 14, 512, 109514298, 0},
        {"bert-large", 26, 512, 335174458, 0},
        {"mlp", 12, 1, 5117706, 0},
    };
    int count;
    const pp_preset *presets = pp_model_presets(&count);
    cr_assert_eq(count, (int)(sizeof table / sizeof *table));
    for (int i = 0; i < count; i++) {
        pp_model *model;
        cr_assert_str_eq(presets[i].name, table[i].name);
        cr_assert(presets[i].summary && presets[i].source);
        cr_assert_eq(pp_model_open(table[i].name, &model, NULL), PP_OK);
        cr_assert_str_eq(model->name, table[i].name);
        cr_assert_eq(model->layer_count, table[i].layers);
        cr_assert_eq(model->layers[0].sequence, table[i].sequence);
        double parameters = (double)pp_model_parameters(model);
        cr_expect_float_eq(parameters, table[i].parameters,
                           table[i].tolerance * table[i].parameters, "%s: %.0f", table[i].name,
                           parameters);
        expect_round_trip(model);
        pp_model_free(model);
    }
}

/* What the documents of the new ops may say comes back, and defaults need not be said. */
Test(model, fields_of_blocks) {
    pp_model *model = read_model(
        "{\"format\":\"ppsim-model\",\"version\":1,\"name\":\"m\",\"layers\":["
        "{\"name\":\"e\",\"op\":\"token_embedding\",\"vocabulary\":9,\"dim\":12,\"sequence\":4},"
        "{\"name\":\"a\",\"op\":\"llama_block\",\"dim\":12,\"heads\":3,\"hidden\":20,"
        "\"sequence\":4},"
        "{\"name\":\"b\",\"op\":\"llama_block\",\"dim\":12,\"heads\":4,\"kv_heads\":2,"
        "\"head_dim\":6,\"hidden\":20,\"sequence\":4,\"qkv_bias\":true,\"rotary_base\":5e5},"
        "{\"name\":\"c\",\"op\":\"bert_block\",\"dim\":12,\"heads\":4,\"sequence\":4},"
        "{\"name\":\"n\",\"op\":\"rms_norm\",\"dim\":12,\"sequence\":4},"
        "{\"name\":\"h\",\"op\":\"rms_lm_head\",\"vocabulary\":9,\"dim\":12,\"sequence\":4}]}");
    const pp_layer *plain = &model->layers[1], *full = &model->layers[2];
    cr_expect_eq(pp_layer_kv_heads(plain), 3);
    cr_expect_eq(pp_layer_head_dim(plain), 4);
    cr_expect_eq(pp_layer_rotary_base(plain), 10000);
    cr_expect_eq(pp_layer_hidden(&model->layers[3]), 48);
    cr_expect_eq(pp_layer_kv_heads(full), 2);
    cr_expect_eq(pp_layer_head_dim(full), 6);
    cr_expect(full->qkv_bias && full->rotary_base == 5e5);
    /* 2 norms, (4 + 2·2)·6 rows of 12 with biases, 12 rows of 24, three matrices of the MLP */
    cr_expect_eq(pp_layer_parameters(full), 2 * 12 + 48 * 13 + 12 * 24 + 3 * 12 * 20);
    expect_round_trip(model);
    pp_model_free(model);
}

Test(model, gpt_presets_tie_embedding_and_head) {
    pp_model *model;
    cr_assert_eq(pp_model_open("gpt-nano", &model, NULL), PP_OK);
    cr_assert_str_eq(model->layers[0].name, "embed");
    cr_assert_str_eq(model->layers[1].name, "block0");
    cr_assert_str_eq(model->layers[5].name, "head");
    cr_assert_str_eq(model->layers[0].tie, "wte");
    cr_assert_str_eq(model->layers[5].tie, "wte");
    cr_assert_eq(model->layers[0].vocabulary, 256);
    pp_model_free(model);
}

Test(model, an_unknown_preset_lists_the_known_ones) {
    pp_model *model;
    pp_error error = {0};
    cr_assert_eq(pp_model_open("gpt5", &model, &error), PP_E_INPUT);
    cr_assert(strstr(error.message, "gpt5") && strstr(error.message, "gpt2-124m"));
    cr_assert_null(model);
    cr_assert_eq(pp_model_open("./none.json", &model, &error), PP_E_INPUT);
    cr_assert_str_eq(error.place, "./none.json");
}

Test(model, a_file_is_opened_by_its_path) {
    char path[] = "/tmp/ppsim-model-XXXXXX.json";
    int file = mkstemps(path, 5);
    cr_assert_geq(file, 0);
    cr_assert_eq(write(file, design_example, strlen(design_example)),
                 (ssize_t)strlen(design_example));
    close(file);
    pp_model *model;
    cr_assert_eq(pp_model_open(path, &model, NULL), PP_OK);
    cr_assert_str_eq(model->name, "tiny");
    pp_model_free(model);
    unlink(path);
}

/* ---- changing ------------------------------------------------------------------------------- */

Test(model, a_new_sequence_reaches_every_layer_that_has_one) {
    pp_model *model;
    pp_error error = {0};
    cr_assert_eq(pp_model_open("gpt-nano", &model, NULL), PP_OK);
    uint64_t before = pp_model_hash(model);
    cr_assert_eq(pp_model_set_sequence(model, 512, NULL), PP_OK);
    for (int i = 0; i < model->layer_count; i++) cr_assert_eq(model->layers[i].sequence, 512);
    cr_assert_neq(pp_model_hash(model), before);
    expect_round_trip(model);
    cr_assert_eq(pp_model_set_sequence(model, 0, &error), PP_E_INPUT);
    pp_model_free(model);

    cr_assert_eq(pp_model_open("mlp", &model, NULL), PP_OK);
    cr_assert_eq(pp_model_set_sequence(model, 512, &error), PP_E_INPUT);
    cr_assert(strstr(error.message, "no sequence"));
    pp_model_free(model);
}

/* ---- what is refused ------------------------------------------------------------------------ */

static pp_status try_model(const char *text, size_t length, pp_error *error) {
    pp_model *model;
    pp_status status = pp_model_read(text, length, "bad.json", &model, error);
    cr_assert(status == PP_OK || !model);
    pp_model_free(model);
    return status;
}

#define LAYERS(list)                                                                               \
    "{\"format\":\"ppsim-model\",\"version\":1,\"name\":\"m\",\"layers\":[" list "]}"
#define LAYERS_AND(list, edges)                                                                    \
    "{\"format\":\"ppsim-model\",\"version\":1,\"name\":\"m\",\"layers\":[" list                   \
    "],\"edges\":" edges "}"
#define LINEAR(name, in, out)                                                                      \
    "{\"name\":\"" name "\",\"op\":\"linear\",\"dim\":" in ",\"output_dim\":" out "}"
#define LLAMA(fields)                                                                              \
    "{\"name\":\"a\",\"op\":\"llama_block\",\"dim\":8,\"hidden\":9,\"sequence\":4," fields "}"
#define LOSS(name) "{\"name\":\"" name "\",\"op\":\"softmax_cross_entropy\",\"dim\":4}"
#define TEN "xxxxxxxxxx"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

#define OPAQUE(name, more)                                                                         \
    "{\"name\":\"" name "\",\"op\":\"opaque\",\"forward_s\":1,\"input_s\":1,\"weight_s\":1,"       \
    "\"parameter_bytes\":64,\"output_bytes\":8,\"activation_bytes\":8," more "}"

static const malformed refused[] = {
    /* not JSON */
    {NULL, "", ":1:1", "end of file"},
    {NULL, "{\n  \"format\": \"ppsim-model\",\n  \"version\": oops}", ":3:17", "oops"},
    {NULL, "{\"format\": \"ppsim-model\", \"format\": 1}", ":1:34", "duplicate"},
    {"\"tiny\"", "\"ti\\u0000ny\"", ":1:60", "u0000"},
    {"\"tiny\"", "\"ti\xff\"", ":1:51", "0xff"},
    {"65536", "1e999", ":5:48", "overflow"},
    {"65536", "99999999999999999999", ":5:63", "big"},
    {"65536", "NaN", ":5:46", "NaN"},
    {"[2, 3]]}", "[2, 3]]} x", ":7:45", "end of file expected"},
    /* not this document */
    {NULL, "[1]", "", "expected an object"},
    {NULL, "{}", "", "\"format\" is missing"},
    {"ppsim-model", "ppsim-cluster", " /format", "expected \"ppsim-model\""},
    {"\"version\": 1, ", "", "", "\"version\" is missing"},
    {"\"version\": 1", "\"version\": 2", " /version", "expected 1"},
    {"\"name\": \"tiny\", ", "", "", "\"name\" is missing"},
    {"\"name\": \"tiny\"", "\"name\": \"tiny\", \"nam\\u001be\": 2", "", "unknown key"},
    {"\"tiny\"", "7", " /name", "expected a string, got 7"},
    {"\"tiny\"", "\"\"", " /name", "empty"},
    {"\"tiny\"", "\"a\\nb\"", " /name", "control character"},
    {"\"tiny\"", "\"" HUNDRED HUNDRED "x\"", " /name", "201 bytes; at most 200"},
    /* layers, one by one */
    {NULL, LAYERS(""), " /layers", "1 to 100000"},
    {NULL, LAYERS("3"), " /layers/0", "expected an object"},
    {NULL, LAYERS("{\"name\":\"a\"}"), " /layers/0",
     "\"op\" is missing; expected one of opaque, embedding"},
    {"\"gpt_block\"", "\"gpt_blok\"", " /layers/1/op", "unknown op \"gpt_blok\"; known: opaque"},
    {"\"gpt_block\"", "5", " /layers/1/op", "expected one of"},
    {"\"name\": \"block0\"", "\"name\": \"embed\"", " /layers/1/name", "taken by layer 0"},
    {"\"heads\": 4", "\"heads\": 3", " /layers/1/heads", "do not divide dim 64"},
    {"\"heads\": 4, ", "", " /layers/1", "\"heads\" is missing; expected an integer from 1"},
    {"\"heads\": 4", "\"head\": 4", " /layers/1", "known here: name, op, dim, heads"},
    {"\"heads\": 4", "\"heads\": 4, \"vocabulary\": 3", " /layers/1", "unknown key \"vocabulary\""},
    {"\"heads\": 4", "\"heads\": 4.5", " /layers/1/heads", "got 4.5"},
    {"\"heads\": 4", "\"heads\": 0", " /layers/1/heads", "from 1"},
    {"\"heads\": 4", "\"heads\": 4, \"dropout\": 1", " /layers/1/dropout", "to below 1"},
    {"\"heads\": 4", "\"heads\": 4, \"dropout\": -0.1", " /layers/1/dropout", "from 0"},
    {"\"heads\": 4", "\"heads\": null", " /layers/1/heads", "got null"},
    {"0.012", "-0.012", " /layers/2/forward_s", "from 0"},
    {"0.012", "\"fast\"", " /layers/2/forward_s", "got \"fast\""},
    {"4096", "4096.5", " /layers/2/parameter_bytes", "an integer"},
    {"4096", "1e30", " /layers/2/parameter_bytes", "an integer"},
    {"4096", "-1", " /layers/2/parameter_bytes", "from 0"},
    {NULL, LAYERS(LINEAR("a", "2000000", "4")), " /layers/0/dim", "to 1048576"},
    {NULL,
     LAYERS("{\"name\":\"a\",\"op\":\"attention\",\"dim\":65536,\"heads\":65536,"
            "\"sequence\":1048576}"),
     " /layers/0", "2^46"},
    {NULL, LAYERS(LLAMA("\"heads\":4,\"kv_heads\":3")), " /layers/0/kv_heads",
     "3 heads of keys and values do not divide 4 heads"},
    {NULL, LAYERS(LLAMA("\"heads\":8")), " /layers/0/heads", "pairs of features"},
    {NULL, LAYERS(LLAMA("\"heads\":2,\"head_dim\":7")), " /layers/0/head_dim", "a head has 7"},
    {NULL, LAYERS(LLAMA("\"heads\":65536,\"head_dim\":65536")), " /layers/0/head_dim",
     "at most 4194304"},
    {NULL, LAYERS(LLAMA("\"heads\":2,\"dropout\":0.1")), " /layers/0", "unknown key \"dropout\""},
    {NULL, LAYERS(LLAMA("\"heads\":2,\"rotary_base\":0.5")), " /layers/0/rotary_base", "from 1"},
    {NULL, LAYERS(LLAMA("\"heads\":2,\"qkv_bias\":1")), " /layers/0/qkv_bias", "true or false"},
    /* edges */
    {"[0, 2]", "[0, 9]", " /edges/2/1", "from 0 to 3"},
    {"[0, 2]", "[2, 0]", " /edges/2", "later layer"},
    {"[0, 2]", "[1, 2]", " /edges", "stands twice"},
    {"[0, 2]", "[0, 1, 2]", " /edges/2", "expected 2 elements, got 3"},
    {"[0, 2]", "7", " /edges/2", "expected an array"},
    {"[0, 2]", "[0, \"conv1\"]", " /edges/2/1", "got \"conv1\""},
    {"\"edges\": [", "\"edges\": 3, \"x\": [", "", "unknown key \"x\""},
    /* what they mean together */
    {NULL, LAYERS(LINEAR("a", "8", "4") "," LINEAR("b", "8", "4")), " /layers/1/dim",
     "expected 4, the features that \"a\" makes, got 8"},
    {NULL,
     LAYERS(LINEAR("a", "8", "4") ",{\"name\":\"b\",\"op\":\"relu\",\"dim\":4,\"sequence\":2}"),
     " /layers/1/sequence", "expected \"sequence\": 1"},
    {NULL,
     LAYERS_AND(LINEAR("a", "8", "8") "," LINEAR("b", "8", "8") "," LINEAR("c", "8", "8"),
                "[[0,2],[1,2]]"),
     " /layers/2", "takes one input; 2 edges"},
    {NULL, LAYERS("{\"name\":\"a\",\"op\":\"add\",\"dim\":8}"), " /layers/0", "needs an edge"},
    {NULL,
     LAYERS(LINEAR(
         "a", "8",
         "8") ",{\"name\":\"b\",\"op\":\"embedding\",\"dim\":8,\"vocabulary\":4,\"sequence\":1}"),
     " /layers/1", "takes no edge"},
    {NULL,
     LAYERS_AND(LINEAR("a", "8", "8") "," LINEAR("b", "8", "8") "," LINEAR("c", "8", "8"),
                "[[0,1]]"),
     " /layers/2", "no edge leads to or from \"c\""},
    {NULL,
     LAYERS_AND(
         "{\"name\":\"a\",\"op\":\"embedding\",\"dim\":8,\"vocabulary\":4,\"sequence\":1}," LINEAR(
             "b", "8", "8") ",{\"name\":\"c\",\"op\":\"add\",\"dim\":8}",
         "[[0,2],[1,2]]"),
     " /layers/1", "as features, but \"a\" reads it as token ids"},
    {NULL,
     LAYERS_AND(LINEAR("a", "8", "4") "," LINEAR("b", "6",
                                                 "4") ",{\"name\":\"c\",\"op\":\"add\",\"dim\":4}",
                "[[0,2],[1,2]]"),
     " /layers/1", "in different shapes"},
    {NULL, LAYERS(LINEAR("a", "8", "4") "," LOSS("b") "," LINEAR("c", "4", "4")), " /layers/2",
     "a loss has no output"},
    {NULL, LAYERS_AND(LINEAR("a", "8", "4") "," LOSS("b") "," LOSS("c"), "[[0,1],[0,2]]"),
     " /layers/2", "one loss"},
    {NULL,
     LAYERS_AND(LINEAR("a", "8", "4") "," LINEAR("b", "4", "4") "," LOSS("c"), "[[0,1],[0,2]]"),
     " /layers/1", "nothing reads \"b\""},
    {"\"tie\": \"wte\"}]", "\"tie\": \"other\"}]", " /layers/3/tie", "no other layer"},
    {"\"vocabulary\": 256, \"dim\": 64, \"sequence\": 128, \"tie\": \"wte\"}]",
     "\"vocabulary\": 257, \"dim\": 64, \"sequence\": 128, \"tie\": \"wte\"}]", " /layers/3/tie",
     "share one matrix"},
    {NULL, LAYERS(OPAQUE("a", "\"tie\":\"x\"") "," OPAQUE("b", "\"tie\":\"x\"")), " /layers/0/tie",
     "needs both"},
    {NULL, LAYERS(OPAQUE("a", "\"tied_bytes\":8")), " /layers/0/tied_bytes", "needs both"},
    {NULL, LAYERS(OPAQUE("a", "\"tied_bytes\":99")), " /layers/0/tied_bytes", "at most"},
    {NULL,
     LAYERS(OPAQUE("a", "\"tie\":\"x\",\"tied_bytes\":8") "," OPAQUE(
         "b", "\"tie\":\"x\",\"tied_bytes\":4")),
     " /layers/1/tied_bytes", "share the same bytes: layer 0 has 8, this one 4"},
};

Test(model, malformed_documents_are_refused_with_place_and_reason) {
    expect_refused(refused, sizeof refused / sizeof *refused, design_example, try_model);
}

Test(model, hostile_texts_are_refused) {
    pp_error error = {0};
    size_t length = 1 << 20;
    char *text = malloc(length);
    memset(text, '[', length); /* deeper than any stack should go */
    cr_assert_eq(try_model(text, length, &error), PP_E_INPUT);
    memset(text, '\0', length);
    cr_assert_eq(try_model(text, length, &error), PP_E_INPUT);
    cr_assert_str_eq(error.place, "bad.json:1:1");
    free(text);
    cr_assert_eq(try_model(NULL, 0, &error), PP_E_INPUT);
}

/* ---- round trips and failures --------------------------------------------------------------- */

static pp_model *random_model(uint64_t seed) {
    dice d = dice_of(seed, "model");
    pp_model *model = pp_allocate_zeroed(1, sizeof *model);
    int count = model->layer_count = (int)roll(&d, 1, 40);
    model->name = pp_arena_printf(&model->arena, "random \"%d\" \\ \xc3\xa9", (int)seed);
    model->layers = PP_NEW(&model->arena, pp_layer, count);
    model->edges = PP_NEW(&model->arena, pp_edge, count * count);
    for (int i = 0; i < count; i++)
        model->layers[i] = (pp_layer){.name = pp_arena_printf(&model->arena, "layer/%d", i),
                                      .op = PP_OP_OPAQUE,
                                      .forward_s = roll_double(&d),
                                      .input_s = roll_double(&d),
                                      .weight_s = roll_double(&d),
                                      .backward_assumed = roll(&d, 0, 1),
                                      .weight_doubt_s = roll(&d, 0, 1) ? roll_double(&d) : 0,
                                      .parameter_bytes = roll(&d, 0, 1LL << 45),
                                      .output_bytes = roll(&d, 0, 1LL << 45),
                                      .activation_bytes = roll(&d, 0, 1LL << 45)};
    for (int from = 0; from < count; from++)
        for (int to = from + 1; to < count; to++)
            if (to == from + 1 || roll(&d, 0, 9) == 0)
                model->edges[model->edge_count++] = (pp_edge){from, to};
    return model;
}

Test(model, random_models_round_trip) {
    for (uint64_t seed = 1; seed <= 200; seed++) {
        cr_log_info("seed %d", (int)seed);
        pp_model *model = random_model(seed);
        expect_round_trip(model);
        pp_model_free(model);
    }
}

Test(model, as_many_layers_as_allowed_and_no_more) {
    for (int count = 100000; count <= 100001; count++) {
        pp_text text = {0};
        pp_error error = {0};
        pp_text_string(&text,
                       "{\"format\":\"ppsim-model\",\"version\":1,\"name\":\"m\",\"layers\":[");
        for (int i = 0; i < count; i++)
            pp_text_printf(&text, "%s{\"name\":\"r%d\",\"op\":\"relu\",\"dim\":8}", i ? "," : "",
                           i);
        pp_text_string(&text, "]}");
        pp_status status = try_model(text.bytes, text.length, &error);
        cr_assert_eq(status, count == 100000 ? PP_OK : PP_E_INPUT, "%s", error.message);
        pp_text_deinit(&text);
    }
}

static pp_status read_and_copy(void *context, pp_error *error) {
    pp_model *model, *copy;
    const char *text = context;
    PP_TRY(pp_model_read(text, strlen(text), "x.json", &model, error));
    pp_status status = pp_model_copy(model, &copy, error);
    if (status == PP_OK) {
        expect_same_model(model, copy);
        if (pp_model_hash(copy) == 0) status = pp_fail_memory(error);
        pp_model_free(copy);
    }
    pp_model_free(model);
    return status;
}

static pp_status open_preset(void *context, pp_error *error) {
    pp_model *model;
    PP_TRY(pp_model_open(context, &model, error));
    pp_model_free(model);
    return PP_OK;
}

Test(model, any_allocation_may_fail) {
    char preset[] = "gpt3-175b";
    /* a token far beyond Jansson's first buffer, with escapes */
    char long_name[] =
        "{\"format\":\"ppsim-model\",\"version\":1,\"name\":\"" HUNDRED "\\u00e9\\\\" TEN TEN
        "\",\"layers\":[{\"name\":\"" HUNDRED "\",\"op\":\"relu\",\"dim\":8}]}";
    expect_survives_allocation_failures(read_and_copy, long_name);
    expect_survives_allocation_failures(read_and_copy, (void *)(uintptr_t)design_example);
    expect_survives_allocation_failures(open_preset, preset);
}
