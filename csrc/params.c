#include "params.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"

rp_status rp_config_in_range(const char *field, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "config: %s is %lld, expected %lld to %lld", field, (long long)value,
                   (long long)least, (long long)most);
}

static rp_status is_probability(const char *field, double value) {
    if (value >= 0 && value < 1) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "config: %s is %g, expected 0 <= p < 1", field, value);
}

static rp_status check_config(const rp_config *c) {
    RP_TRY(rp_config_in_range("vocab_size", c->vocab_size, 1, 1 << 26));
    RP_TRY(rp_config_in_range("hidden_size", c->hidden_size, 1, 1 << 16));
    RP_TRY(rp_config_in_range("embedding_size", c->embedding_size, 1, 1 << 16));
    RP_TRY(rp_config_in_range("num_hidden_layers", c->num_hidden_layers, 1, 1024));
    RP_TRY(rp_config_in_range("num_attention_heads", c->num_attention_heads, 1, c->hidden_size));
    RP_TRY(rp_config_in_range("intermediate_size", c->intermediate_size, 1, 1 << 20));
    RP_TRY(rp_config_in_range("max_position_embeddings", c->max_position_embeddings, 1, 65535));
    RP_TRY(rp_config_in_range("position_offset", c->position_offset, 0, c->max_position_embeddings - 1));
    RP_TRY(rp_config_in_range("type_vocab_size", c->type_vocab_size, 0, 1 << 16));
    RP_TRY(rp_config_in_range("graph_size", c->graph_size, 0, 1 << 16));
    RP_TRY(is_probability("hidden_dropout_prob", c->hidden_dropout_prob));
    RP_TRY(is_probability("attention_probs_dropout_prob", c->attention_probs_dropout_prob));
    if (c->hidden_size % c->num_attention_heads != 0)
        return rp_fail(RP_STATUS_VALUE, "config: hidden_size %lld is no multiple of num_attention_heads %lld",
                       (long long)c->hidden_size, (long long)c->num_attention_heads);
    if (!c->embedding_projection && c->embedding_size != c->hidden_size)
        return rp_fail(RP_STATUS_VALUE, "config: embedding_size %lld is not hidden_size %lld, and nothing projects it",
                       (long long)c->embedding_size, (long long)c->hidden_size);
    if (!(c->layer_norm_eps > 0))
        return rp_fail(RP_STATUS_VALUE, "config: layer_norm_eps is %g, expected above 0", c->layer_norm_eps);
    return RP_OK;
}

int64_t rp_config_positions(const rp_config *config) {
    return config->max_position_embeddings - config->position_offset;
}

int64_t rp_config_widest(const rp_config *config) {
    int64_t F = config->intermediate_size, E = config->embedding_size, wide = 3 * config->hidden_size;
    if (F > wide) wide = F;
    if (config->graph_size > wide) wide = config->graph_size;
    return E > wide ? E : wide;
}

int64_t rp_params_append(rp_params *p, int64_t rows, int64_t columns, rp_init init, double std, bool decay,
                         const char *name) {
    rp_param *param = &p->table[p->count++]; /* the table has room: rp_params_open made it */
    snprintf(param->name, sizeof param->name, "%s", name);
    param->rows = rows;
    param->columns = columns;
    param->count = columns ? rows * columns : rows;
    param->offset = p->total;
    param->init = init;
    param->std = std;
    param->decay = decay;
    param->mlm_head = strncmp(param->name, "cls.", 4) == 0;
    p->total += param->count;
    return param->offset;
}

