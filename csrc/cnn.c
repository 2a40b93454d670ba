#include "cnn.h"

#include <math.h>
#include <stdlib.h>

#include "rng.h"

/* -- parameters ------------------------------------------------------------------------------------------ */

static rp_status check_config(const rp_cnn_config *c) {
    static const char *const counts[RP_TAGS] = {"pos_tags", "ner_tags"}, *const sizes[RP_TAGS] = {"pos_size",
                                                                                                  "ner_size"};
    RP_TRY(rp_config_in_range("vocab_size", c->vocab_size, 1, 1 << 26));
    RP_TRY(rp_config_in_range("word_size", c->word_size, 1, 1 << 16));
    RP_TRY(rp_config_in_range("max_distance", c->max_distance, 1, RP_BATCH_MAX_LENGTH));
    RP_TRY(rp_config_in_range("position_size", c->position_size, 1, 1 << 16));
    for (int k = 0; k < RP_TAGS; k++) {
        RP_TRY(rp_config_in_range(sizes[k], c->tag_size[k], 0, 1 << 16));
        if (c->tag_size[k] > 0) RP_TRY(rp_config_in_range(counts[k], c->tag_count[k], 1, 1 << 26));
    }
    RP_TRY(rp_config_in_range("window", c->window, 1, 255));
    RP_TRY(rp_config_in_range("hidden_size", c->hidden_size, 1, 1 << 16));
    RP_TRY(rp_config_in_range("activation", c->activation, 0, RP_ACTIVATIONS - 1));
    if (c->initializer_range >= 0) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "config: initializer_range is %g, expected 0 or more", c->initializer_range);
}

int64_t rp_cnn_width(const rp_cnn_config *c) {
    int64_t width = c->word_size + 2 * c->position_size;
    for (int k = 0; k < RP_TAGS; k++) width += c->tag_size[k];
    return width;
}

int64_t rp_cnn_dim(const rp_cnn_config *c) { return c->piecewise ? 3 * c->hidden_size : c->hidden_size; }

static int64_t add_table(rp_params *p, int64_t rows, int64_t columns, const char *name) {
    return rp_params_append(p, rows, columns, RP_INIT_NORMAL, p->cnn->config.initializer_range, true, name);
}

static void add_all(rp_params *p) {
    static const char *const tables[RP_TAGS] = {"pos_embeddings.weight", "ner_embeddings.weight"};
    rp_cnn_params *own = p->cnn;
    const rp_cnn_config *c = &own->config;
    int64_t places = 2 * c->max_distance + 1, inputs = c->window * rp_cnn_width(c);
    own->word = add_table(p, c->vocab_size, c->word_size, "word_embeddings.weight");
    own->position[0] = add_table(p, places, c->position_size, "head_position_embeddings.weight");
    own->position[1] = add_table(p, places, c->position_size, "tail_position_embeddings.weight");
    for (int k = 0; k < RP_TAGS; k++)
        own->tag[k] = c->tag_size[k] > 0 ? add_table(p, c->tag_count[k], c->tag_size[k], tables[k]) : -1;
    own->weight = rp_params_append(p, c->hidden_size, inputs, RP_INIT_NORMAL,
                                   sqrt(2.0 / (double)(inputs + c->hidden_size)), true, "convolution.weight");
    own->bias = rp_params_append(p, c->hidden_size, 0, RP_INIT_ZERO, 0, false, "convolution.bias");
}

enum { CNN_PARAMS = 5 + RP_TAGS };

rp_status rp_cnn_params_new(rp_params **out, const rp_cnn_config *config) {
    rp_params *p;
    RP_TRY(check_config(config));
    RP_TRY(rp_params_open(&p, CNN_PARAMS));
    p->cnn = calloc(1, sizeof *p->cnn);
    if (p->cnn == NULL) {
        rp_params_free(p);
        return rp_fail(RP_STATUS_MEMORY, "no memory for a CNN's offsets");
    }
    p->cnn->config = *config;
    add_all(p);
    *out = p;
    return RP_OK;
}

/* -- plan ------------------------------------------------------------------------------------------------ */

void rp_cnn_plan(rp_cnn *n, rp_arena *arena, const rp_params *params, int64_t max_sequences, int64_t max_tokens,
                 bool train) {
    const rp_cnn_config *c = &params->cnn->config;
    size_t S = (size_t)max_sequences, T = (size_t)max_tokens, f = sizeof(float);
    size_t E = (size_t)rp_cnn_width(c), C = (size_t)c->hidden_size, W = (size_t)c->window, dim = (size_t)rp_cnn_dim(c);
    *n = (rp_cnn){.params = params->cnn};
    for (int k = 0; k < 2; k++) n->distance[k] = rp_arena_take(arena, T, sizeof(int32_t));
    for (int k = 0; k < RP_TAGS; k++) n->tags[k] = rp_arena_take(arena, T, sizeof(int32_t));
    n->cu_pieces = rp_arena_take(arena, 3 * S + 1, sizeof(int32_t));
    n->embedded = rp_arena_take(arena, T, E * f);
    n->windows = rp_arena_take(arena, T, W * E * f);
    n->states = rp_arena_take(arena, T, C * f);
    n->pooled = rp_arena_take(arena, S, dim * f);
    n->row = rp_arena_take(arena, S, dim * sizeof(int32_t));
    if (!train) return;
    n->dpooled = rp_arena_take(arena, S, dim * f);
    n->dembedded = rp_arena_take(arena, T, E * f);
    n->dwindows = rp_arena_take(arena, T, W * E * f);
    n->dstates = rp_arena_take(arena, T, C * f);
}

