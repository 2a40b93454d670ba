#include "network.h"

#include <stdlib.h>

/* -- kinds ----------------------------------------------------------------------------------------------- */

/* What the kinds of networks do each in its way; the arguments are those of rp_network_…. */
typedef struct kind {
    rp_network_sizes (*sizes)(const rp_params *);
    int64_t (*dim)(const rp_params *, const rp_represent *);
    void (*plan)(rp_network *, rp_arena *, const rp_capacity *most);
    rp_status (*forward)(rp_network *, rp_dev *, float *vectors, const float *values, rp_batch *, const rp_represent *,
                         const rp_reads *also, const rp_pass *);
    rp_status (*begin)(rp_network *, rp_dev *);
    rp_status (*backward)(rp_network *, rp_dev *, const float *values, float *grads, const float *dvectors,
                          const rp_represent *, const rp_pass *);
} kind;

static int64_t largest(int64_t a, int64_t b) { return a > b ? a : b; }

static int64_t largest_weight(const rp_config *c) {
    int64_t H = c->hidden_size, E = c->embedding_size;
    return largest(H * largest(3 * H, c->intermediate_size), E * largest(largest(H, c->vocab_size), c->graph_size));
}

static rp_network_sizes encoder_sizes(const rp_params *params) {
    const rp_config *c = &params->config;
    return (rp_network_sizes){
        .vocab_size = c->vocab_size,
        .positions = rp_config_positions(c),
        .most_dim = 2 * RP_PARTS * c->hidden_size, /* all parts side by side, none wider than 2H */
        .widest = rp_config_widest(c),
        .head_size = c->hidden_size / c->num_attention_heads,
        .weight = largest_weight(c),
        .initializer_range = c->initializer_range,
    };
}

static int64_t encoder_dim(const rp_params *params, const rp_represent *spec) {
    return rp_represent_dim(spec, params->config.hidden_size);
}

static void encoder_plan(rp_network *n, rp_arena *arena, const rp_capacity *most) {
    rp_encoder_plan(&n->encoder, arena, n->layers, n->params, most);
    rp_injection_plan(&n->injection, arena, n->params, most->sequences);
    n->encoder.injection = n->params->config.graph_size > 0 ? &n->injection : NULL;
}

static rp_status encoder_forward(rp_network *n, rp_dev *dev, float *vectors, const float *values, rp_batch *batch,
                                 const rp_represent *spec, const rp_reads *also, const rp_pass *pass) {
    rp_reads reads = rp_represent_reads(spec);
    reads.masked = also->masked;
    reads.outside = also->outside;
    RP_TRY(rp_inputs_upload(&n->inputs, dev, batch, &reads, pass->step, rp_encoder_may_fill(n->params)));
    RP_TRY(rp_injection_upload(&n->injection, dev, batch));
    RP_TRY(rp_encoder_forward(&n->encoder, dev, values, &n->inputs, pass));
    return rp_represent_forward(spec, dev, vectors, n->encoder.hidden, &n->inputs, n->params->config.hidden_size);
}

static rp_status encoder_begin(rp_network *n, rp_dev *dev) {
    return dev->ops->zero(dev, n->encoder.dhidden,
                          n->inputs.T * n->params->config.hidden_size * (int64_t)sizeof(float));
}

static rp_status encoder_backward(rp_network *n, rp_dev *dev, const float *values, float *grads, const float *dvectors,
                                  const rp_represent *spec, const rp_pass *pass) {
    if (dvectors != NULL)
        RP_TRY(
            rp_represent_backward(spec, dev, n->encoder.dhidden, dvectors, &n->inputs, n->params->config.hidden_size));
    return rp_encoder_backward(&n->encoder, dev, values, grads, &n->inputs, pass);
}

static const kind encoder_kind = {encoder_sizes,   encoder_dim,   encoder_plan,
                                  encoder_forward, encoder_begin, encoder_backward};

static rp_network_sizes cnn_sizes(const rp_params *params) {
    const rp_cnn_config *c = &params->cnn->config;
    int64_t inputs = c->window * rp_cnn_width(c);
    rp_network_sizes sizes = {
        .vocab_size = c->vocab_size,
        .positions = RP_BATCH_MAX_LENGTH,
        .most_dim = rp_cnn_dim(c),
        .widest = largest(inputs, c->hidden_size),
        .weight = inputs * c->hidden_size,
        .initializer_range = c->initializer_range,
        .bare = true,
    };
    for (int k = 0; k < RP_TAGS; k++) sizes.tag_count[k] = c->tag_size[k] > 0 ? c->tag_count[k] : 0;
    return sizes;
}

