#include "trainer.h"

#include <math.h>
#include <stdlib.h>

#include "arena.h"
#include "threads.h"

struct rp_trainer {
    rp_model *model;
    rp_dev *dev;
    rp_trainer_options options;
    int64_t owner, dim;
    int64_t samples, micro_samples, micro_tokens; /* of a step, of a micro-batch */
    void *memory, *host_memory;
    rp_layer_memory *layers;
    rp_batch *slice;

    float *grads, *moment1, *moment2; /* (total) */
    rp_encoder encoder;
    rp_inputs inputs;
    rp_contrastive contrastive;
    rp_mlm mlm;
    float *vectors, *dvectors; /* (samples, dim) */
};

/* -- making and freeing ---------------------------------------------------------------------------------- */

static void plan(rp_trainer *t, rp_arena *arena, rp_arena *host) {
    const rp_params *params = t->model->params;
    size_t total = (size_t)params->total, row = (size_t)t->dim * sizeof(float);
    t->grads = rp_arena_take(arena, total, sizeof(float));
    t->moment1 = rp_arena_take(arena, total, sizeof(float));
    t->moment2 = rp_arena_take(arena, total, sizeof(float));
    rp_inputs_plan(&t->inputs, arena, t->micro_samples, t->micro_tokens);
    int64_t spare = t->options.mlm_weight > 0 ? rp_mlm_floats(params, t->micro_tokens) : 0;
    rp_encoder_plan(&t->encoder, arena, t->layers, params, t->micro_tokens, true, spare);
    t->vectors = rp_arena_take(arena, (size_t)t->samples, row);
    t->dvectors = rp_arena_take(arena, (size_t)t->samples, row);
    rp_contrastive_plan(&t->contrastive, arena, host, t->samples, t->dim);
    if (t->options.mlm_weight > 0) rp_mlm_plan(&t->mlm, arena, host, params, t->micro_tokens, t->encoder.spare);
}

static rp_status check_options(const rp_model *model, const rp_trainer_options *o) {
    const rp_config *c = &model->params->config;
    RP_TRY(rp_represent_check(&o->represent));
    RP_TRY(rp_contrastive_check(&o->contrastive));
    RP_TRY(rp_adamw_check(&o->adamw));
    if (!(o->cp_weight >= 0) || !(o->mlm_weight >= 0) || !(o->cp_weight + o->mlm_weight > 0))
        return rp_fail(RP_STATUS_VALUE, "cp_weight is %g and mlm_weight %g: expected both 0 or more and one above 0",
                       o->cp_weight, o->mlm_weight);
    if (!(o->hidden_dropout >= 0 && o->hidden_dropout < 1 && o->attention_dropout >= 0 && o->attention_dropout < 1))
        return rp_fail(RP_STATUS_VALUE, "dropout is %g (attention %g), expected 0 <= p < 1", o->hidden_dropout,
                       o->attention_dropout);
    if (!(o->learning_rate > 0))
        return rp_fail(RP_STATUS_VALUE, "learning_rate is %g, expected above 0", o->learning_rate);
    if (o->max_steps < 1 || o->max_steps > UINT32_MAX || o->warmup_steps < 0)
        return rp_fail(RP_STATUS_VALUE, "max_steps is %lld, warmup_steps %lld: expected at least 1 and 0",
                       (long long)o->max_steps, (long long)o->warmup_steps);
    if (o->pairs < 1 || o->micro_batch_pairs < 1 || o->micro_batch_pairs > o->pairs)
        return rp_fail(RP_STATUS_VALUE,
                       "micro_batch_pairs is %lld of %lld pairs a step, expected 1 to the pairs of a step",
                       (long long)o->micro_batch_pairs, (long long)o->pairs);
    if (o->max_length < 16 || o->max_length > rp_config_positions(c))
        return rp_fail(RP_STATUS_VALUE, "max_length is %lld, expected 16 to the model's %lld positions",
                       (long long)o->max_length, (long long)rp_config_positions(c));
    if (o->pairs > INT32_MAX / 2 / o->max_length)
        return rp_fail(RP_STATUS_VALUE, "%lld pairs of up to %lld tokens are over 2^31 tokens a step",
                       (long long)o->pairs, (long long)o->max_length);
    return RP_OK;
}

