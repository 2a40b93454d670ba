#include "encoder.h"

#include "rng.h"

/* -- plan ------------------------------------------------------------------------------------------------ */

static rp_activations plan_activations(rp_arena *arena, size_t T, size_t columns, bool narrow) {
    if (narrow) return (rp_activations){.kept = rp_arena_take(arena, T, columns * sizeof(uint16_t))};
    return (rp_activations){.own = rp_arena_take(arena, T, columns * sizeof(float))};
}

/* What a layer keeps of T rows, of which N go on behind the attention. */
static void plan_layer(rp_layer_memory *m, rp_arena *arena, const rp_encoder *e, size_t T, size_t N) {
    const rp_config *c = &e->params->config;
    size_t H = (size_t)c->hidden_size, F = (size_t)c->intermediate_size, A = (size_t)c->num_attention_heads;
    size_t f = sizeof(float);
    if (e->train) m->qkv = plan_activations(arena, 2 * T + N, H, e->narrow);
    m->lse = rp_arena_take(arena, N, A * f);
    m->sum1 = rp_arena_take(arena, N, H * f);
    m->mean1 = rp_arena_take(arena, N, f);
    m->rstd1 = rp_arena_take(arena, N, f);
    if (e->train) m->pre = plan_activations(arena, N, F, e->narrow);
    m->sum2 = rp_arena_take(arena, N, H * f);
    m->mean2 = rp_arena_take(arena, N, f);
    m->rstd2 = rp_arena_take(arena, N, f);
}

static void plan_embeddings(rp_encoder *e, rp_arena *arena, size_t T) {
    const rp_config *c = &e->params->config;
    size_t f = sizeof(float), E = (size_t)c->embedding_size;
    e->embedded = rp_arena_take(arena, T, E * f);
    e->mean = rp_arena_take(arena, T, f);
    e->rstd = rp_arena_take(arena, T, f);
    e->first = e->normed = rp_arena_take(arena, T, (size_t)c->hidden_size * f);
    if (!c->embedding_projection) return;
    e->normed = rp_arena_take(arena, T, E * f);
    if (!e->train) return;
    e->dembedded = rp_arena_take(arena, T, E * f);
    e->dnormed = rp_arena_take(arena, T, E * f);
}

/* Columns of act: the feed-forward's, or what q, k and v need if they stand there and that is more. */
static int64_t act_columns(const rp_encoder *e) {
    int64_t F = e->params->config.intermediate_size, H = e->params->config.hidden_size;
    return (e->narrow || !e->train) && 3 * H > F ? 3 * H : F;
}

/* The buffers of a batch of T tokens, R of which are read, one behind the other: what a batch does not need is not
 * touched, and what it needs stands in as few pages as there can be. */
static void lay_out(rp_encoder *e, rp_arena *arena, size_t T, size_t R) {
    const rp_config *c = &e->params->config;
    size_t H = (size_t)c->hidden_size, f = sizeof(float);
    int64_t L = c->num_hidden_layers;
    float *states[2];
    plan_embeddings(e, arena, T);
    for (int i = 0; i < 2; i++) states[i] = rp_arena_take(arena, T, H * f);
    for (int64_t i = 0; i < L; i++) {
        if (e->train || i == 0)
            plan_layer(&e->layers[i], arena, e, T, e->train && i == L - 1 ? R : T);
        else
            e->layers[i] = e->layers[0];
        e->layers[i].out = states[i % 2];
    }
    e->spread = states[L % 2]; /* the last layer's input, which nothing reads behind its keys and values */
    e->mid = rp_arena_take(arena, T, H * f);
    e->residual = rp_arena_take(arena, R, H * f);
    if (e->rounds && !e->train) { /* memory of bits alone */
        e->dhidden = rp_arena_take(arena, T, H * sizeof(uint16_t));
        e->dother = rp_arena_take(arena, T, H * sizeof(uint16_t));
    }
    if (!e->train) return;
    e->dhidden = rp_arena_take(arena, T, H * f);
    e->dother = rp_arena_take(arena, T, H * f);
    e->dread = rp_arena_take(arena, R, H * f);
}

