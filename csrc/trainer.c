#include "trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "threads.h"

struct rp_trainer {
    rp_params *heads;
    rp_dev *dev;
    rp_trainer_options options;
    int64_t owner;
    int64_t micro_tokens; /* of a micro-batch, at most */
    int64_t chunk;        /* the back end's (rp_ops) */
    bool over_vectors;    /* whether an objective is */
    void *memory, *host_memory;
    rp_batch *slice[RP_JOIN_PARTS]; /* (networks) */

    rp_tensors tensors[RP_JOIN_PARTS + 1]; /* of each network, then of the heads */
    rp_objective objective[RP_OBJECTIVES]; /* (options.objectives) */
    rp_join join;
    float *vectors, *dvectors; /* (samples, dim) */
};

static bool is_active(const rp_objective *o) { return o->options.weight > 0; }

/* The networks' tables and that of the heads, which is the last. */
static int tables(const rp_trainer *t) { return t->join.networks + 1; }
static rp_tensors *heads_of(rp_trainer *t) { return &t->tensors[t->join.networks]; }
static rp_network *first_network(rp_trainer *t) { return &t->join.part[t->join.first].network; }

/* -- making and freeing ---------------------------------------------------------------------------------- */

static void plan_tensors(rp_tensors *tensors, rp_arena *arena) {
    size_t total = (size_t)tensors->params->total;
    tensors->grads = rp_arena_take(arena, total, sizeof(float));
    tensors->moment1 = rp_arena_take(arena, total, sizeof(float));
    tensors->moment2 = rp_arena_take(arena, total, sizeof(float));
}

static void plan(rp_trainer *t, rp_arena *arena, rp_arena *host) {
    const rp_params *params = t->tensors[0].params;
    const rp_trainer_options *o = &t->options;
    size_t row = (size_t)t->join.dim * sizeof(float);
    rp_objective_sizes sizes = {params, t->join.dim, t->micro_tokens, t->chunk, NULL};
    int64_t spare = 0;
    for (int i = 0; i < tables(t); i++) plan_tensors(&t->tensors[i], arena);
    heads_of(t)->values = rp_arena_take(arena, (size_t)t->heads->total, sizeof(float));
    for (int64_t i = 0; i < o->objectives; i++) {
        int64_t floats = is_active(&t->objective[i]) ? rp_objective_floats(&t->objective[i], &sizes) : 0;
        if (floats > spare) spare = floats;
    }
    rp_capacity most = {o->micro_samples, t->micro_tokens, true, o->dtype, spare};
    rp_join_plan(&t->join, arena, host, &most);
    t->vectors = rp_arena_take(arena, (size_t)o->samples, row);
    t->dvectors = rp_arena_take(arena, (size_t)o->samples, row);
    sizes.spare = first_network(t)->encoder.spare;
    for (int64_t i = 0; i < o->objectives; i++)
        if (is_active(&t->objective[i])) rp_objective_plan(&t->objective[i], &sizes, arena, host);
}

static rp_status check_optimizer(const rp_trainer_options *o) {
    if ((int)o->optimizer < 0 || o->optimizer >= RP_OPTIMIZERS)
        return rp_fail(RP_STATUS_VALUE, "optimizer is %d, expected 0 (AdamW) or 1 (SGD)", (int)o->optimizer);
    return o->optimizer == RP_OPTIMIZER_SGD ? rp_sgd_check(&o->sgd) : rp_adamw_check(&o->adamw);
}

static bool recovers_words(rp_objective_kind kind) { return kind == RP_OBJECTIVE_MLM || kind == RP_OBJECTIVE_BOUNDARY; }

static rp_status check_masked_words(const rp_trainer_options *o) {
    bool cnn = o->join.part[0].model == NULL || o->join.part[0].model->params->cnn != NULL;
    for (int64_t i = 0; i < o->objectives; i++) {
        if (!recovers_words(o->objective[i].kind) || !(o->objective[i].weight > 0)) continue;
        if (o->join.parts > 1)
            return rp_fail(RP_STATUS_VALUE,
                           "%s: words are masked for one encoder alone, not for %lld joined parts; leave it out",
                           o->objective[i].name, (long long)o->join.parts);
        if (cnn)
            return rp_fail(RP_STATUS_VALUE, "%s: a CNN has no hidden states to predict masked words from; leave it out",
                           o->objective[i].name);
    }
    return RP_OK;
}