static int64_t cnn_dim(const rp_params *params, const rp_represent *spec) {
    (void)spec;
    return rp_cnn_dim(&params->cnn->config);
}

static void cnn_plan(rp_network *n, rp_arena *arena, const rp_capacity *most) {
    rp_cnn_plan(&n->cnn, arena, n->params, most->sequences, most->tokens, most->train);
}

static rp_status cnn_forward(rp_network *n, rp_dev *dev, float *vectors, const float *values, rp_batch *batch,
                             const rp_represent *spec, const rp_reads *also, const rp_pass *pass) {
    (void)spec;
    if (also->masked || also->outside)
        return rp_fail(RP_STATUS_VALUE, "a CNN has no hidden states to predict masked words from");
    RP_TRY(rp_cnn_upload(&n->cnn, &n->inputs, dev, batch, pass->step));
    return rp_cnn_forward(&n->cnn, dev, vectors, values, &n->inputs, pass);
}

static rp_status cnn_begin(rp_network *n, rp_dev *dev) {
    (void)n, (void)dev;
    return RP_OK;
}

static rp_status cnn_backward(rp_network *n, rp_dev *dev, const float *values, float *grads, const float *dvectors,
                              const rp_represent *spec, const rp_pass *pass) {
    (void)spec;
    return dvectors == NULL ? RP_OK : rp_cnn_backward(&n->cnn, dev, values, grads, dvectors, &n->inputs, pass);
}

static const kind cnn_kind = {cnn_sizes, cnn_dim, cnn_plan, cnn_forward, cnn_begin, cnn_backward};

static const kind *kind_of(const rp_params *params) { return params->cnn != NULL ? &cnn_kind : &encoder_kind; }

/* -- networks -------------------------------------------------------------------------------------------- */

rp_network_sizes rp_network_sizes_of(const rp_params *params) { return kind_of(params)->sizes(params); }

rp_status rp_network_check_origin(const rp_network_sizes *sizes, const rp_origin *of) {
    static const char *const names[RP_TAGS] = {"POS", "NER"};
    if (of->vocab_size > sizes->vocab_size)
        return rp_fail(RP_STATUS_VALUE,
                       "the corpus was tokenized with a vocabulary of %lld, the model's has %lld; tokenize it "
                       "with this encoder",
                       (long long)of->vocab_size, (long long)sizes->vocab_size);
    if (of->bare != sizes->bare)
        return rp_fail(RP_STATUS_VALUE, "tokens: bare is %d; this network takes %d", of->bare, sizes->bare);
    for (int k = 0; k < RP_TAGS; k++) {
        if (sizes->tag_count[k] == 0) continue;
        if (of->n_tags[k] == 0)
            return rp_fail(RP_STATUS_VALUE, "the corpus has no %s tags, and the network reads them", names[k]);
        if (of->n_tags[k] > sizes->tag_count[k])
            return rp_fail(RP_STATUS_VALUE, "the corpus has %d %s tags, the network %lld", (int)of->n_tags[k], names[k],
                           (long long)sizes->tag_count[k]);
    }
    return RP_OK;
}

int64_t rp_network_dim(const rp_params *params, const rp_represent *spec) { return kind_of(params)->dim(params, spec); }

rp_status rp_network_open(rp_network *n, const rp_model *model) {
    const rp_params *params = model->params;
    *n = (rp_network){.params = params, .injection = {.graph = model->graph, .rows = model->graph_rows}};
    if (params->cnn != NULL) return RP_OK;
    n->layers = calloc((size_t)params->config.num_hidden_layers, sizeof *n->layers);
    return n->layers != NULL ? RP_OK : rp_fail(RP_STATUS_MEMORY, "no memory for a network's layers");
}

void rp_network_close(rp_network *n) {
    rp_inputs_close(&n->inputs);
    free(n->layers);
}

void rp_network_plan(rp_network *n, rp_arena *arena, const rp_capacity *most) {
    rp_inputs_plan(&n->inputs, arena, most->sequences, most->tokens);
    kind_of(n->params)->plan(n, arena, most);
}

rp_status rp_network_forward(rp_network *n, rp_dev *dev, float *vectors, const float *values, rp_batch *batch,
                             const rp_represent *spec, const rp_reads *also, const rp_pass *pass) {
    return kind_of(n->params)->forward(n, dev, vectors, values, batch, spec, also, pass);
}

rp_status rp_network_begin(rp_network *n, rp_dev *dev) { return kind_of(n->params)->begin(n, dev); }

rp_status rp_network_backward(rp_network *n, rp_dev *dev, const float *values, float *grads, const float *dvectors,
                              const rp_represent *spec, const rp_pass *pass) {
    return kind_of(n->params)->backward(n, dev, values, grads, dvectors, spec, pass);
}