void rp_encoder_plan(rp_encoder *e, rp_arena *arena, rp_layer_memory *layers, const rp_params *params,
                     const rp_capacity *most) {
    const rp_config *c = &params->config;
    size_t T = (size_t)most->tokens, F = (size_t)c->intermediate_size, H3 = 3 * (size_t)c->hidden_size;
    size_t spare = (size_t)most->spare, f = sizeof(float);
    rp_arena batch = {0};
    *e = (rp_encoder){.params = params, .train = most->train, .layers = layers};
    e->rounds = most->products == RP_BFLOAT16;
    e->narrow = e->train && e->rounds;
    size_t floats = T * ((size_t)act_columns(e) + (!e->train ? 0 : F > H3 ? F : H3));
    if (params->type < 0) e->no_type = rp_arena_take(arena, 2, (size_t)c->embedding_size * f);
    e->spare = rp_arena_take(arena, floats > spare ? floats : spare, f);
    e->act = e->spare;
    lay_out(e, &batch, T, T);
    e->memory = rp_arena_take(arena, 1, batch.used);
    e->bytes = batch.used;
}

/* -- dropout sites --------------------------------------------------------------------------------------- */

enum { SITE_EMBEDDINGS, SITE_SCORES, SITE_ATTENDED, SITE_FEED_FORWARD, SITES_PER_LAYER = 3 };

static rp_dropout dropout_at(const rp_inputs *in, const rp_pass *pass, int site, int64_t layer) {
    uint32_t number = (uint32_t)(site + layer * SITES_PER_LAYER);
    return (rp_dropout){
        .key = rp_rng_key(pass->seed, RP_PURPOSE_DROPOUT, number),
        .step = in->step,
        .threshold = rp_dropout_threshold(site == SITE_SCORES ? pass->attention_dropout : pass->hidden_dropout),
        .sample = in->sample,
        .sequence = in->sequence,
        .pos = in->pos,
    };
}

/* -- activations that are kept --------------------------------------------------------------------------- */

/* Where a layer does not keep the numbers themselves, q, k and v stand where act comes to stand, and the values before
 * GELU where their gradient does: the back end may use that memory as it likes. */
static float *qkv_of(const rp_encoder *e, int64_t i) {
    return e->layers[i].qkv.own != NULL ? e->layers[i].qkv.own : e->act;
}
static float *pre_of(const rp_encoder *e, int64_t i) {
    return e->layers[i].pre.own != NULL ? e->layers[i].pre.own : e->dwide;
}

/* Operands of products that the back end takes as bits stand in memory of numbers that are not there at the time. NULL
 * where it does not take any. */
static uint16_t *bits_in(const rp_encoder *e, float *room) { return e->bits ? (uint16_t *)room : NULL; }

/* The memory where it takes numbers. */
static float *numbers_in(const rp_encoder *e, float *room) { return e->bits ? NULL : room; }

/* In the forward pass: of a layer's input, where a layer before has made it, and of what comes behind its attention. */
static uint16_t *input_bits(const rp_encoder *e, int64_t i) { return i > 0 ? bits_in(e, e->dhidden) : NULL; }
static uint16_t *mid_bits(const rp_encoder *e) { return bits_in(e, e->dother); }

/* -- forward --------------------------------------------------------------------------------------------- */

static rp_status embeddings_forward(rp_encoder *e, rp_dev *dev, const float *values, const rp_inputs *in,
                                    const rp_pass *pass) {
    const rp_params *p = e->params;
    const rp_ops *ops = dev->ops;
    int64_t E = p->config.embedding_size;
    rp_dropout d = dropout_at(in, pass, SITE_EMBEDDINGS, 0);
    const float *type = p->type < 0 ? e->no_type : values + p->type;
    const float *position = values + p->position + p->config.position_offset * E;
    RP_TRY(ops->embed_forward(dev, e->embedded, in->ids, in->pos, values + p->word, position, type, in->T, E));
    if (e->injection != NULL) RP_TRY(rp_injection_forward(e->injection, dev, e->embedded, values));
    RP_TRY(ops->layernorm_forward(dev, e->normed, NULL, e->mean, e->rstd, e->embedded, values + p->norm_gamma,
                                  values + p->norm_beta, (float)p->config.layer_norm_eps, in->T, E));
    if (d.threshold != 0) RP_TRY(ops->dropout_forward(dev, e->normed, e->normed, &d, in->T, E));
    if (!p->config.embedding_projection) return RP_OK;
    return ops->linear_forward(dev, e->first, e->normed, values + p->project_weight, values + p->project_bias, in->T, E,
                               p->config.hidden_size);
}