static rp_status check_options(const rp_trainer_options *o) {
    RP_TRY(rp_join_check(&o->join));
    int64_t positions = rp_join_sizes(&o->join).positions;
    RP_TRY(rp_objectives_check(o->objective, o->objectives, o->samples));
    RP_TRY(check_masked_words(o));
    RP_TRY(check_optimizer(o));
    if (!(o->hidden_dropout >= 0 && o->hidden_dropout < 1 && o->attention_dropout >= 0 && o->attention_dropout < 1))
        return rp_fail(RP_STATUS_VALUE, "dropout is %g (attention %g), expected 0 <= p < 1", o->hidden_dropout,
                       o->attention_dropout);
    if (!(o->learning_rate > 0 && o->learning_rate <= RP_RATE_MOST))
        return rp_fail(RP_STATUS_VALUE, "learning_rate is %g, expected above 0, at most %g", o->learning_rate,
                       RP_RATE_MOST);
    if ((int)o->schedule < 0 || o->schedule > RP_SCHEDULE_COSINE || (int)o->dtype < 0 || o->dtype > RP_TF32)
        return rp_fail(RP_STATUS_VALUE, "schedule %d or dtype %d is out of range", (int)o->schedule, (int)o->dtype);
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
    double std = rp_join_sizes(&o->join).initializer_range;
    RP_TRY(rp_params_new_heads(&t->heads, RP_OBJECTIVES * RP_OBJECTIVE_HEADS, std));
    for (int64_t i = 0; i < o->objectives; i++) {
        rp_objective *objective = &t->objective[i];
        objective->options = o->objective[i];
        if (!is_active(objective)) continue;
        rp_objective_add_heads(objective, t->heads, o->join.part[t->join.first].model->params, t->join.dim);
        t->over_vectors |= rp_objective_over_vectors(objective);
    }
    for (int64_t i = 0; i < o->join.parts; i++) {
        const rp_model *model = o->join.part[i].model;
        if (model == NULL) continue;
        t->tensors[t->join.part[i].number].params = model->params;
        t->tensors[t->join.part[i].number].values = model->values;
    }
    heads_of(t)->params = t->heads;
    return RP_OK;
}

/* The measured sizes of a trainer that holds nothing yet. */
static rp_status measure(rp_trainer *t, const rp_trainer_options *o, rp_arena *device, rp_arena *host) {
    RP_TRY(check_options(o));
    t->options = *o;
    t->micro_tokens = o->micro_samples * o->max_length;
    RP_TRY(rp_join_open(&t->join, &o->join));
    const rp_ops *ops = rp_ops_find(o->join.part[t->join.first].model->backend);
    if (ops == NULL) return RP_STATUS_STATE; /* rp_ops_find has written the message */
    t->chunk = ops->chunk;
    RP_TRY(compose(t));
    plan(t, device, host);
    RP_TRY(rp_arena_check(device));
    return rp_arena_check(host);
}

/* The most columns of a matrix product. */
static int64_t widest_product(const rp_trainer *t) {
    rp_network_sizes sizes = rp_join_sizes(&t->options.join);
    int64_t widest = sizes.vocab_size > t->options.samples ? sizes.vocab_size : t->options.samples;
    for (int64_t i = 0; i < t->heads->count; i++) {
        const rp_param *head = &t->heads->table[i];
        int64_t wider = head->rows > head->columns ? head->rows : head->columns;
        if (wider > widest) widest = wider;
    }
    for (int64_t i = 0; i < t->options.objectives; i++)
        if (rp_objective_widest(&t->objective[i]) > widest) widest = rp_objective_widest(&t->objective[i]);
    if (t->join.dim > widest) widest = t->join.dim;
    return widest > sizes.widest ? widest : sizes.widest;
}

/* What operations are called with at most. */
static rp_extent extent_of(const rp_trainer *t) {
    rp_network_sizes sizes = rp_join_sizes(&t->options.join);
    int64_t samples = t->options.samples, weight = sizes.weight;
    if (samples * t->join.dim > weight) weight = samples * t->join.dim; /* of a similarity: the candidates */
    for (int64_t i = 0; i < t->heads->count; i++)
        if (t->heads->table[i].count > weight) weight = t->heads->table[i].count;
    return (rp_extent){.rows = t->micro_tokens > samples ? t->micro_tokens : samples,
                       .widest = widest_product(t),
                       .weight = weight,
                       .max_len = t->options.max_length,
                       .head_size = sizes.head_size};
}

