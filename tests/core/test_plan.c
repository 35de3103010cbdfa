/* Plan documents: self-contained, refused once anything in them contradicts anything else. */
#include "document_support.h"

#include <math.h>
#include <unistd.h>

COUNTED_SUITE(plan);

/* ---- making plans --------------------------------------------------------------------------- */

static pp_model *opaque_model(dice *d, int layers) {
    pp_model *model = pp_allocate_zeroed(1, sizeof *model);
    model->name = "random";
    model->layer_count = layers;
    model->layers = PP_NEW(&model->arena, pp_layer, layers);
    model->edges = PP_NEW(&model->arena, pp_edge, layers * layers);
    for (int i = 0; i < layers; i++)
        model->layers[i] = (pp_layer){.name = pp_arena_printf(&model->arena, "layer%d", i),
                                      .op = PP_OP_OPAQUE,
                                      .forward_s = roll_double(d),
                                      .output_bytes = 4 * roll(d, 0, 1 << 20)};
    for (int from = 0; from < layers; from++)
        for (int to = from + 1; to < layers; to++)
            if (roll(d, 0, layers / 2) == 0)
                model->edges[model->edge_count++] = (pp_edge){from, to};
    return model;
}

static bool is_ready(const pp_model *model, const int *position, int layer) {
    if (position[layer] >= 0) return false;
    for (int i = 0; i < model->edge_count; i++)
        if (model->edges[i].to == layer && position[model->edges[i].from] < 0) return false;
    return true;
}

/* A random topological order. */
static void random_order(const pp_model *model, int *order, dice *d) {
    int position[64];
    memset(position, -1, sizeof position);
    for (int at = 0; at < model->layer_count; at++) {
        int layer = (int)roll(d, 0, model->layer_count - 1);
        while (!is_ready(model, position, layer)) layer = (layer + 1) % model->layer_count;
        position[layer] = at;
        order[at] = layer;
    }
}

static pp_stage_bytes random_bytes(dice *d) {
    return (pp_stage_bytes){.parameters = roll(d, 0, 1LL << 55),
                            .gradients = roll(d, 0, 1LL << 40),
                            .optimizer = roll(d, 0, 1LL << 40),
                            .activation = roll(d, 0, 1LL << 40),
                            .released_by_input = roll(d, 0, 1LL << 40),
                            .stash = roll(d, 0, 1LL << 40),
                            .checkpoint = roll(d, 0, 1LL << 40),
                            .input = roll(d, 0, 1LL << 40),
                            .output_gradient = roll(d, 0, 1LL << 40),
                            .workspace = roll(d, 0, 1LL << 40),
                            .reduction = roll(d, 0, 1LL << 40)};
}

static void fill_stages(pp_plan *plan, dice *d) {
    int layers = plan->model->layer_count, each = plan->stage_count / plan->chains;
    for (int s = 0; s < plan->stage_count; s++) {
        pp_stage *stage = &plan->stages[s];
        stage->first = s % each * layers / each;
        stage->last = (s % each + 1) * layers / each - 1;
        stage->recompute = (pp_recompute)roll(d, 0, PP_RECOMPUTE_COUNT - 1);
        stage->forward_s = roll_double(d);
        stage->input_s = roll_double(d);
        stage->weight_s = roll_double(d);
        stage->recompute_s = roll_double(d);
        stage->optimizer_s = roll_double(d);
        stage->reduce_s = roll_double(d);
        stage->reduce_transfer_s = (double)roll(d, 0, 1) * stage->reduce_s / 2;
        stage->reduce_latency_s = stage->reduce_transfer_s / 4;
        stage->tie_transfer_s = (double)roll(d, 0, 1) * stage->reduce_s / 4;
        stage->bytes = random_bytes(d);
        plan->placement[s] = s % 2 ? plan->ranks - 1 - s % plan->ranks : s % plan->ranks;
    }
    for (int p = 0; p < plan->ranks; p++) plan->placement[p] = p; /* everyone has one */
}