/* Rows that ask in a layer's attention and go on behind it: all of the batch, or those that are read. */
typedef struct some_rows {
    int64_t N;
    const int32_t *cu;             /* (S+1) */
    const int32_t *sequence, *pos; /* (N) */
} some_rows;

/* Of the last layer only some rows may be read: then the others give keys and values alone. */
static bool is_partial(const rp_encoder *e, const rp_inputs *in, int64_t layer) {
    return layer == e->params->config.num_hidden_layers - 1 && in->R < in->T;
}

static some_rows rows_of_layer(const rp_encoder *e, const rp_inputs *in, int64_t layer) {
    if (is_partial(e, in, layer)) return (some_rows){in->R, in->cu_read, in->read_sequence, in->read_pos};
    return (some_rows){in->T, in->cu_seqlens, in->sequence, in->pos};
}

/* Dropout of one of a layer's two branches, on the rows that go through it. */
static rp_dropout dropout_of(const rp_encoder *e, const rp_inputs *in, const rp_pass *pass, int site, int64_t layer,
                             some_rows rows) {
    const rp_config *c = &e->params->config;
    rp_dropout d = dropout_at(in, pass, site, layer);
    if (!(site == SITE_ATTENDED ? c->attended_dropout : c->feed_forward_dropout)) d.threshold = 0;
    d.sequence = rows.sequence;
    d.pos = rows.pos;
    return d;
}

/* m->sum1(N,H) from the layer's input x(T,H) and its rows that ask. */
static rp_status attention_forward(rp_encoder *e, rp_dev *dev, const float *values, const rp_inputs *in,
                                   const rp_pass *pass, int64_t i, const float *x, const float *asking) {
    const rp_config *c = &e->params->config;
    const rp_layer_params *w = &e->params->layers[i];
    const rp_layer_memory *m = &e->layers[i];
    int64_t A = c->num_attention_heads;
    some_rows rows = rows_of_layer(e, in, i);
    rp_dropout scores = dropout_at(in, pass, SITE_SCORES, i);
    return dev->ops->self_attention_forward(
        dev, m->sum1, m->lse, qkv_of(e, i), m->qkv.kept, e->mid, x, input_bits(e, i), asking, values + w->qkv_weight,
        values + w->qkv_bias, values + w->out_weight, values + w->out_bias, in->cu_seqlens, rows.cu, rows.pos, &scores,
        in->sequences, in->T, rows.N, A, c->hidden_size / A, e->train);
}

/* The backward pass reads what was normalised. */
static float *kept_sum(const rp_encoder *e, float *sum) { return e->train ? sum : NULL; }

/* m->out(N,H) from what the attention gave, in m->sum1, and the layer's input at its rows, x(N,H). */
static rp_status rows_forward(rp_encoder *e, rp_dev *dev, const float *values, const rp_inputs *in, const rp_pass *pass,
                              int64_t i, const float *x) {
    const rp_config *c = &e->params->config;
    const rp_layer_params *w = &e->params->layers[i];
    const rp_layer_memory *m = &e->layers[i];
    const rp_ops *ops = dev->ops;
    some_rows rows = rows_of_layer(e, in, i);
    int64_t N = rows.N, H = c->hidden_size;
    float eps = (float)c->layer_norm_eps;
    uint16_t *next = i < c->num_hidden_layers - 1 ? input_bits(e, i + 1) : NULL;
    rp_dropout first = dropout_of(e, in, pass, SITE_ATTENDED, i, rows),
               second = dropout_of(e, in, pass, SITE_FEED_FORWARD, i, rows);
    RP_TRY(ops->residual_layernorm_forward(dev, e->mid, mid_bits(e), kept_sum(e, m->sum1), m->mean1, m->rstd1, m->sum1,
                                           x, values + w->norm1_gamma, values + w->norm1_beta, &first, eps, N, H));
    RP_TRY(ops->feed_forward_forward(dev, m->sum2, pre_of(e, i), m->pre.kept, e->act, e->mid, mid_bits(e),
                                     values + w->up_weight, values + w->up_bias, values + w->down_weight,
                                     values + w->down_bias, N, H, c->intermediate_size, e->train));
    return ops->residual_layernorm_forward(dev, m->out, next, kept_sum(e, m->sum2), m->mean2, m->rstd2, m->sum2, e->mid,
                                           values + w->norm2_gamma, values + w->norm2_beta, &second, eps, N, H);
}