static rp_status bind(rp_trainer *t, rp_arena *device, rp_arena *host) {
    RP_TRY(t->dev->ops->alloc(t->dev, &t->memory, (int64_t)device->used));
    t->host_memory = rp_aligned_alloc(host->used);
    if (t->host_memory == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for %zu bytes of host buffers", host->used);
    rp_arena bound = {.base = t->memory, .capacity = device->used}, host_bound = {t->host_memory, 0, host->used};
    plan(t, &bound, &host_bound);
    RP_TRY(rp_arena_check(&bound));
    return rp_arena_check(&host_bound);
}

/* The measured sizes of a trainer that holds nothing yet. */
static rp_status measure(rp_trainer *t, rp_model *model, const rp_trainer_options *o, rp_arena *device,
                         rp_arena *host) {
    const rp_config *c = &model->params->config;
    RP_TRY(check_options(model, o));
    t->model = model;
    t->options = *o;
    t->dim = rp_represent_dim(&o->represent, c->hidden_size);
    t->samples = 2 * o->pairs;
    t->micro_samples = 2 * o->micro_batch_pairs;
    t->micro_tokens = t->micro_samples * o->max_length;
    t->layers = calloc((size_t)c->num_hidden_layers, sizeof *t->layers);
    if (t->layers == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a trainer's layers");
    plan(t, device, host);
    RP_TRY(rp_arena_check(device));
    return rp_arena_check(host);
}

static rp_status allocate(rp_trainer *t, rp_model *model, const rp_trainer_options *o) {
    const rp_config *c = &model->params->config;
    rp_arena device = {0}, host = {0};
    RP_TRY(measure(t, model, o, &device, &host));
    RP_TRY(rp_dev_open(&t->dev, model->backend, o->num_threads));
    RP_TRY(bind(t, &device, &host));
    int64_t widest = c->vocab_size > t->samples ? c->vocab_size : t->samples;
    widest = widest > rp_config_widest(c) ? widest : rp_config_widest(c);
    RP_TRY(t->dev->ops->reserve(
        t->dev, rp_ops_scratch(o->num_threads, o->max_length, widest, c->hidden_size / c->num_attention_heads)));
    return rp_batch_new(&t->slice, t->micro_samples, t->micro_tokens);
}

rp_status rp_trainer_new(rp_trainer **out, rp_model *model, const rp_trainer_options *options, int (*poll)(void *),
                         void *poll_context) {
    rp_trainer *t = calloc(1, sizeof *t);
    if (t == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a trainer handle");
    rp_status status = allocate(t, model, options);
    if (status != RP_OK) {
        rp_trainer_free(t);
        return status;
    }
    t->owner = rp_threads_pid();
    t->dev->poll = poll;
    t->dev->poll_context = poll_context;
    t->dev->products = options->dtype;
    *out = t;
    return RP_OK;
}

void rp_trainer_free(rp_trainer *t) {
    if (t == NULL) return;
    rp_batch_free(t->slice);
    if (t->memory != NULL) t->dev->ops->release(t->dev, t->memory);
    rp_aligned_free(t->host_memory);
    rp_dev_close(t->dev);
    free(t->layers);
    free(t);
}

rp_status rp_trainer_bytes(int64_t *bytes, const rp_model *model, const rp_trainer_options *options) {
    rp_trainer t = {0};
    rp_arena device = {0}, host = {0};
    rp_status status =
        measure(&t, (rp_model *)model, options, &device, &host); /* measuring writes nothing to the model */
    free(t.layers);
    *bytes = (int64_t)(device.used + host.used);
    return status;
}

/* -- one step -------------------------------------------------------------------------------------------- */

static rp_status forward(rp_trainer *t, rp_batch *micro, const rp_pass *pass, float *vectors) {
    int64_t H = t->model->params->config.hidden_size;
    rp_reads reads = rp_represent_reads(&t->options.represent);
    reads.masked = t->options.mlm_weight > 0;
    RP_TRY(rp_inputs_upload(&t->inputs, t->dev, micro, &reads));
    RP_TRY(rp_encoder_forward(&t->encoder, t->dev, t->model->values, &t->inputs, pass));
    return rp_represent_forward(&t->options.represent, t->dev, vectors, t->encoder.hidden, &t->inputs, H);
}

/* After forward: gradients of the micro-batch's part of the loss. dvectors are its rows of the contrastive gradient. */
static rp_status backward(rp_trainer *t, const rp_pass *pass, const float *dvectors, double mlm_weight,
                          double *mlm_loss) {
    const rp_params *params = t->model->params;
    const rp_ops *ops = t->dev->ops;
    int64_t H = params->config.hidden_size;
    double loss = 0;
    RP_TRY(ops->zero(t->dev, t->encoder.dhidden, t->inputs.T * H * (int64_t)sizeof(float)));
    if (t->options.mlm_weight > 0)
        RP_TRY(rp_mlm_run(&t->mlm, t->dev, params, t->model->values, t->grads, t->encoder.dhidden, mlm_weight, &loss,
                          t->encoder.hidden, &t->inputs));
    *mlm_loss += loss;
    if (t->options.cp_weight > 0)
        RP_TRY(rp_represent_backward(&t->options.represent, t->dev, t->encoder.dhidden, dvectors, &t->inputs, H));
    return rp_encoder_backward(&t->encoder, t->dev, t->model->values, t->grads, &t->inputs, pass);
}

static rp_status contrastive(rp_trainer *t, const rp_batch *batch, rp_step_stats *stats) {
    if (t->options.cp_weight == 0) return RP_OK;
    t->dev->products = RP_FLOAT32; /* a similarity over a small temperature needs its digits */
    rp_status status =
        rp_contrastive_run(&t->contrastive, t->dev, &t->options.contrastive, t->options.cp_weight, t->dvectors,
                           &stats->loss_cp, &stats->accuracy, t->vectors, batch->relation, batch->S, t->dim);
    t->dev->products = t->options.dtype;
    return status;
}

/* The slice of micro-batch samples first .. first + micro_samples. */
static rp_status cut(rp_trainer *t, const rp_batch *batch, int64_t first) {
    int64_t last = first + t->micro_samples < batch->S ? first + t->micro_samples : batch->S;
    return rp_batch_slice(t->slice, batch, (int32_t)first, (int32_t)last);
}

static rp_status accumulate(rp_trainer *t, const rp_batch *batch, const rp_pass *pass, rp_step_stats *stats) {
    double mlm_weight = batch->M > 0 ? t->options.mlm_weight / batch->M : 0;
    bool whole = batch->S <= t->micro_samples;
    for (int64_t first = 0; first < batch->S; first += t->micro_samples) {
        RP_TRY(cut(t, batch, first));
        RP_TRY(forward(t, t->slice, pass, t->vectors + first * t->dim));
    }
    RP_TRY(contrastive(t, batch, stats));
    for (int64_t first = 0; first < batch->S; first += t->micro_samples) {
        if (!whole) { /* the activations of the first pass are gone: once more, with the same dropout */
            RP_TRY(cut(t, batch, first));
            RP_TRY(forward(t, t->slice, pass, t->vectors + first * t->dim));
        }
        RP_TRY(backward(t, pass, t->dvectors + first * t->dim, mlm_weight, &stats->loss_mlm));
    }
    return RP_OK;
}

rp_status rp_trainer_gradients(rp_trainer *t, const rp_batch *batch, int64_t step, rp_step_stats *stats) {
    const rp_trainer_options *o = &t->options;
    rp_pass pass = {
        .hidden_dropout = o->hidden_dropout,
        .attention_dropout = o->attention_dropout,
        .seed = o->seed,
        .step = (uint32_t)step,
    };
    *stats = (rp_step_stats){.sentences = batch->S,
                             .tokens = batch->T,
                             .masked = batch->M,
                             .truncated = batch->truncated,
                             .truncated_mentions = batch->truncated_mentions};
    RP_TRY(rp_threads_check_pid(t->owner));
    if (batch->S != t->samples)
        return rp_fail(RP_STATUS_VALUE, "the batch has %d samples, this trainer takes %lld", (int)batch->S,
                       (long long)t->samples);
    RP_TRY(t->dev->ops->zero(t->dev, t->grads, t->model->params->total * (int64_t)sizeof(float)));
    RP_TRY(accumulate(t, batch, &pass, stats));
    if (batch->M > 0) stats->loss_mlm /= batch->M;
    stats->loss = o->cp_weight * stats->loss_cp + o->mlm_weight * stats->loss_mlm;
    stats->lr = o->learning_rate * rp_schedule_factor(o->schedule, step, o->warmup_steps, o->max_steps);
    if (!isfinite(stats->loss))
        return rp_fail(RP_STATUS_NUMERIC,
                       "step %lld: the loss is %g (contrastive %g, masked words %g); the step is refused and "
                       "the parameters are unchanged; lower the learning rate or raise the temperature",
                       (long long)step, stats->loss, stats->loss_cp, stats->loss_mlm);
    return rp_adamw_norm(t->dev, t->model->params, t->grads, &stats->grad_norm);
}

rp_status rp_trainer_step(rp_trainer *t, const rp_batch *batch, int64_t step, rp_step_stats *stats) {
    RP_TRY(rp_trainer_gradients(t, batch, step, stats));
    return rp_adamw_apply(t->dev, t->model->params, t->model->values, t->moment1, t->moment2, t->grads,
                          &t->options.adamw, stats->lr, step + 1, stats->grad_norm, t->options.mlm_weight > 0);
}

/* -- state ----------------------------------------------------------------------------------------------- */

static float *state(const rp_trainer *t, int which) {
    return which == 0 ? t->grads : which == 1 ? t->moment1 : t->moment2;
}

rp_status rp_trainer_get(const rp_trainer *t, int which, int64_t index, float *host) {
    const rp_param *param = &t->model->params->table[index];
    return t->dev->ops->download(t->dev, host, state(t, which) + param->offset, param->count * (int64_t)sizeof(float));
}

rp_status rp_trainer_set(rp_trainer *t, int which, int64_t index, const float *host) {
    const rp_param *param = &t->model->params->table[index];
    return t->dev->ops->upload(t->dev, state(t, which) + param->offset, host, param->count * (int64_t)sizeof(float));
}