static void fill_prediction(pp_plan *plan, dice *d) {
    pp_prediction *predicted = &plan->predicted;
    predicted->iteration_time_s = roll_double(d);
    predicted->throughput = roll_double(d);
    predicted->tokens_per_s = roll(d, 0, 1) ? roll_double(d) : 0;
    predicted->mfu = roll(d, 0, 1) ? roll_double(d) : 0;
    predicted->cost_per_step = roll(d, 0, 1) ? roll_double(d) : 0;
    predicted->bubble_fraction = pp_random_unit(d->key, d->at++);
    for (int p = 0; p < plan->ranks; p++) {
        predicted->rank[p].busy_s = roll_double(d);
        predicted->rank[p].peak_bytes = roll(d, -1, 1LL << 40);
    }
}

static void fill_batch(pp_plan *plan, dice *d) {
    plan->microbatch_size = roll(d, 1, 9);
    plan->microbatches = (int)roll(d, 1, 30);
    int64_t last = roll(d, 1, plan->microbatch_size);
    plan->global_batch = plan->dp * (plan->microbatch_size * (plan->microbatches - 1) + last);
    plan->last_microbatch_scale = 0.5 + pp_random_unit(d->key, d->at++);
    plan->dtype = roll(d, 0, 1) ? PP_BF16 : PP_FP32;
    plan->optimizer = (pp_optimizer)roll(d, 0, PP_OPTIMIZER_COUNT - 1);
    plan->zero = (int)roll(d, 0, 1);
    plan->recompute = (pp_recompute)roll(d, 0, PP_RECOMPUTE_COUNT - 1);
    plan->blocking = roll(d, 0, 1);
    plan->reduce_buckets = (int)roll(d, 0, 3);
    plan->load_s = roll(d, 0, 1) ? 0.25 : 0;
    plan->prefetch = roll(d, 0, 1);
    plan->costs = (pp_cost_source)roll(d, 0, 2);
    plan->schedule_hash = (uint64_t)roll(d, 0, INT64_MAX - 1) * 2;
    plan->cost_hash = (uint64_t)roll(d, 0, INT64_MAX - 1);
}

static pp_plan *random_plan(uint64_t seed) {
    dice d = dice_of(seed, "plan");
    pp_plan *plan;
    pp_error error = {0};
    pp_cluster *cluster;
    int ranks = (int)roll(&d, 1, 4), virtual_stages = (int)roll(&d, 1, 3);
    pp_model *model = opaque_model(&d, (int)roll(&d, ranks * virtual_stages, 24));
    cr_assert_eq(pp_cluster_open("dgx-a100:4", 0, &cluster, NULL), PP_OK);
    cr_assert_eq(pp_plan_new(model, cluster, ranks, ranks * virtual_stages, (int)roll(&d, 1, 4),
                             (int)roll(&d, 1, 2), &plan, &error),
                 PP_OK, "%s", error.message);
    pp_model_free(model);
    pp_cluster_free(cluster);
    bool file = roll(&d, 0, 1);
    snprintf(plan->schedule, sizeof plan->schedule, "%s", file ? "file" : "1f1b");
    if (file) plan->schedule_csv = "0F0,0B0\n1F0,\"1B0\"\n# \xc3\xa9\t\\";
    snprintf(plan->cost_note, sizeof plan->cost_note, "profile \"cpu.db\", %d", (int)seed);
    fill_batch(plan, &d);
    if (virtual_stages == 1 && plan->microbatches % 2 == 0) cr_assert(pp_plan_add_chain(plan));
    fill_stages(plan, &d);
    fill_prediction(plan, &d);
    random_order(plan->model, plan->order, &d);
    int positions = plan->ranks * plan->dp * plan->tp;
    for (int i = 0; i < positions; i++) plan->devices[i] = 31 - i;
    return plan;
}

static pp_text written(const pp_plan *plan) {
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_plan_write(plan, &json);
    cr_assert(!text.failed);
    return text;
}

/* ---- comparing ------------------------------------------------------------------------------ */