/* In a list there is nothing to wait for; and what the caller's poll does, as to free another encoder, cannot stand in
 * one. */
static rp_status poll(rp_dev *dev, const rp_inputs *in) { return in->filled ? RP_OK : rp_dev_poll(dev); }

static rp_status layer_forward(rp_encoder *e, rp_dev *dev, const float *values, const rp_inputs *in,
                               const rp_pass *pass, int64_t i, const float *x) {
    const rp_layer_memory *m = &e->layers[i];
    const rp_ops *ops = dev->ops;
    int64_t H = e->params->config.hidden_size;
    RP_TRY(poll(dev, in));
    e->hidden = m->out;
    if (!is_partial(e, in, i)) {
        RP_TRY(attention_forward(e, dev, values, in, pass, i, x, x));
        return rows_forward(e, dev, values, in, pass, i, x);
    }
    RP_TRY(ops->rows_gather(dev, e->residual, H, x, in->read, in->R, H));
    RP_TRY(attention_forward(e, dev, values, in, pass, i, x, e->residual));
    RP_TRY(rows_forward(e, dev, values, in, pass, i, e->residual));
    e->hidden = e->spread;
    RP_TRY(ops->zero(dev, e->spread, in->T * H * (int64_t)sizeof(float)));
    return ops->rows_scatter_add(dev, e->spread, m->out, H, in->read, in->R, H);
}

static rp_status forward(rp_encoder *e, rp_dev *dev, const float *values, const rp_inputs *in, const rp_pass *pass) {
    RP_TRY(embeddings_forward(e, dev, values, in, pass));
    const float *x = e->first;
    for (int64_t i = 0; i < e->params->config.num_hidden_layers; i++) {
        RP_TRY(layer_forward(e, dev, values, in, pass, i, x));
        x = e->layers[i].out;
    }
    return RP_OK;
}

bool rp_encoder_may_fill(const rp_params *params) {
    return rp_config_positions(&params->config) >= RP_INPUTS_FILL_LENGTH;
}

/* What is filled up comes again: it goes to the device as one list. */
rp_status rp_encoder_forward(rp_encoder *e, rp_dev *dev, const float *values, const rp_inputs *in,
                             const rp_pass *pass) {
    rp_arena batch = {.base = e->memory, .capacity = e->bytes};
    lay_out(e, &batch, (size_t)in->T, (size_t)in->R);
    RP_TRY(rp_arena_check(&batch));
    e->dwide = e->train ? e->act + in->T * act_columns(e) : NULL;
    e->bits = e->rounds && e->params->config.hidden_size / e->params->config.num_attention_heads <= dev->ops->bits;
    if (!in->filled) return forward(e, dev, values, in, pass);
    RP_TRY(rp_dev_poll(dev));
    RP_TRY(dev->ops->list_begin(dev));
    return dev->ops->list_end(dev, forward(e, dev, values, in, pass));
}

/* -- backward -------------------------------------------------------------------------------------------- */

/* The counterpart of rows_forward: from dout(N,H) to the gradient of what the attention gave, in e->dother, and to that
 * of the layer's input, which takes e->mid's place. */
