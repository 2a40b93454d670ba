#include "trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "arena.h"
#include "threads.h"

enum { MODEL, HEADS, TABLES };

struct rp_trainer {
    rp_model *model;
    rp_params *heads;
    rp_dev *dev;
    rp_trainer_options options;
    int64_t owner, dim;
    int64_t micro_tokens; /* of a micro-batch, at most */
    bool over_vectors;    /* whether an objective is */
    void *memory, *host_memory;
    rp_batch *slice;

    rp_tensors tensors[TABLES];
    rp_objective objective[RP_OBJECTIVES]; /* (options.objectives) */
    rp_network network;
    float *vectors, *dvectors; /* (samples, dim) */
};

static bool is_active(const rp_objective *o) { return o->options.weight > 0; }

/* -- making and freeing ---------------------------------------------------------------------------------- */

static void plan_tensors(rp_tensors *tensors, rp_arena *arena) {
    size_t total = (size_t)tensors->params->total;
    tensors->grads = rp_arena_take(arena, total, sizeof(float));
    tensors->moment1 = rp_arena_take(arena, total, sizeof(float));
    tensors->moment2 = rp_arena_take(arena, total, sizeof(float));
}

static void plan(rp_trainer *t, rp_arena *arena, rp_arena *host) {
    const rp_params *params = t->model->params;
    const rp_trainer_options *o = &t->options;
    size_t row = (size_t)t->dim * sizeof(float);
    int64_t spare = 0;
    plan_tensors(&t->tensors[MODEL], arena);
    plan_tensors(&t->tensors[HEADS], arena);
    t->tensors[HEADS].values = rp_arena_take(arena, (size_t)t->heads->total, sizeof(float));
    for (int64_t i = 0; i < o->objectives; i++) {
        int64_t floats =
            is_active(&t->objective[i]) ? rp_objective_floats(&t->objective[i], params, t->micro_tokens) : 0;
        if (floats > spare) spare = floats;
    }
    rp_network_plan(&t->network, arena, o->micro_samples, t->micro_tokens, true, spare);
    t->vectors = rp_arena_take(arena, (size_t)o->samples, row);
    t->dvectors = rp_arena_take(arena, (size_t)o->samples, row);
    rp_objective_sizes sizes = {params, t->dim, t->micro_tokens, t->network.encoder.spare};
    for (int64_t i = 0; i < o->objectives; i++)
        if (is_active(&t->objective[i])) rp_objective_plan(&t->objective[i], &sizes, arena, host);
}

static rp_status check_optimizer(const rp_trainer_options *o) {
    if ((int)o->optimizer < 0 || o->optimizer >= RP_OPTIMIZERS)
        return rp_fail(RP_STATUS_VALUE, "optimizer is %d, expected 0 (AdamW) or 1 (SGD)", (int)o->optimizer);
    return o->optimizer == RP_OPTIMIZER_SGD ? rp_sgd_check(&o->sgd) : rp_adamw_check(&o->adamw);
}

static rp_status check_masked_words(const rp_model *model, const rp_trainer_options *o) {
    for (int64_t i = 0; i < o->objectives; i++)
        if (model->params->cnn != NULL && o->objective[i].kind == RP_OBJECTIVE_MLM && o->objective[i].weight > 0)
            return rp_fail(RP_STATUS_VALUE, "%s: a CNN has no hidden states to predict masked words from; leave it out",
                           o->objective[i].name);
    return RP_OK;
}