static void expect_same_ints(const int *a, const int *b, int count) {
    cr_assert_eq(memcmp(a, b, (size_t)count * sizeof *a), 0);
}

static void expect_same_stage(const pp_stage *a, const pp_stage *b) {
    cr_assert(a->first == b->first && a->last == b->last && a->recompute == b->recompute);
    cr_assert(a->forward_s == b->forward_s && a->input_s == b->input_s &&
              a->weight_s == b->weight_s && a->recompute_s == b->recompute_s &&
              a->optimizer_s == b->optimizer_s && a->reduce_s == b->reduce_s &&
              a->reduce_transfer_s == b->reduce_transfer_s &&
              a->reduce_latency_s == b->reduce_latency_s && a->tie_transfer_s == b->tie_transfer_s);
    cr_assert_eq(memcmp(&a->bytes, &b->bytes, sizeof a->bytes), 0);
}

static void expect_same_prediction(const pp_plan *plan, const pp_plan *again) {
    const pp_prediction *a = &plan->predicted, *b = &again->predicted;
    cr_assert(a->iteration_time_s == b->iteration_time_s && a->throughput == b->throughput &&
              a->bubble_fraction == b->bubble_fraction && a->tokens_per_s == b->tokens_per_s &&
              a->mfu == b->mfu && a->cost_per_step == b->cost_per_step);
    for (int p = 0; p < plan->ranks; p++)
        cr_assert(a->rank[p].busy_s == b->rank[p].busy_s &&
                  a->rank[p].peak_bytes == b->rank[p].peak_bytes);
}

static void expect_same_plan(const pp_plan *a, const pp_plan *b) {
    cr_assert(a->ranks == b->ranks && a->virtual_stages == b->virtual_stages &&
              a->chains == b->chains && a->stage_count == b->stage_count &&
              a->microbatches == b->microbatches && a->slices == b->slices);
    cr_assert(a->microbatch_size == b->microbatch_size && a->global_batch == b->global_batch &&
              a->last_microbatch_scale == b->last_microbatch_scale);
    cr_assert(a->dp == b->dp && a->tp == b->tp && a->dtype == b->dtype && a->zero == b->zero);
    cr_assert(a->optimizer == b->optimizer && a->recompute == b->recompute &&
              a->blocking == b->blocking && a->costs == b->costs);
    cr_assert(a->reduce_buckets == b->reduce_buckets && a->load_s == b->load_s &&
              a->prefetch == b->prefetch);
    cr_assert(a->schedule_hash == b->schedule_hash && a->model_hash == b->model_hash &&
              a->cluster_hash == b->cluster_hash && a->cost_hash == b->cost_hash);
    cr_assert_str_eq(a->schedule, b->schedule);
    cr_assert_str_eq(a->cost_note, b->cost_note);
    cr_assert_eq(!a->schedule_csv, !b->schedule_csv);
    if (a->schedule_csv) cr_assert_str_eq(a->schedule_csv, b->schedule_csv);
    expect_same_ints(a->order, b->order, a->model->layer_count);
    expect_same_ints(a->placement, b->placement, a->stage_count);
    expect_same_ints(a->devices, b->devices, a->ranks * a->dp * a->tp);
    for (int s = 0; s < a->stage_count; s++) expect_same_stage(&a->stages[s], &b->stages[s]);
    expect_same_prediction(a, b);
    cr_assert_eq(pp_model_hash(a->model), pp_model_hash(b->model));
    cr_assert_eq(pp_cluster_hash(a->cluster), pp_cluster_hash(b->cluster));
}

Test(plan, random_plans_round_trip) {
    for (uint64_t seed = 1; seed <= 200; seed++) {
        pp_error error = {0};
        pp_plan *plan = random_plan(seed), *again;
        pp_text text = written(plan);
        cr_assert_eq(pp_plan_read(text.bytes, text.length, "x.json", &again, &error), PP_OK,
                     "seed %d: %s: %s\n%s", (int)seed, error.place, error.message, text.bytes);
        expect_same_plan(plan, again);
        pp_text_deinit(&text);
        pp_plan_free(again);
        pp_plan_free(plan);
    }
}