static rp_status rows_backward(rp_encoder *e, rp_dev *dev, const float *values, float *grads, const rp_inputs *in,
                               const rp_pass *pass, int64_t i, const float *dout) {
    const rp_config *c = &e->params->config;
    const rp_layer_params *w = &e->params->layers[i];
    const rp_layer_memory *m = &e->layers[i];
    const rp_ops *ops = dev->ops;
    some_rows rows = rows_of_layer(e, in, i);
    int64_t N = rows.N, H = c->hidden_size;
    rp_dropout first = dropout_of(e, in, pass, SITE_ATTENDED, i, rows),
               second = dropout_of(e, in, pass, SITE_FEED_FORWARD, i, rows);
    float *dbranch = e->dother, *dmid = m->out, *dx = e->mid; /* out and mid themselves are dead by then */
    uint16_t *dbranch_bits = bits_in(e, dbranch), *mid = bits_in(e, e->mid);
    RP_TRY(ops->residual_layernorm_backward(dev, numbers_in(e, dbranch), dbranch_bits, dmid, grads + w->norm2_gamma,
                                            grads + w->norm2_beta, dout, m->sum2, m->mean2, m->rstd2,
                                            values + w->norm2_gamma, &second, N, H));
    /* Made again: kept for every layer, they would be a third of the memory. */
    RP_TRY(ops->layernorm_forward(dev, numbers_in(e, e->mid), mid, m->mean1, m->rstd1, m->sum1, values + w->norm1_gamma,
                                  values + w->norm1_beta, (float)c->layer_norm_eps, N, H));
    RP_TRY(ops->feed_forward_backward(dev, dmid, grads + w->up_weight, grads + w->up_bias, grads + w->down_weight,
                                      grads + w->down_bias, e->dwide, e->act, numbers_in(e, dbranch), dbranch_bits,
                                      numbers_in(e, e->mid), mid, m->pre.own, m->pre.kept, values + w->up_weight,
                                      values + w->down_weight, N, H, c->intermediate_size));
    return ops->residual_layernorm_backward(dev, numbers_in(e, dbranch), dbranch_bits, dx, grads + w->norm1_gamma,
                                            grads + w->norm1_beta, dmid, m->sum1, m->mean1, m->rstd1,
                                            values + w->norm1_gamma, &first, N, H);
}

/* Of products: numbers, or bits. */
typedef struct operand {
    const float *numbers;
    const uint16_t *bits;
} operand;

/* From e->dother(N,H), the gradient of what the attention gave, and that of the layer's input past it, in e->mid, to
 * that of the layer's input x(T,H), in dhidden. dattended(N,H) is room. */
static rp_status attention_backward(rp_encoder *e, rp_dev *dev, const float *values, float *grads, const rp_inputs *in,
                                    const rp_pass *pass, int64_t i, operand x, float *dattended) {
    const rp_config *c = &e->params->config;
    const rp_layer_params *w = &e->params->layers[i];
    const rp_layer_memory *m = &e->layers[i];
    int64_t H = c->hidden_size, A = c->num_attention_heads;
    bool partial = is_partial(e, in, i);
    rp_dropout scores = dropout_at(in, pass, SITE_SCORES, i);
    some_rows rows = rows_of_layer(e, in, i);
    float *attended = m->out, *used = e->dhidden; /* made again: kept, it would be a tenth of the memory */
    RP_TRY(dev->ops->self_attention_backward(
        dev, partial ? e->dhidden : NULL, e->mid, grads + w->qkv_weight, grads + w->qkv_bias, grads + w->out_weight,
        grads + w->out_bias, e->dwide, dattended, attended, qkv_of(e, i), m->qkv.kept, m->lse, numbers_in(e, e->dother),
        bits_in(e, e->dother), x.numbers, x.bits, partial ? e->residual : x.numbers, values + w->qkv_weight,
        values + w->out_weight, in->cu_seqlens, rows.cu, rows.pos, &scores, in->sequences, in->T, rows.N, A, H / A));
    if (partial) return dev->ops->rows_scatter_add(dev, e->dhidden, e->mid, H, in->read, in->R, H);
    e->dhidden = e->mid; /* the two buffers change places */
    e->mid = used;
    return RP_OK;
}