/* A parameter of an encoder, or beside a model's. */
static int64_t add(rp_params *p, int64_t rows, int64_t columns, rp_init init, bool decay, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

static int64_t add(rp_params *p, int64_t rows, int64_t columns, rp_init init, bool decay, const char *format, ...) {
    char name[sizeof p->table->name];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    return rp_params_append(p, rows, columns, init, p->config.initializer_range, decay, name);
}

static int64_t add_weight(rp_params *p, int64_t rows, int64_t columns, const char *stem, int64_t layer) {
    return add(p, rows, columns, RP_INIT_NORMAL, true, "encoder.layer.%lld.%s.weight", (long long)layer, stem);
}

static int64_t add_bias(rp_params *p, int64_t rows, const char *stem, int64_t layer) {
    return add(p, rows, 0, RP_INIT_ZERO, false, "encoder.layer.%lld.%s.bias", (long long)layer, stem);
}

static int64_t add_gamma(rp_params *p, int64_t rows, const char *stem, int64_t layer) {
    return add(p, rows, 0, RP_INIT_ONE, false, "encoder.layer.%lld.%s.weight", (long long)layer, stem);
}

static void add_layer(rp_params *p, int64_t i) {
    int64_t H = p->config.hidden_size, F = p->config.intermediate_size;
    rp_layer_params *l = &p->layers[i];
    l->qkv_weight = add_weight(p, H, H, "attention.self.query", i);
    add_weight(p, H, H, "attention.self.key", i);
    add_weight(p, H, H, "attention.self.value", i);
    l->qkv_bias = add_bias(p, H, "attention.self.query", i);
    add_bias(p, H, "attention.self.key", i);
    add_bias(p, H, "attention.self.value", i);
    l->out_weight = add_weight(p, H, H, "attention.output.dense", i);
    l->out_bias = add_bias(p, H, "attention.output.dense", i);
    l->norm1_gamma = add_gamma(p, H, "attention.output.LayerNorm", i);
    l->norm1_beta = add_bias(p, H, "attention.output.LayerNorm", i);
    l->up_weight = add_weight(p, F, H, "intermediate.dense", i);
    l->up_bias = add_bias(p, F, "intermediate.dense", i);
    l->down_weight = add_weight(p, H, F, "output.dense", i);
    l->down_bias = add_bias(p, H, "output.dense", i);
    l->norm2_gamma = add_gamma(p, H, "output.LayerNorm", i);
    l->norm2_beta = add_bias(p, H, "output.LayerNorm", i);
}

static void add_embeddings(rp_params *p) {
    const rp_config *c = &p->config;
    int64_t E = c->embedding_size, H = c->hidden_size;
    p->word = add(p, c->vocab_size, E, RP_INIT_NORMAL, true, "embeddings.word_embeddings.weight");
    p->position = add(p, c->max_position_embeddings, E, RP_INIT_NORMAL, true, "embeddings.position_embeddings.weight");
    p->type = -1;
    if (c->type_vocab_size > 0)
        p->type = add(p, c->type_vocab_size, E, RP_INIT_NORMAL, true, "embeddings.token_type_embeddings.weight");
    p->norm_gamma = add(p, E, 0, RP_INIT_ONE, false, "embeddings.LayerNorm.weight");
    p->norm_beta = add(p, E, 0, RP_INIT_ZERO, false, "embeddings.LayerNorm.bias");
    if (!c->embedding_projection) return;
    p->project_weight = add(p, H, E, RP_INIT_NORMAL, true, "embeddings_project.weight");
    p->project_bias = add(p, H, 0, RP_INIT_ZERO, false, "embeddings_project.bias");
}

static void add_head(rp_params *p) {
    int64_t E = p->config.embedding_size, H = p->config.hidden_size;
    p->transform_weight = add(p, E, H, RP_INIT_NORMAL, true, "cls.predictions.transform.dense.weight");
    p->transform_bias = add(p, E, 0, RP_INIT_ZERO, false, "cls.predictions.transform.dense.bias");
    p->transform_gamma = add(p, E, 0, RP_INIT_ONE, false, "cls.predictions.transform.LayerNorm.weight");
    p->transform_beta = add(p, E, 0, RP_INIT_ZERO, false, "cls.predictions.transform.LayerNorm.bias");
    p->decoder_bias = add(p, p->config.vocab_size, 0, RP_INIT_ZERO, false, "cls.predictions.bias");
}

static void add_all(rp_params *p) {
    add_embeddings(p);
    for (int64_t i = 0; i < p->config.num_hidden_layers; i++) {
        if (i > 0 && p->config.shared_layers)
            p->layers[i] = p->layers[0];
        else
            add_layer(p, i);
    }
    add_head(p);
    if (p->config.graph_size > 0) /* behind the others, whose initial values it leaves as they are */
        p->graph_weight =
            add(p, p->config.embedding_size, p->config.graph_size, RP_INIT_ZERO, true, "graph_projection.weight");
}

enum { EMBEDDING_PARAMS = 7, LAYER_PARAMS = 16, HEAD_PARAMS = 5, GRAPH_PARAMS = 1 };

rp_status rp_params_open(rp_params **out, int64_t capacity) {
    rp_params *p = calloc(1, sizeof *p);
    if (p == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a parameter table");
    p->capacity = capacity;
    p->table = calloc((size_t)capacity, sizeof *p->table);
    if (p->table == NULL) {
        rp_params_free(p);
        return rp_fail(RP_STATUS_MEMORY, "no memory for a table of %lld parameters", (long long)capacity);
    }
    *out = p;
    return RP_OK;
}

rp_status rp_params_new(rp_params **out, const rp_config *config) {
    rp_params *p;
    RP_TRY(check_config(config));
    RP_TRY(
        rp_params_open(&p, EMBEDDING_PARAMS + LAYER_PARAMS * config->num_hidden_layers + HEAD_PARAMS + GRAPH_PARAMS));
    p->config = *config;
    p->layers = calloc((size_t)config->num_hidden_layers, sizeof *p->layers);
    if (p->layers == NULL) {
        rp_params_free(p);
        return rp_fail(RP_STATUS_MEMORY, "no memory for %lld layers' offsets", (long long)config->num_hidden_layers);
    }
    add_all(p);
    *out = p;
    return RP_OK;
}

enum { HEADS_SITE = 1 << 24 }; /* behind every model's parameters */

rp_status rp_params_new_heads(rp_params **out, int64_t capacity, double std) {
    RP_TRY(rp_params_open(out, capacity));
    (*out)->config.initializer_range = std;
    (*out)->site = HEADS_SITE;
    return RP_OK;
}

int64_t rp_params_add(rp_params *heads, const char *owner, const char *part, int64_t rows, int64_t columns,
                      rp_init init, bool decay) {
    return add(heads, rows, columns, init, decay, "%s.%s", owner, part);
}

void rp_params_free(rp_params *params) {
    if (params == NULL) return;
    free(params->table);
    free(params->layers);
    free(params->cnn);
    free(params);
}

int64_t rp_params_find(const rp_params *params, const char *name) {
    for (int64_t i = 0; i < params->count; i++)
        if (strcmp(params->table[i].name, name) == 0) return i;
    return -1;
}

/* Two normal numbers by Box and Muller's transform. */
static void normal_pair(rp_rng *rng, double out[2]) {
    double radius = sqrt(-2.0 * log(1.0 - rp_rng_unit(rng))), angle = 6.283185307179586 * rp_rng_unit(rng);
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

void rp_params_init(const rp_params *params, int64_t index, uint64_t seed, float *values) {
    const rp_param *param = &params->table[index];
    if (param->init != RP_INIT_NORMAL) {
        for (int64_t i = 0; i < param->count; i++) values[i] = param->init == RP_INIT_ONE ? 1.0f : 0.0f;
        return;
    }
    rp_rng rng = rp_rng_stream(rp_rng_key(seed, RP_PURPOSE_INIT, params->site + (uint32_t)index), 0, 0, 0);
    for (int64_t i = 0; i < param->count; i += 2) {
        double pair[2];
        normal_pair(&rng, pair);
        values[i] = (float)(param->std * pair[0]);
        if (i + 1 < param->count) values[i + 1] = (float)(param->std * pair[1]);
    }
}