/* ---- a plan by hand ------------------------------------------------------------------------- */

/* gpt-nano on 2 ranks with 2 stages each, 2 replicas, 22 samples in microbatches of 4, 4 and 3 */
static pp_plan *nano_plan(void) {
    pp_model *model;
    pp_cluster *cluster;
    pp_plan *plan;
    pp_error error = {0};
    cr_assert_eq(pp_model_open("gpt-nano", &model, NULL), PP_OK);
    cr_assert_eq(pp_cluster_open("dgx-h100:1", 0, &cluster, NULL), PP_OK);
    cr_assert_eq(pp_plan_new(model, cluster, 2, 4, 2, 1, &plan, &error), PP_OK, "%s",
                 error.message);
    pp_model_free(model);
    pp_cluster_free(cluster);
    static const int firsts[] = {0, 1, 3, 4, 6};
    for (int s = 0; s < 4; s++) {
        plan->stages[s].first = firsts[s];
        plan->stages[s].last = firsts[s + 1] - 1;
        plan->stages[s].forward_s = 0.5 + s;
    }
    plan->microbatches = 3;
    plan->microbatch_size = 4;
    plan->global_batch = 22;
    plan->last_microbatch_scale = 0.75;
    plan->schedule_hash = 255;
    snprintf(plan->schedule, sizeof plan->schedule, "gpipe");
    snprintf(plan->cost_note, sizeof plan->cost_note, "by hand");
    plan->predicted.iteration_time_s = 8.25;
    return plan;
}

Test(plan, a_new_plan_has_sensible_defaults) {
    pp_plan *plan = nano_plan();
    cr_assert(plan->virtual_stages == 2 && plan->stage_count == 4);
    cr_assert(plan->order[5] == 5 && plan->devices[3] == 3);
    cr_assert(plan->placement[2] == 0 && plan->placement[3] == 1);
    cr_assert(plan->model_hash == pp_model_hash(plan->model) && plan->model_hash != 0);
    pp_plan_free(plan);
}

Test(plan, impossible_counts_are_refused) {
    static const struct {
        int ranks, stages, dp, tp;
        const char *message;
    } table[] = {
        {2, 3, 1, 1, "cannot be dealt evenly"}, {7, 7, 1, 1, "gpt-nano' has 6"},
        {3, 3, 3, 1, "need 9 devices"},         {1, 1, 0, 1, "need 0 devices"},
        {0, 0, 1, 1, "cannot be dealt"},
    };
    pp_model *model;
    pp_cluster *cluster;
    cr_assert_eq(pp_model_open("gpt-nano", &model, NULL), PP_OK);
    cr_assert_eq(pp_cluster_open("dgx-h100:1", 0, &cluster, NULL), PP_OK);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        pp_plan *plan;
        pp_error error = {0};
        cr_assert_eq(pp_plan_new(model, cluster, table[i].ranks, table[i].stages, table[i].dp,
                                 table[i].tp, &plan, &error),
                     PP_E_INPUT);
        cr_assert(strstr(error.message, table[i].message), "%s", error.message);
        cr_assert_null(plan);
    }
    pp_model_free(model);
    pp_cluster_free(cluster);
}

Test(plan, the_last_microbatch_holds_the_rest) {
    pp_plan *plan = nano_plan();
    cr_assert_eq(pp_plan_samples(plan, 0), 4);
    cr_assert_eq(pp_plan_samples(plan, 1), 4);
    cr_assert_eq(pp_plan_samples(plan, 2), 3);
    pp_plan_free(plan);
}

Test(plan, optimizers_have_names) {
    pp_optimizer optimizer;
    cr_assert_str_eq(pp_optimizer_name(PP_ADAMW), "adamw");
    cr_assert(pp_optimizer_from_name("sgd", &optimizer) && optimizer == PP_SGD);
    cr_assert_not(pp_optimizer_from_name("adam", &optimizer));
}