static rp_status init_heads(rp_trainer *t) {
    const rp_tensors *heads = heads_of(t);
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

static rp_status allocate(rp_trainer *t, const rp_trainer_options *o) {
    rp_arena device = {0}, host = {0};
    RP_TRY(measure(t, o, &device, &host));
    RP_TRY(rp_dev_open(&t->dev, o->join.part[t->join.first].model->backend, o->num_threads));
    t->dev->products = o->dtype;
    RP_TRY(bind(t, &device, &host));
    RP_TRY(init_heads(t));
    RP_TRY(fill_objectives(t));
    RP_TRY(rp_join_upload(&t->join, t->dev, o->micro_samples));
    const rp_extent most = extent_of(t);
    RP_TRY(rp_dev_reserve(t->dev, &most));
    for (int i = 0; i < t->join.networks; i++) RP_TRY(rp_batch_new(&t->slice[i], o->micro_samples, t->micro_tokens));
    return RP_OK;
}

rp_status rp_trainer_new(rp_trainer **out, const rp_trainer_options *options, int (*poll)(void *), void *poll_context) {
    RP_TRY(rp_threads_begin(options->num_threads));
    rp_trainer *t = calloc(1, sizeof *t);
    if (t == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a trainer handle");
    rp_status status = allocate(t, options);
    if (status != RP_OK) {
        rp_trainer_free(t);
        return status;
    }
    t->owner = rp_threads_pid();
    t->dev->poll = poll;
    t->dev->poll_context = poll_context;
    *out = t;
    return RP_OK;
}

void rp_trainer_free(rp_trainer *t) {
    if (t == NULL) return;
    for (int i = 0; i < RP_JOIN_PARTS; i++) rp_batch_free(t->slice[i]);
    if (t->memory != NULL) t->dev->ops->release(t->dev, t->memory);
    rp_aligned_free(t->host_memory);
    rp_dev_close(t->dev);
    rp_params_free(t->heads);
    rp_join_close(&t->join);
    free(t);
}

/* Where several micro-batches of a step are multiplied with the same weights, those are packed once. A device keeps one
 * network's. Either all steps keep them or none: a short one at the end of an epoch must not find the last one's. */
static bool keeps_weights(const rp_trainer *t) {
    return t->join.networks == 1 && t->options.samples > t->options.micro_samples;
}

/* Of packed weights, at most: forward and backward pack their own. */
static int64_t kept_bytes(const rp_trainer *t) {
    const rp_params *params = t->tensors[0].params;
    int64_t matrices = 0;
    if (!keeps_weights(t)) return 0;
    for (int64_t i = 0; i < params->count; i++)
        if (params->table[i].columns > 0) matrices += params->table[i].count;
    return 2 * matrices * (int64_t)sizeof(float);
}

rp_status rp_trainer_bytes(int64_t *bytes, const rp_trainer_options *options) {
    rp_trainer t = {0};
    rp_arena device = {0}, host = {0};
    rp_status status = measure(&t, options, &device, &host); /* measuring writes nothing to the models */
    *bytes = status == RP_OK ? (int64_t)(device.used + host.used) + kept_bytes(&t) : 0;
    rp_params_free(t.heads);
    rp_join_close(&t.join);
    return status;
}

/* -- one step -------------------------------------------------------------------------------------------- */

int rp_trainer_networks(const rp_trainer *t) { return t->join.networks; }

static bool uses_mlm_head(const rp_trainer *t) {
    for (int64_t i = 0; i < t->options.objectives; i++)
        if (is_active(&t->objective[i]) && rp_objective_uses_mlm_head(&t->objective[i])) return true;
    return false;
}

/* The vectors of the slices, as which sample `first` is the first one. */
static rp_status forward(rp_trainer *t, const rp_pass *pass, int64_t first) {
    rp_reads also = {0};
    for (int64_t i = 0; i < t->options.objectives; i++)
        if (is_active(&t->objective[i])) rp_objective_mark_reads(&t->objective[i], &also);
    return rp_join_forward(&t->join, t->dev, t->vectors + first * t->join.dim, t->slice, &also, pass);
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
    RP_TRY(t->dev->ops->zero(t->dev, t->dvectors, t->options.samples * t->join.dim * (int64_t)sizeof(float)));
    /* A similarity over a small temperature needs its digits. */
    t->dev->products = t->options.dtype == RP_BFLOAT16 ? RP_TWO_BFLOAT16 : RP_FLOAT32;
    rp_status status = run_objectives(t, view, true);
    t->dev->products = t->options.dtype;
    return status;
}

/* After forward: gradients of the micro-batch's part of the loss. dvectors are its rows of the vectors' gradient. */
static rp_status backward(rp_trainer *t, rp_view *view, const float *dvectors) {
    const rp_network *n = first_network(t);
    RP_TRY(rp_join_begin(&t->join, t->dev));
    view->inputs = &n->inputs;
    view->hidden = n->encoder.hidden;
    view->dhidden = n->encoder.dhidden;
    RP_TRY(run_objectives(t, view, false));
    return rp_join_backward(&t->join, t->dev, t->tensors, t->over_vectors ? dvectors : NULL, view->pass);
}

/* The slices of micro-batch samples first .. first + micro_samples. */
static rp_status cut(rp_trainer *t, const rp_batch *const *batches, int64_t first) {
    int64_t S = batches[0]->S, last = first + t->options.micro_samples < S ? first + t->options.micro_samples : S;
    for (int i = 0; i < t->join.networks; i++)
        RP_TRY(rp_batch_slice(t->slice[i], batches[i], (int32_t)first, (int32_t)last));
    return RP_OK;
}

static rp_status accumulate(rp_trainer *t, const rp_batch *const *batches, const rp_pass *pass) {
    const rp_batch *batch = batches[0];
    int64_t micro = t->options.micro_samples;
    rp_view view = {.dev = t->dev,
                    .pass = pass,
                    .model = &t->tensors[0],
                    .heads = heads_of(t),
                    .batch = batch,
                    .dim = t->join.dim,
                    .vectors = t->vectors,
                    .dvectors = t->dvectors};
    for (int64_t first = 0; first < batch->S && t->over_vectors; first += micro) {
        RP_TRY(cut(t, batches, first));
        RP_TRY(forward(t, pass, first));
    }
    if (t->over_vectors) RP_TRY(over_vectors(t, &view));
    for (int64_t first = 0; first < batch->S; first += micro) {
        if (!t->over_vectors || batch->S > micro) { /* the activations are gone: once more, with the same dropout */
            RP_TRY(cut(t, batches, first));
            RP_TRY(forward(t, pass, first));
        }
        RP_TRY(backward(t, &view, t->dvectors + first * t->join.dim));
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

static rp_status keep_weights(rp_trainer *t) {
    const rp_model *model = t->options.join.part[t->join.first].model;
    if (!keeps_weights(t)) return RP_OK;
    return t->dev->ops->keep_weights(t->dev, model->values, model->params->total, model->version);
}

/* To be said before the networks' values change. */
static void count_versions(rp_trainer *t) {
    for (int64_t i = 0; i < t->options.join.parts; i++)
        if (t->options.join.part[i].model != NULL) t->options.join.part[i].model->version++;
}

static rp_status check_fit(const rp_trainer *t, const rp_network *network, const rp_batch *b) {
    rp_network_sizes sizes = rp_network_sizes_of(network->params);
    if (b->max_len > t->options.max_length)
        return rp_fail(RP_STATUS_VALUE, "the batch has a sequence of %d tokens, this trainer takes %lld",
                       (int)b->max_len, (long long)t->options.max_length);
    return rp_network_check_origin(&sizes, &b->origin);
}

/* Every network has to read the same samples. */
static rp_status check_batches(const rp_trainer *t, const rp_batch *const *batches) {
    const rp_batch *first = batches[0];
    if (first->S < 1 || first->S > t->options.samples)
        return rp_fail(RP_STATUS_VALUE, "the batch has %d samples, this trainer takes 1 to %lld", (int)first->S,
                       (long long)t->options.samples);
    for (int i = 1; i < t->join.networks; i++) {
        if (batches[i]->S != first->S || memcmp(batches[i]->row, first->row, (size_t)first->S * sizeof *first->row) ||
            memcmp(batches[i]->relation, first->relation, (size_t)first->S * sizeof *first->relation))
            return rp_fail(RP_STATUS_VALUE,
                           "the batch of network %d is not of the first one's samples; give all samplers the same "
                           "sentences, in the same order, and the same options",
                           i);
    }
    for (int64_t i = 0; i < t->options.join.parts; i++)
        if (t->options.join.part[i].model != NULL)
            RP_TRY(check_fit(t, &t->join.part[i].network, batches[t->join.part[i].number]));
    return RP_OK;
}

/* Counts of the step: of tokens those that all networks read, of cut samples those of the network that cuts most. */
static rp_step_stats counted(const rp_trainer *t, const rp_batch *const *batches) {
    rp_step_stats stats = {.sentences = batches[0]->S, .masked = batches[0]->M};
    for (int i = 0; i < t->join.networks; i++) {
        const rp_batch *b = batches[i];
        stats.tokens += b->T;
        if (b->truncated > stats.truncated) stats.truncated = b->truncated;
        if (b->truncated_mentions > stats.truncated_mentions) stats.truncated_mentions = b->truncated_mentions;
    }
    return stats;
}

rp_status rp_trainer_gradients(rp_trainer *t, const rp_batch *const *batches, int64_t step, rp_step_stats *stats) {
    const rp_trainer_options *o = &t->options;
    rp_pass pass = {
        .hidden_dropout = o->hidden_dropout,
        .attention_dropout = o->attention_dropout,
        .seed = o->seed,
        .step = (uint32_t)step,
    };
    *stats = counted(t, batches);
    RP_TRY(rp_threads_check_pid(t->owner));
    RP_TRY(check_batches(t, batches));
    for (int i = 0; i < tables(t); i++)
        RP_TRY(t->dev->ops->zero(t->dev, t->tensors[i].grads, t->tensors[i].params->total * (int64_t)sizeof(float)));
    for (int64_t i = 0; i < o->objectives; i++) rp_objective_begin(&t->objective[i]);
    RP_TRY(keep_weights(t));
    RP_TRY(accumulate(t, batches, &pass));
    RP_TRY(sum_up(t, step, stats));
    stats->lr = o->learning_rate * rp_schedule_factor(o->schedule, step, o->warmup_steps, o->max_steps);
    return rp_adamw_norm(t->dev, t->tensors, tables(t), &stats->grad_norm);
}

static rp_status update(rp_trainer *t, const rp_tensors *tensors, int64_t step, const rp_step_stats *stats) {
    const rp_trainer_options *o = &t->options;
    bool mlm_head = uses_mlm_head(t);
    if (o->optimizer == RP_OPTIMIZER_SGD)
        return rp_sgd_apply(t->dev, tensors, &o->sgd, stats->lr, stats->grad_norm, mlm_head);
    return rp_adamw_apply(t->dev, tensors, &o->adamw, stats->lr, step + 1, stats->grad_norm, mlm_head);
}

rp_status rp_trainer_step(rp_trainer *t, const rp_batch *const *batches, int64_t step, rp_step_stats *stats) {
    RP_TRY(rp_trainer_gradients(t, batches, step, stats));
    count_versions(t);
    for (int i = 0; i < tables(t); i++) RP_TRY(update(t, &t->tensors[i], step, stats));
    return RP_OK;
}

/* -- state ----------------------------------------------------------------------------------------------- */

const rp_objective *rp_trainer_objectives(const rp_trainer *t, int64_t *count) {
    *count = t->options.objectives;
    return t->objective;
}

const rp_params *rp_trainer_heads(const rp_trainer *t) { return t->heads; }

int64_t rp_trainer_find(const rp_trainer *t, const char *name) {
    int64_t index = rp_params_find(t->heads, name), before = 0;
    for (int i = 0; i < t->join.networks; i++) {
        const rp_params *params = t->tensors[i].params;
        char *rest = (char *)name;
        bool own = t->join.networks == 1 || (strtol(name, &rest, 10) == i && rest > name && *rest++ == '.');
        int64_t found = own ? rp_params_find(params, rest) : -1;
        if (found >= 0) return before + found;
        before += params->count;
    }
    return index < 0 ? -1 : before + index;
}

/* The table that has parameter `*index`, which becomes its number there. */
static const rp_tensors *table_of(const rp_trainer *t, int64_t *index) {
    const rp_tensors *table = t->tensors;
    while (table < t->tensors + t->join.networks && *index >= table->params->count) *index -= table++->params->count;
    return table;
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
    count_versions(t);
    return t->dev->ops->upload(t->dev, state(table, which) + param->offset, host,
                               param->count * (int64_t)sizeof(float));
}