/* *x(T,H): the layer's input, which is made again from what the layer below normalised. */
static rp_status layer_input(const rp_encoder *e, rp_dev *dev, const float *values, const rp_inputs *in, int64_t i,
                             operand *x) {
    *x = (operand){.numbers = e->first};
    if (i == 0) return RP_OK;
    const rp_layer_params *w = &e->params->layers[i - 1];
    const rp_layer_memory *below = &e->layers[i - 1];
    float *out = numbers_in(e, below->out);
    uint16_t *out_bits = bits_in(e, below->out);
    *x = (operand){out, out_bits};
    return dev->ops->layernorm_forward(dev, out, out_bits, below->mean2, below->rstd2, below->sum2,
                                       values + w->norm2_gamma, values + w->norm2_beta,
                                       (float)e->params->config.layer_norm_eps, in->T, e->params->config.hidden_size);
}

/* From dhidden (gradient of the layer's output) to dhidden (gradient of its input x). */
static rp_status layer_backward(rp_encoder *e, rp_dev *dev, const float *values, float *grads, const rp_inputs *in,
                                const rp_pass *pass, int64_t i) {
    int64_t H = e->params->config.hidden_size;
    float *dout = e->dhidden;
    operand x;
    RP_TRY(poll(dev, in));
    if (is_partial(e, in, i)) {
        dout = e->dread;
        RP_TRY(dev->ops->rows_gather(dev, dout, H, e->dhidden, in->read, in->R, H));
    }
    RP_TRY(rows_backward(e, dev, values, grads, in, pass, i, dout));
    RP_TRY(layer_input(e, dev, values, in, i, &x));
    return attention_backward(e, dev, values, grads, in, pass, i, x, dout);
}

static rp_status embeddings_backward(rp_encoder *e, rp_dev *dev, const float *values, float *grads, const rp_inputs *in,
                                     const rp_pass *pass) {
    const rp_params *p = e->params;
    const rp_ops *ops = dev->ops;
    int64_t E = p->config.embedding_size;
    float *dnormed = e->dhidden, *dembedded = e->dother;
    rp_dropout d = dropout_at(in, pass, SITE_EMBEDDINGS, 0);
    if (p->config.embedding_projection) {
        dnormed = e->dnormed;
        dembedded = e->dembedded;
        RP_TRY(ops->linear_backward(dev, dnormed, grads + p->project_weight, grads + p->project_bias, e->dhidden,
                                    e->normed, values + p->project_weight, in->T, E, p->config.hidden_size, 0));
    }
    if (d.threshold != 0) RP_TRY(ops->dropout_forward(dev, dnormed, dnormed, &d, in->T, E));
    RP_TRY(ops->layernorm_backward(dev, dembedded, grads + p->norm_gamma, grads + p->norm_beta, dnormed, e->embedded,
                                   e->mean, e->rstd, values + p->norm_gamma, in->T, E));
    if (e->injection != NULL) RP_TRY(rp_injection_backward(e->injection, dev, grads, dembedded));
    float *dtype = p->type < 0 ? e->no_type + E : grads + p->type;
    float *dposition = grads + p->position + p->config.position_offset * E;
    return ops->embed_backward(dev, grads + p->word, dposition, dtype, dembedded, in->ids, in->pos, in->T, E);
}

static rp_status backward(rp_encoder *e, rp_dev *dev, const float *values, float *grads, const rp_inputs *in,
                          const rp_pass *pass) {
    for (int64_t i = e->params->config.num_hidden_layers - 1; i >= 0; i--)
        RP_TRY(layer_backward(e, dev, values, grads, in, pass, i));
    return embeddings_backward(e, dev, values, grads, in, pass);
}

rp_status rp_encoder_backward(rp_encoder *e, rp_dev *dev, const float *values, float *grads, const rp_inputs *in,
                              const rp_pass *pass) {
    if (!e->train) return rp_fail(RP_STATUS_STATE, "this encoder was planned for encoding alone, not for training");
    if (!in->filled) return backward(e, dev, values, grads, in, pass);
    RP_TRY(rp_dev_poll(dev));
    RP_TRY(dev->ops->list_begin(dev));
    return dev->ops->list_end(dev, backward(e, dev, values, grads, in, pass));
}
