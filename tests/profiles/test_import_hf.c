/* Hugging Face's configurations: the published sizes of the models they describe, and what is
 * refused. The files here have the keys that matter, and some that do not. */
#include "import_support.h"

COUNTED_SUITE(import_hf);

static const char gpt2[] =
    "{\"activation_function\": \"gelu_new\", \"architectures\": [\"GPT2LMHeadModel\"],"
    " \"attn_pdrop\": 0.1, \"bos_token_id\": 50256, \"embd_pdrop\": 0.1,"
    " \"initializer_range\": 0.02, \"layer_norm_epsilon\": 1e-05, \"model_type\": \"gpt2\","
    " \"n_ctx\": 1024, \"n_embd\": 768, \"n_head\": 12, \"n_layer\": 12, \"n_positions\": 1024,"
    " \"resid_pdrop\": 0.1, \"task_specific_params\": {\"text-generation\": {\"max_length\": 50}},"
    " \"vocab_size\": 50257}";

static const char llama[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"attention_bias\": false, \"head_dim\": 64,"
    " \"hidden_act\": \"silu\", \"hidden_size\": 2048, \"intermediate_size\": 8192,"
    " \"max_position_embeddings\": 8192, \"mlp_bias\": false, \"model_type\": \"llama\","
    " \"num_attention_heads\": 32, \"num_hidden_layers\": 16, \"num_key_value_heads\": 8,"
    " \"rms_norm_eps\": 1e-05, \"rope_theta\": 500000.0, \"tie_word_embeddings\": true,"
    " \"vocab_size\": 128256}";

static const char bert[] =
    "{\"architectures\": [\"BertForMaskedLM\"], \"attention_probs_dropout_prob\": 0.1,"
    " \"hidden_act\": \"gelu\", \"hidden_dropout_prob\": 0.1, \"hidden_size\": 768,"
    " \"intermediate_size\": 3072, \"max_position_embeddings\": 512, \"model_type\": \"bert\","
    " \"num_attention_heads\": 12, \"num_hidden_layers\": 12, \"pad_token_id\": 0,"
    " \"type_vocab_size\": 2, \"vocab_size\": 30522}";

/* Parameters as published on the models' pages. */
Test(import_hf, models_have_their_published_sizes) {
    static const struct {
        const char *text;
        int layers;
        int64_t parameters;
    } cases[] = {
        {gpt2, 14, 124439808},
        {llama, 18, 1235814400}, /* Llama 3.2 1B */
        {bert, 14, 109514298},   /* bert-base-uncased for masked language models */
        {"{\"model_type\": \"llama\", \"hidden_size\": 4096, \"intermediate_size\": 11008,"
         "\"max_position_embeddings\": 4096, \"num_attention_heads\": 32,"
         "\"num_hidden_layers\": 32, \"rope_scaling\": null, \"vocab_size\": 32000}",
         34, 6738415616}, /* Llama 2 7B */
        {"{\"architectures\": [\"MistralForCausalLM\"], \"hidden_size\": 4096,"
         "\"intermediate_size\": 14336, \"max_position_embeddings\": 4096,"
         "\"num_attention_heads\": 32, \"num_hidden_layers\": 32, \"num_key_value_heads\": 8,"
         "\"sliding_window\": 4096, \"vocab_size\": 32000}",
         34, 7241732096}, /* Mistral 7B v0.1; its model_type follows from its class */
        {"{\"model_type\": \"mistral\", \"head_dim\": 128, \"hidden_size\": 5120,"
         "\"intermediate_size\": 14336, \"max_position_embeddings\": 8192,"
         "\"num_attention_heads\": 32, \"num_hidden_layers\": 40, \"num_key_value_heads\": 8,"
         "\"sliding_window\": null, \"vocab_size\": 131072}",
         42, 12247782400}, /* Mistral NeMo: 32 heads of 128 in a width of 5120 */
        {"{\"model_type\": \"qwen2\", \"hidden_size\": 896, \"intermediate_size\": 4864,"
         "\"max_position_embeddings\": 8192, \"num_attention_heads\": 14,"
         "\"num_hidden_layers\": 24, \"num_key_value_heads\": 2, \"sliding_window\": 1024,"
         "\"use_sliding_window\": false, \"tie_word_embeddings\": true, \"vocab_size\": 151936}",
         26, 494032768}, /* Qwen2 0.5B */
        {"{\"model_type\": \"qwen2\", \"hidden_size\": 3584, \"intermediate_size\": 18944,"
         "\"max_position_embeddings\": 8192, \"num_attention_heads\": 28,"
         "\"num_hidden_layers\": 28, \"num_key_value_heads\": 4, \"vocab_size\": 152064}",
         30, 7615616512}, /* Qwen2 7B */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_model *model = import_must("hf", cases[i].text, NULL);
        cr_expect_eq(model->layer_count, cases[i].layers);
        cr_expect_eq(pp_model_parameters(model), cases[i].parameters, "case %zu: %lld", i,
                     (long long)pp_model_parameters(model));
        cr_expect_str_eq(model->name, "f");
        pp_model_free(model);
    }
}

/* A configuration and the preset of the same model are the same document, but for the name. */
Test(import_hf, presets_are_imported_models) {
    static const struct {
        const char *text, *preset;
    } cases[] = {{gpt2, "gpt2-124m"}, {bert, "bert-base"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_model *model = import_must("hf", cases[i].text, NULL), *preset;
        cr_assert_eq(pp_model_open(cases[i].preset, &preset, NULL), PP_OK);
        model->name = preset->name;
        cr_expect_eq(pp_model_hash(model), pp_model_hash(preset), "%s", cases[i].preset);
        pp_model_free(model);
        pp_model_free(preset);
    }
}

Test(import_hf, fields) {
    pp_model *model = import_must("hf", llama, NULL);
    const pp_layer *block = layer_called(model, "block15");
    cr_expect(block->op == PP_OP_LLAMA_BLOCK && block->dim == 2048 && block->heads == 32);
    cr_expect(block->kv_heads == 8 && block->hidden == 8192 && block->rotary_base == 500000);
    cr_expect(block->sequence == 8192 && !block->qkv_bias && block->dropout == 0);
    cr_expect_str_eq(layer_called(model, "embed")->tie, layer_called(model, "head")->tie);
    pp_model_free(model);
    model = import_must("hf",
                        "{\"model_type\": \"gpt2\", \"n_embd\": 8, \"n_head\": 2, \"n_layer\": 1,"
                        "\"n_positions\": 4, \"vocab_size\": 9, \"n_inner\": 20,"
                        "\"attn_pdrop\": 0.3, \"tie_word_embeddings\": false}",
                        NULL);
    cr_expect_eq(model->layers[1].hidden, 20);
    cr_expect_eq(model->layers[1].dropout, 0.3); /* the largest of the three */
    cr_expect_null(model->layers[0].tie);
    pp_model_free(model);
}

Test(import_hf, refusals) {
    static const spoiled cases[] = {
        {NULL, "", ":1:1", "end of file"},
        {NULL, "[]", "", "expected an object"},
        {NULL, "{}", "", "\"model_type\" is missing; expected one of gpt2, llama, mistral"},
        {"\"model_type\": \"llama\"", "\"model_type\": \"mamba\"", " /model_type",
         "\"mamba\" is a kind of model that cannot be imported; known: gpt2, llama, mistral, "
         "qwen2"},
        {"\"model_type\": \"llama\"", "\"model_type\": 3", " /model_type", "a string, got 3"},
        {"\"model_type\": \"llama\"", "\"model_type\": \"qwen2\"", " /architectures/0",
         "not a class of \"qwen2\""},
        {"[\"LlamaForCausalLM\"]", "[\"FooForCausalLM\"]", " /architectures/0", "not a class"},
        {"[\"LlamaForCausalLM\"]", "[7]", " /architectures/0", "expected a string, got 7"},
        {"[\"LlamaForCausalLM\"]", "\"LlamaForCausalLM\"", " /architectures", "an array"},
        {"\"hidden_size\": 2048,", "", "", "\"hidden_size\" is missing; expected an integer"},
        {"\"hidden_size\": 2048", "\"hidden_size\": \"2048\"", " /hidden_size", "got \"2048\""},
        {"\"hidden_size\": 2048", "\"hidden_size\": null", " /hidden_size", "got null"},
        {"\"hidden_size\": 2048", "\"hidden_size\": -1", " /hidden_size", "from 1"},
        {"\"hidden_size\": 2048", "\"hidden_size\": 2048.5", " /hidden_size", "an integer"},
        {"\"num_hidden_layers\": 16", "\"num_hidden_layers\": 0", " /num_hidden_layers", "from 1"},
        {"\"num_hidden_layers\": 16", "\"num_hidden_layers\": 99999", " /num_hidden_layers",
         "to 99998"},
        {"\"num_key_value_heads\": 8", "\"num_key_value_heads\": 5", " /num_key_value_heads",
         "5 heads of keys and values do not divide 32 heads"},
        {"\"head_dim\": 64, ", "\"head_dim\": 63, ", " /num_attention_heads", "63 features"},
        {"\"head_dim\": 64, \"hidden_act\": \"silu\", \"hidden_size\": 2048",
         "\"hidden_size\": 2047", " /num_attention_heads", "32 heads do not divide the width 2047"},
        {"\"attention_bias\": false", "\"attention_bias\": true", " /attention_bias",
         "expected false"},
        {"\"mlp_bias\": false", "\"mlp_bias\": true", " /mlp_bias", "expected false"},
        {"\"mlp_bias\": false", "\"mlp_bias\": 0", " /mlp_bias", "true or false, got 0"},
        {"\"tie_word_embeddings\": true", "\"tie_word_embeddings\": \"yes\"",
         " /tie_word_embeddings", "true or false"},
        {"\"hidden_act\": \"silu\"", "\"hidden_act\": []", " /hidden_act", "expected a string"},
        {"\"rope_theta\": 500000.0", "\"rope_theta\": 0", " /rope_theta", "from 1"},
        {"\"max_position_embeddings\": 8192", "\"max_position_embeddings\": 16777216", "",
         "2^46 elements"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refusal("hf", llama, &cases[i]);
    static const spoiled others[] = {
        {"\"model_type\": \"bert\"", "\"model_type\": \"bert\", \"is_decoder\": true",
         " /is_decoder", "encoder"},
        {"0.1,", "1.0,", " /attention_probs_dropout_prob", "to below 1"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        expect_refusal("hf", bert, &others[i]);
}

Test(import_hf, options_of_profiles_are_refused) {
    pp_model *model;
    pp_error error = {0};
    pp_import_options options = {.profile_batch = 4};
    cr_expect_eq(pp_import_text("hf", bert, strlen(bert), "f.txt", &options, &model, &error),
                 PP_E_INPUT);
    cr_expect_str_eq(error.place, "--profile-batch");
}