static rp_status check_options(const rp_model *model, const rp_trainer_options *o) {
    int64_t positions = rp_network_sizes_of(model->params).positions;
    RP_TRY(rp_represent_check(&o->represent));
    RP_TRY(rp_objectives_check(o->objective, o->objectives, o->samples));
    RP_TRY(check_masked_words(model, o));
    RP_TRY(check_optimizer(o));
    if (!(o->hidden_dropout >= 0 && o->hidden_dropout < 1 && o->attention_dropout >= 0 && o->attention_dropout < 1))
        return rp_fail(RP_STATUS_VALUE, "dropout is %g (attention %g), expected 0 <= p < 1", o->hidden_dropout,
                       o->attention_dropout);
    if (!(o->learning_rate > 0))
        return rp_fail(RP_STATUS_VALUE, "learning_rate is %g, expected above 0", o->learning_rate);
    if (o->max_steps < 1 || o->max_steps > UINT32_MAX || o->warmup_steps < 0)
        return rp_fail(RP_STATUS_VALUE, "max_steps is %lld, warmup_steps %lld: expected at least 1 and 0",
                       (long long)o->max_steps, (long long)o->warmup_steps);
    if (o->samples < 1 || o->micro_samples < 1 || o->micro_samples > o->samples)
        return rp_fail(RP_STATUS_VALUE, "a micro-batch of %lld of %lld samples a step, expected 1 to those of a step",
                       (long long)o->micro_samples, (long long)o->samples);
    if (o->max_length < 16 || o->max_length > positions)
        return rp_fail(RP_STATUS_VALUE, "max_length is %lld, expected 16 to the model's %lld positions",
                       (long long)o->max_length, (long long)positions);
    if (o->samples > INT32_MAX / o->max_length)
        return rp_fail(RP_STATUS_VALUE, "%lld samples of up to %lld tokens are over 2^31 tokens a step",
                       (long long)o->samples, (long long)o->max_length);
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

/* The objectives and the table of their parameters. */
static rp_status compose(rp_trainer *t) {
    const rp_trainer_options *o = &t->options;
    double std = rp_network_sizes_of(t->model->params).initializer_range;
    RP_TRY(rp_params_new_heads(&t->heads, RP_OBJECTIVES * RP_OBJECTIVE_HEADS, std));
    for (int64_t i = 0; i < o->objectives; i++) {
        rp_objective *objective = &t->objective[i];
        objective->options = o->objective[i];
        if (!is_active(objective)) continue;
        rp_objective_add_heads(objective, t->heads, t->dim);
        t->over_vectors |= rp_objective_over_vectors(objective);
    }
    t->tensors[MODEL].params = t->model->params;
    t->tensors[MODEL].values = t->model->values;
    t->tensors[HEADS].params = t->heads;
    return RP_OK;
}

/* The measured sizes of a trainer that holds nothing yet. */
static rp_status measure(rp_trainer *t, rp_model *model, const rp_trainer_options *o, rp_arena *device,
                         rp_arena *host) {
    RP_TRY(check_options(model, o));
    t->model = model;
    t->options = *o;
    t->dim = rp_network_dim(model->params, &o->represent);
    t->micro_tokens = o->micro_samples * o->max_length;
    RP_TRY(compose(t));
    RP_TRY(rp_network_open(&t->network, model));
    plan(t, device, host);
    RP_TRY(rp_arena_check(device));
    return rp_arena_check(host);
}

/* The most columns of a matrix product. */
static int64_t widest_product(const rp_trainer *t) {
    rp_network_sizes sizes = rp_network_sizes_of(t->model->params);
    int64_t widest = sizes.vocab_size > t->options.samples ? sizes.vocab_size : t->options.samples;
    for (int64_t i = 0; i < t->heads->count; i++)
        if (t->heads->table[i].rows > widest) widest = t->heads->table[i].rows;
    for (int64_t i = 0; i < t->options.objectives; i++)
        if (rp_objective_widest(&t->objective[i]) > widest) widest = rp_objective_widest(&t->objective[i]);
    if (t->dim > widest) widest = t->dim;
    return widest > sizes.widest ? widest : sizes.widest;
}

static rp_status init_heads(rp_trainer *t) {
    const rp_tensors *heads = &t->tensors[HEADS];
    if (t->heads->total == 0) return RP_OK;
    float *host = rp_aligned_alloc((size_t)t->heads->total * sizeof *host);
    if (host == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory to initialise the heads");
    for (int64_t i = 0; i < t->heads->count; i++)
        rp_params_init(t->heads, i, t->options.seed, host + t->heads->table[i].offset);
    rp_status status = t->dev->ops->upload(t->dev, heads->values, host, t->heads->total * (int64_t)sizeof *host);
    rp_aligned_free(host);
    return status;
}

static rp_status fill_objectives(rp_trainer *t) {
    for (int64_t i = 0; i < t->options.objectives; i++)
        if (is_active(&t->objective[i])) RP_TRY(rp_objective_fill(&t->objective[i], t->dev));
    return RP_OK;
}

static rp_status allocate(rp_trainer *t, rp_model *model, const rp_trainer_options *o) {
    int64_t head_size = rp_network_sizes_of(model->params).head_size;
    rp_arena device = {0}, host = {0};
    RP_TRY(measure(t, model, o, &device, &host));
    RP_TRY(rp_dev_open(&t->dev, model->backend, o->num_threads));
    RP_TRY(bind(t, &device, &host));
    RP_TRY(init_heads(t));
    RP_TRY(fill_objectives(t));
    RP_TRY(t->dev->ops->reserve(t->dev, rp_ops_scratch(o->num_threads, o->max_length, widest_product(t), head_size)));
    return rp_batch_new(&t->slice, o->micro_samples, t->micro_tokens);
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
    rp_params_free(t->heads);
    rp_network_close(&t->network);
    free(t);
}

/* Of packed weights, at most: forward and backward pack their own. */
static int64_t kept_bytes(const rp_trainer *t) {
    int64_t matrices = 0;
    if (t->options.samples <= t->options.micro_samples) return 0;
    for (int64_t i = 0; i < t->model->params->count; i++)
        if (t->model->params->table[i].columns > 0) matrices += t->model->params->table[i].count;
    return 2 * matrices * (int64_t)sizeof(float);
}

rp_status rp_trainer_bytes(int64_t *bytes, const rp_model *model, const rp_trainer_options *options) {
    rp_trainer t = {0};
    rp_arena device = {0}, host = {0};
    rp_status status =
        measure(&t, (rp_model *)model, options, &device, &host); /* measuring writes nothing to the model */
    *bytes = status == RP_OK ? (int64_t)(device.used + host.used) + kept_bytes(&t) : 0;
    rp_params_free(t.heads);
    rp_network_close(&t.network);
    return status;
}

/* -- one step -------------------------------------------------------------------------------------------- */

static bool uses_mlm_head(const rp_trainer *t) {
    for (int64_t i = 0; i < t->options.objectives; i++)
        if (is_active(&t->objective[i]) && rp_objective_uses_mlm_head(&t->objective[i])) return true;
    return false;
}

static rp_status forward(rp_trainer *t, rp_batch *micro, const rp_pass *pass, float *vectors) {
    return rp_network_forward(&t->network, t->dev, vectors, t->model->values, micro, &t->options.represent,
                              uses_mlm_head(t), pass);
}

/* Runs the active objectives of one sort. */
static rp_status run_objectives(rp_trainer *t, const rp_view *view, bool over_vectors) {
    for (int64_t i = 0; i < t->options.objectives; i++) {
        rp_objective *objective = &t->objective[i];
        if (is_active(objective) && rp_objective_over_vectors(objective) == over_vectors)
            RP_TRY(rp_objective_run(objective, view));
    }
    return RP_OK;
}

static rp_status over_vectors(rp_trainer *t, const rp_view *view) {
    RP_TRY(t->dev->ops->zero(t->dev, t->dvectors, t->options.samples * t->dim * (int64_t)sizeof(float)));
    t->dev->products = RP_FLOAT32; /* a similarity over a small temperature needs its digits */
    rp_status status = run_objectives(t, view, true);
    t->dev->products = t->options.dtype;
    return status;
}

/* After forward: gradients of the micro-batch's part of the loss. dvectors are its rows of the vectors' gradient. */
static rp_status backward(rp_trainer *t, rp_view *view, const float *dvectors) {
    rp_network *n = &t->network;
    RP_TRY(rp_network_begin(n, t->dev));
    view->inputs = &n->inputs;
    view->hidden = n->encoder.hidden;
    view->dhidden = n->encoder.dhidden;
    RP_TRY(run_objectives(t, view, false));
    return rp_network_backward(n, t->dev, t->model->values, t->tensors[MODEL].grads, t->over_vectors ? dvectors : NULL,
                               &t->options.represent, view->pass);
}

/* The slice of micro-batch samples first .. first + micro_samples. */
static rp_status cut(rp_trainer *t, const rp_batch *batch, int64_t first) {
    int64_t last = first + t->options.micro_samples < batch->S ? first + t->options.micro_samples : batch->S;
    return rp_batch_slice(t->slice, batch, (int32_t)first, (int32_t)last);
}

static rp_status accumulate(rp_trainer *t, const rp_batch *batch, const rp_pass *pass) {
    int64_t micro = t->options.micro_samples;
    rp_view view = {.dev = t->dev,
                    .pass = pass,
                    .model = &t->tensors[MODEL],
                    .heads = &t->tensors[HEADS],
                    .batch = batch,
                    .dim = t->dim,
                    .vectors = t->vectors,
                    .dvectors = t->dvectors};
    for (int64_t first = 0; first < batch->S && t->over_vectors; first += micro) {
        RP_TRY(cut(t, batch, first));
        RP_TRY(forward(t, t->slice, pass, t->vectors + first * t->dim));
    }
    if (t->over_vectors) RP_TRY(over_vectors(t, &view));
    for (int64_t first = 0; first < batch->S; first += micro) {
        if (!t->over_vectors || batch->S > micro) { /* the activations are gone: once more, with the same dropout */
            RP_TRY(cut(t, batch, first));
            RP_TRY(forward(t, t->slice, pass, t->vectors + first * t->dim));
        }
        RP_TRY(backward(t, &view, t->dvectors + first * t->dim));
    }
    return RP_OK;
}

/* The weighted sum, and each objective's figures. NUMERIC when the sum is not finite. */
static rp_status sum_up(rp_trainer *t, int64_t step, rp_step_stats *stats) {
    char parts[RP_OBJECTIVES * 64];
    int length = 0;
    for (int64_t i = 0; i < t->options.objectives; i++) {
        rp_objective *objective = &t->objective[i];
        rp_objective_finish(objective);
        stats->objective_loss[i] = objective->loss;
        stats->objective_accuracy[i] = objective->accuracy;
        stats->loss += objective->options.weight * objective->loss;
        length += snprintf(parts + length, sizeof parts - (size_t)length, "%s%s %g", i > 0 ? ", " : "",
                           objective->options.name, objective->loss);
    }
    if (isfinite(stats->loss)) return RP_OK;
    return rp_fail(RP_STATUS_NUMERIC,
                   "step %lld: the loss is %g (%s); the step is refused and the parameters are unchanged; lower the "
                   "learning rate or raise the temperature",
                   (long long)step, stats->loss, parts);
}

/* Where several micro-batches of a step are multiplied with the same weights, those are packed once. A smaller batch,
 * as at an epoch's end, comes here too, or it would be multiplied with what an earlier step has packed. */
static rp_status keep_weights(rp_trainer *t) {
    if (t->options.samples <= t->options.micro_samples) return RP_OK;
    return t->dev->ops->keep_weights(t->dev, t->model->values, t->model->params->total, t->model->version);
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
    if (batch->S < 1 || batch->S > o->samples)
        return rp_fail(RP_STATUS_VALUE, "the batch has %d samples, this trainer takes 1 to %lld", (int)batch->S,
                       (long long)o->samples);
    for (int i = 0; i < TABLES; i++)
        RP_TRY(t->dev->ops->zero(t->dev, t->tensors[i].grads, t->tensors[i].params->total * (int64_t)sizeof(float)));
    for (int64_t i = 0; i < o->objectives; i++) rp_objective_begin(&t->objective[i]);
    RP_TRY(keep_weights(t));
    RP_TRY(accumulate(t, batch, &pass));
    RP_TRY(sum_up(t, step, stats));
    stats->lr = o->learning_rate * rp_schedule_factor(o->schedule, step, o->warmup_steps, o->max_steps);
    return rp_adamw_norm(t->dev, t->tensors, TABLES, &stats->grad_norm);
}

static rp_status update(rp_trainer *t, const rp_tensors *tensors, int64_t step, const rp_step_stats *stats) {
    const rp_trainer_options *o = &t->options;
    bool mlm_head = uses_mlm_head(t);
    if (o->optimizer == RP_OPTIMIZER_SGD)
        return rp_sgd_apply(t->dev, tensors, &o->sgd, stats->lr, stats->grad_norm, mlm_head);
    return rp_adamw_apply(t->dev, tensors, &o->adamw, stats->lr, step + 1, stats->grad_norm, mlm_head);
}

rp_status rp_trainer_step(rp_trainer *t, const rp_batch *batch, int64_t step, rp_step_stats *stats) {
    RP_TRY(rp_trainer_gradients(t, batch, step, stats));
    t->model->version++;
    for (int i = 0; i < TABLES; i++) RP_TRY(update(t, &t->tensors[i], step, stats));
    return RP_OK;
}

/* -- state ----------------------------------------------------------------------------------------------- */

const rp_objective *rp_trainer_objectives(const rp_trainer *t, int64_t *count) {
    *count = t->options.objectives;
    return t->objective;
}

const rp_params *rp_trainer_heads(const rp_trainer *t) { return t->heads; }

int64_t rp_trainer_find(const rp_trainer *t, const char *name) {
    int64_t index = rp_params_find(t->model->params, name);
    if (index >= 0) return index;
    index = rp_params_find(t->heads, name);
    return index < 0 ? -1 : t->model->params->count + index;
}

/* The table that has parameter `*index`, which becomes its number there. */
static const rp_tensors *table_of(const rp_trainer *t, int64_t *index) {
    if (*index < t->model->params->count) return &t->tensors[MODEL];
    *index -= t->model->params->count;
    return &t->tensors[HEADS];
}

const rp_param *rp_trainer_param(const rp_trainer *t, int64_t index) {
    const rp_tensors *table = table_of(t, &index);
    return &table->params->table[index];
}

static float *state(const rp_tensors *table, rp_state which) {
    float *const buffers[] = {table->grads, table->moment1, table->moment2, table->values};
    return buffers[which];
}

rp_status rp_trainer_get(const rp_trainer *t, rp_state which, int64_t index, float *host) {
    const rp_tensors *table = table_of(t, &index);
    const rp_param *param = &table->params->table[index];
    return t->dev->ops->download(t->dev, host, state(table, which) + param->offset,
                                 param->count * (int64_t)sizeof(float));
}

rp_status rp_trainer_set(rp_trainer *t, rp_state which, int64_t index, const float *host) {
    const rp_tensors *table = table_of(t, &index);
    const rp_param *param = &table->params->table[index];
    t->model->version++;
    return t->dev->ops->upload(t->dev, state(table, which) + param->offset, host,
                               param->count * (int64_t)sizeof(float));
}