/* ---- borders -------------------------------------------------------------------------------- */

Test(plan, a_border_of_a_chain_is_one_activation) {
    pp_plan *plan = nano_plan();
    for (int s = 0; s < 3; s++)
        cr_assert_eq(pp_plan_border_bytes(plan, s), 4 * 128 * 64 * 4); /* samples, sequence, dim */
    cr_assert_eq(pp_plan_border_bytes(plan, 3), 0);
    pp_plan_free(plan);
}

/* Each layer in front of the border whose output anything behind it reads, once. */
static int64_t border_by_definition(const pp_plan *plan, int stage) {
    const pp_model *model = plan->model;
    int64_t bytes = 0;
    for (int i = 0; i <= plan->stages[stage].last; i++) {
        bool read = false;
        for (int j = plan->stages[stage].last + 1; j < model->layer_count; j++)
            for (int e = 0; e < model->edge_count; e++)
                read |=
                    model->edges[e].from == plan->order[i] && model->edges[e].to == plan->order[j];
        if (read) bytes += model->layers[plan->order[i]].output_bytes * plan->microbatch_size;
    }
    return bytes;
}

Test(plan, borders_carry_each_output_that_is_read_behind_them_once) {
    for (uint64_t seed = 1; seed <= 100; seed++) {
        pp_plan *plan = random_plan(seed);
        for (int s = 0; s < plan->stage_count; s++)
            cr_assert_eq(pp_plan_border_bytes(plan, s), border_by_definition(plan, s),
                         "seed %d, stage %d", (int)seed, s);
        pp_plan_free(plan);
    }
}

/* ---- what is refused ------------------------------------------------------------------------ */

static pp_status try_plan(const char *text, size_t length, pp_error *error) {
    pp_plan *plan;
    pp_status status = pp_plan_read(text, length, "bad.json", &plan, error);
    cr_assert(status == PP_OK || !plan);
    pp_plan_free(plan);
    return status;
}