rp_status rp_cnn_upload(rp_cnn *n, rp_inputs *inputs, rp_dev *dev, rp_batch *batch, uint32_t step) {
    rp_reads reads = {.first = true}; /* one row of each sequence: what dropout of its vector is drawn by */
    int64_t word = sizeof(int32_t), T = batch->T, S = batch->S;
    rp_batch_places(batch, (int32_t)n->params->config.max_distance);
    RP_TRY(rp_inputs_upload(inputs, dev, batch, &reads, step, false));
    for (int k = 0; k < 2; k++) RP_TRY(dev->ops->upload(dev, n->distance[k], batch->distance[k], T * word));
    for (int k = 0; k < RP_TAGS; k++) RP_TRY(dev->ops->upload(dev, n->tags[k], batch->tags[k], T * word));
    return dev->ops->upload(dev, n->cu_pieces, batch->cu_pieces, (3 * S + 1) * word);
}

/* -- forward and backward -------------------------------------------------------------------------------- */

/* One of the tables whose rows stand side by side in x. */
typedef struct column {
    int64_t table, size;  /* offset; columns, 0: not read */
    const int32_t *index; /* (T) */
} column;

enum { COLUMNS = 3 + RP_TAGS };

static void columns_of(const rp_cnn *n, const rp_inputs *in, column out[COLUMNS]) {
    const rp_cnn_params *p = n->params;
    out[0] = (column){p->word, p->config.word_size, in->ids};
    for (int k = 0; k < 2; k++) out[1 + k] = (column){p->position[k], p->config.position_size, n->distance[k]};
    for (int k = 0; k < RP_TAGS; k++) out[3 + k] = (column){p->tag[k], p->config.tag_size[k], n->tags[k]};
}

/* Runs of rows of which the largest are taken: sentences, or their pieces. */
static const int32_t *segments_of(const rp_cnn *n, const rp_inputs *in, int64_t *G) {
    bool piecewise = n->params->config.piecewise;
    *G = piecewise ? 3 * in->S : in->S;
    return piecewise ? n->cu_pieces : in->cu_seqlens;
}

/* Of the vectors: row s is sequence s. */
static rp_dropout dropout_of(const rp_inputs *in, const rp_pass *pass) {
    return (rp_dropout){
        .key = rp_rng_key(pass->seed, RP_PURPOSE_DROPOUT, 0),
        .step = in->step,
        .threshold = rp_dropout_threshold(pass->hidden_dropout),
        .sample = in->sample,
        .sequence = in->read_sequence,
        .pos = in->read_pos,
    };
}

rp_status rp_cnn_forward(rp_cnn *n, rp_dev *dev, float *vectors, const float *values, const rp_inputs *in,
                         const rp_pass *pass) {
    const rp_cnn_params *p = n->params;
    const rp_cnn_config *c = &p->config;
    const rp_ops *ops = dev->ops;
    int64_t E = rp_cnn_width(c), C = c->hidden_size, W = c->window, dim = rp_cnn_dim(c), at = 0, G;
    const int32_t *cu_segments = segments_of(n, in, &G);
    rp_dropout d = dropout_of(in, pass);
    column columns[COLUMNS];
    columns_of(n, in, columns);
    for (int k = 0; k < COLUMNS; at += columns[k++].size)
        if (columns[k].size > 0)
            RP_TRY(ops->rows_gather(dev, n->embedded + at, E, values + columns[k].table, columns[k].index, in->T,
                                    columns[k].size));
    RP_TRY(rp_dev_poll(dev));
    RP_TRY(ops->window_forward(dev, n->windows, n->embedded, in->cu_seqlens, in->S, W, E));
    RP_TRY(ops->linear_forward(dev, n->states, n->windows, values + p->weight, values + p->bias, in->T, W * E, C));
    RP_TRY(ops->segment_max_forward(dev, n->pooled, n->row, n->states, cu_segments, G, C));
    RP_TRY(ops->activation_forward(dev, n->pooled, n->pooled, in->S * dim, c->activation));
    return ops->dropout_forward(dev, vectors, n->pooled, &d, in->S, dim);
}

rp_status rp_cnn_backward(rp_cnn *n, rp_dev *dev, const float *values, float *grads, const float *dvectors,
                          const rp_inputs *in, const rp_pass *pass) {
    const rp_cnn_params *p = n->params;
    const rp_cnn_config *c = &p->config;
    const rp_ops *ops = dev->ops;
    if (n->dpooled == NULL)
        return rp_fail(RP_STATUS_STATE, "this CNN was planned for encoding alone, not for training");
    int64_t E = rp_cnn_width(c), C = c->hidden_size, W = c->window, dim = rp_cnn_dim(c), at = 0, G;
    const int32_t *cu_segments = segments_of(n, in, &G);
    rp_dropout d = dropout_of(in, pass);
    column columns[COLUMNS];
    columns_of(n, in, columns);
    RP_TRY(ops->dropout_forward(dev, n->dpooled, dvectors, &d, in->S, dim));
    RP_TRY(ops->activation_backward(dev, n->dpooled, n->dpooled, n->pooled, in->S * dim, c->activation));
    RP_TRY(ops->segment_max_backward(dev, n->dstates, n->dpooled, n->row, cu_segments, G, C));
    RP_TRY(rp_dev_poll(dev));
    RP_TRY(ops->linear_backward(dev, n->dwindows, grads + p->weight, grads + p->bias, n->dstates, n->windows,
                                values + p->weight, in->T, W * E, C, 0));
    RP_TRY(ops->window_backward(dev, n->dembedded, n->dwindows, in->cu_seqlens, in->S, W, E));
    for (int k = 0; k < COLUMNS; at += columns[k++].size)
        if (columns[k].size > 0)
            RP_TRY(ops->rows_scatter_add(dev, grads + columns[k].table, n->dembedded + at, E, columns[k].index, in->T,
                                         columns[k].size));
    return RP_OK;
}