static const malformed refused[] = {
    {NULL, "", ":1:1", "end of file"},
    {"\"ranks\": 2", "\"ranks\": 2,", ":4:14", "string or '}' expected"},
    {"\"ranks\": 2", "\"ranks\": 2, \"ranks\": 3", ":4:21", "duplicate"},
    {NULL, "[]", "", "expected an object"},
    {"ppsim-plan", "ppsim-model", " /format", "expected \"ppsim-plan\""},
    {"\"version\": 1", "\"version\": 0", " /version", "expected 1"},
    {"\"ranks\": 2,", "", "", "\"ranks\" is missing; expected an integer from 1 to 65535"},
    {"\"ranks\": 2", "\"ranks\": 0", " /ranks", "got 0"},
    {"\"ranks\": 2", "\"ranks\": 70000", " /ranks", "to 65535"},
    {"\"ranks\": 2", "\"ranks\": 2, \"rank\": 2", "", "unknown key \"rank\"; known here"},
    {"\"ranks\": 2", "\"ranks\": 4", "", "need as many layers"},
    {"\"ranks\": 2", "\"ranks\": 1", " /stages", "expected 2 elements, got 4"},
    {"\"virtual\": 2", "\"virtual\": 2, \"chains\": 3", " /chains", "from 1 to 2"},
    {"\"virtual\": 2", "\"virtual\": 2, \"chains\": 2", " /chains", "one stage of each on a rank"},
    {"\"virtual\": 2", "\"virtual\": 1, \"chains\": 2", " /splits", "expected 1 elements, got 3"},
    {"\"virtual\": 2", "\"virtual\": 40000", " /virtual", "more than 65535 stages"},
    {"\"microbatches\": 3", "\"microbatches\": 3, \"slices\": 257", " /slices", "from 1 to 256"},
    {"\"recompute_s\"", "\"forward_tilt_s\": 1000, \"recompute_s\"", " /stages/0",
     "less than nothing"},
    {"\"recompute_s\"", "\"input_tilt_s\": -1, \"recompute_s\"", " /stages/0/input_tilt_s", "-1"},
    {"\"virtual\": 2", "\"virtual\": 1", " /stages", "expected 2 elements, got 4"},
    {"\"microbatches\": 3", "\"microbatches\": 4", " /microbatches",
     "expected 3: 11 samples per replica in microbatches of 4"},
    {"\"microbatch_size\": 4", "\"microbatch_size\": 4000000000000", " /microbatch_size",
     "1099511627776"},
    {"\"microbatches\": 3,\n  \"microbatch_size\": 4,\n  \"global_batch\": 22",
     "\"microbatches\": 1,\n  \"microbatch_size\": 1099511627776,\n  \"global_batch\": 22",
     " /microbatch_size", "2^52"},
    {"\"global_batch\": 22", "\"global_batch\": 23", " /global_batch", "divide evenly by dp 2"},
    {"\"global_batch\": 22", "\"global_batch\": 0", " /global_batch", "from 1"},
    {"0.75", "0", " /last_microbatch_scale", "above 0"},
    {"\"dp\": 2", "\"dp\": 8", "", "need 16 devices; the cluster 'dgx-h100:1' has 8"},
    {"\"fp32\",\n", "\"fp8\",\n", " /dtype", "one of fp32"},
    {"\"fp32\",\n", "\"int32\",\n", " /dtype", "floating-point"},
    {"\"adamw\"", "\"adam\"", " /optimizer", "one of adamw, sgd"},
    {"\"zero\": 0", "\"zero\": 2", " /zero", "from 0 to 1"},
    {"\"recompute\": \"none\",\n", "\"recompute\": \"some\",\n", " /recompute", "one of none"},
    {"\"blocking\": false", "\"blocking\": 0", " /blocking", "true or false"},
    {"\"blocking\": false", "\"blocking\": false, \"reduce_buckets\": 1001", " /reduce_buckets",
     "from 0 to 1000"},
    {"\"blocking\": false", "\"blocking\": false, \"load_s\": -1", " /load_s", "from 0"},
    {"\"reduce_s\": 0,", "\"reduce_s\": 1, \"reduce_transfer_s\": 0.75, \"tie_transfer_s\": 0.5,",
     " /stages/0", "add up to 1.25 s of 1 s"},
    {"\"reduce_s\": 0,", "\"reduce_s\": 1, \"reduce_transfer_s\": 0.5, \"reduce_latency_s\": 0.75,",
     " /stages/0", "0.75 s of 0.5 s"},
    {"\"model_hash\": \"", "\"model_hash\": \"0", " /model_hash", "16 hexadecimal digits"},
    {"\"heads\": 4", "\"heads\": 8", " /model_hash", "the plan was edited: its model"},
    {"\"repeat\": 1", "\"repeat\": 2", " /cluster_hash", "the plan was edited: its cluster"},
    {"\"gpipe\"", "\"\"", " /schedule/name", "empty"},
    {"\"gpipe\"", "\"file\"", " /schedule", "\"csv\" is missing"},
    {"\"gpipe\"", "\"gpipe\", \"csv\": 5", " /schedule/csv", "a schedule as CSV"},
    {"00000000000000ff", "00000000000000FF", " /schedule/hash", "hexadecimal"},
    {"[0, 1, 2, 3, 4, 5]", "[0, 1, 2, 3, 4]", " /order", "expected 6 elements"},
    {"[0, 1, 2, 3, 4, 5]", "[0, 1, 2, 3, 4, 6]", " /order/5", "from 0 to 5"},
    {"[0, 1, 2, 3, 4, 5]", "[0, 1, 2, 3, 4, 4]", " /order/5", "layer 4 stands twice"},
    {"[0, 1, 2, 3, 4, 5]", "[0, 2, 1, 3, 4, 5]", " /order", "layer 2 reads layer 1"},
    {"[1, 3, 4]", "[1, 3, 3]", " /splits/2", "must ascend"},
    {"[1, 3, 4]", "[0, 3, 4]", " /splits/0", "from 1 to 5"},
    {"[1, 3, 4]", "[1, 3, 6]", " /splits/2", "from 1 to 5"},
    {"[1, 3, 4]", "\"uniform\"", " /splits", "expected an array"},
    {"[0, 1, 0, 1]", "[0, 1, 0, 2]", " /placement/3", "from 0 to 1"},
    {"[0, 1, 0, 1]", "[0, 0, 0, 0]", " /placement", "rank 1 has no stage"},
    {"[0, 1, 2, 3],", "[0, 1, 2, 8],", " /devices/3", "from 0 to 7"},
    {"[0, 1, 2, 3],", "[0, 1, 2, 0],", " /devices/3", "used twice"},
    {"2.5", "-2.5", " /stages/2/forward_s", "from 0"},
    {"\"stash\": 0", "\"stash\": 0.5", " /stages/0/bytes/stash", "an integer"},
    {"\"stash\": 0, ", "", " /stages/0/bytes", "\"stash\" is missing"},
    {"\"measured\"", "\"guessed\"", " /costs/source", "one of measured, modelled, opaque"},
    {"8.25", "null", " /predicted/iteration_time", "got null"},
    {"\"mfu\": null", "\"mfu\": \"good\"", " /predicted/mfu", "or null"},
    {"{\"busy\": 0, \"peak_bytes\": 0},", "", " /predicted/rank", "expected 2 elements, got 1"},
    {"\"gpt_block\"", "\"gpt_blok\"", " /model/layers/1/op", "unknown op"},
    {"\"count\": 8", "\"count\": 0", " /cluster/nodes/0/count", "from 1"},
};

Test(plan, malformed_documents_are_refused_with_place_and_reason) {
    pp_plan *plan = nano_plan();
    pp_text good = written(plan);
    expect_refused(refused, sizeof refused / sizeof *refused, good.bytes, try_plan);
    pp_text_deinit(&good);
    pp_plan_free(plan);
}

/* ---- files and failures --------------------------------------------------------------------- */

Test(plan, a_plan_is_opened_by_its_path) {
    char path[] = "/tmp/ppsim-plan-XXXXXX";
    pp_plan *plan = nano_plan(), *again;
    pp_text text = written(plan);
    pp_error error = {0};
    close(mkstemp(path));
    cr_assert_eq(pp_file_write(path, &text, &error), PP_OK, "%s", error.message);
    cr_assert_eq(pp_plan_open(path, &again, &error), PP_OK, "%s", error.message);
    expect_same_plan(plan, again);
    pp_plan_free(again);
    unlink(path);
    cr_assert_eq(pp_plan_open(path, &again, &error), PP_E_INPUT);
    cr_assert_null(again);
    pp_text_deinit(&text);
    pp_plan_free(plan);
}

static pp_status read_plan(void *context, pp_error *error) {
    const char *text = context;
    pp_plan *plan;
    PP_TRY(pp_plan_read(text, strlen(text), "x.json", &plan, error));
    bool known = pp_plan_border_bytes(plan, 0) >= 0;
    if (plan->virtual_stages == 1 && plan->chains == 1) known = known && pp_plan_add_chain(plan);
    pp_plan_free(plan);
    return known ? PP_OK : pp_fail_memory(error);
}

static pp_status copy_plan(void *context, pp_error *error) {
    const pp_plan *plan = context;
    pp_plan *made;
    PP_TRY(pp_plan_new(plan->model, plan->cluster, 2, 4, 2, 1, &made, error));
    pp_text text = {0};
    pp_json json = pp_json_start(&text);
    pp_plan_write(made, &json);
    bool failed = text.failed;
    pp_text_deinit(&text);
    pp_plan_free(made);
    return failed ? pp_fail_memory(error) : PP_OK;
}

Test(plan, any_allocation_may_fail) {
    pp_plan *plan = nano_plan();
    pp_text text = written(plan);
    expect_survives_allocation_failures(read_plan, text.bytes);
    expect_survives_allocation_failures(copy_plan, plan);
    pp_text_deinit(&text);
    pp_plan_free(plan);
}
