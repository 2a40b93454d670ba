#include "objective.h"

#include <stdio.h>
#include <string.h>

/* -- the kinds ------------------------------------------------------------------------------------------- */

typedef struct kind {
    bool over_vectors, has_accuracy, mlm_head;
    rp_reads reads; /* of an objective over rows */
    bool single;    /* its samples stand for themselves, so that a step may have fewer */
    rp_status (*check)(const rp_objective_options *o);
    void (*add_heads)(rp_objective *o, rp_params *heads, const rp_params *params, int64_t dim);
    int64_t (*floats)(const rp_params *params, int64_t micro_tokens, int64_t chunk);
    void (*plan)(rp_objective *o, const rp_objective_sizes *sizes, rp_arena *arena, rp_arena *host);
    rp_status (*fill)(rp_objective *o, rp_dev *dev);
    int64_t (*widest)(const rp_objective *o);
    rp_status (*run)(rp_objective *o, const rp_view *view);
} kind;

static rp_status check_pairs(const rp_objective_options *o) {
    if (o->samples % 2 == 0) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "%s has %lld samples a step, expected pairs", o->name, (long long)o->samples);
}

static rp_status check_contrastive(const rp_objective_options *o) {
    RP_TRY(check_pairs(o));
    return rp_contrastive_check(&o->contrastive);
}

static void plan_contrastive(rp_objective *o, const rp_objective_sizes *sizes, rp_arena *arena, rp_arena *host) {
    rp_contrastive_plan(&o->memory.contrastive, arena, host, o->options.samples, sizes->dim, sizes->chunk);
}

static rp_status run_contrastive(rp_objective *o, const rp_view *v) {
    int64_t first = o->options.first * v->dim;
    const int32_t *group_of = o->options.contrastive.by_entities ? v->batch->pair : v->batch->relation;
    return rp_contrastive_run(&o->memory.contrastive, v->dev, &o->options.contrastive, o->options.weight,
                              v->dvectors + first, &o->loss, &o->accuracy, v->vectors + first,
                              group_of + o->options.first, o->options.samples, v->dim);
}

static void plan_mlm(rp_objective *o, const rp_objective_sizes *sizes, rp_arena *arena, rp_arena *host) {
    rp_mlm_plan(&o->memory.mlm, arena, host, sizes->params, sizes->micro_tokens, sizes->chunk, sizes->spare);
}

static rp_status run_mlm(rp_objective *o, const rp_view *v) {
    double sum, weight = v->batch->M > 0 ? o->options.weight / v->batch->M : 0;
    RP_TRY(rp_mlm_run(&o->memory.mlm, v->dev, v->model->params, v->model->values, v->model->grads, v->dhidden, weight,
                      &sum, v->hidden, v->inputs));
    o->loss += sum;
    o->rows += v->inputs->M;
    return RP_OK;
}

static rp_status check_match(const rp_objective_options *o) {
    RP_TRY(check_pairs(o));
    return rp_match_check(&o->match);
}

static void plan_match(rp_objective *o, const rp_objective_sizes *sizes, rp_arena *arena, rp_arena *host) {
    rp_match_plan(&o->memory.match, arena, host, o->options.samples, sizes->dim);
}

static rp_status run_match(rp_objective *o, const rp_view *v) {
    int64_t first = o->options.first * v->dim;
    return rp_match_run(&o->memory.match, v->dev, &o->options.match, o->options.weight, v->dvectors + first, &o->loss,
                        &o->accuracy, v->vectors + first, v->batch->pair + o->options.first, o->options.samples,
                        v->dim);
}

/* The samples of an objective in a step that may have fewer. */
static int64_t samples_there(const rp_objective *o, const rp_view *v) {
    int64_t left = v->batch->S - o->options.first;
    return o->options.samples < left ? o->options.samples : left;
}

static rp_status check_classify(const rp_objective_options *o) { return rp_classify_check(&o->classify); }

static void add_classify_heads(rp_objective *o, rp_params *heads, const rp_params *params, int64_t dim) {
    (void)params;
    rp_classify_add_heads(&o->memory.classify, heads, o->options.name, &o->options.classify, dim);
}

static void plan_classify(rp_objective *o, const rp_objective_sizes *sizes, rp_arena *arena, rp_arena *host) {
    rp_classify_plan(&o->memory.classify, arena, host, &o->options.classify, o->options.samples, sizes->dim);
}

static rp_status run_classify(rp_objective *o, const rp_view *v) {
    int64_t first = o->options.first, at = first * v->dim;
    return rp_classify_run(&o->memory.classify, v->dev, &o->options.classify, o->options.weight, v->heads,
                           v->dvectors + at, &o->loss, &o->accuracy, v->vectors + at, v->batch->relation + first,
                           v->batch->sample + first, samples_there(o, v), v->dim, v->pass);
}

static rp_status check_prototypes(const rp_objective_options *o) {
    return rp_prototypes_check(&o->prototypes, o->samples);
}

static void plan_prototypes(rp_objective *o, const rp_objective_sizes *sizes, rp_arena *arena, rp_arena *host) {
    rp_prototypes_plan(&o->memory.prototypes, arena, host, &o->options.prototypes, o->options.samples, sizes->dim);
}

static rp_status run_prototypes(rp_objective *o, const rp_view *v) {
    int64_t first = o->options.first * v->dim;
    return rp_prototypes_run(&o->memory.prototypes, v->dev, &o->options.prototypes, o->options.weight,
                             v->dvectors + first, &o->loss, &o->accuracy, v->vectors + first, o->options.samples,
                             v->dim);
}

static rp_status check_alignment(const rp_objective_options *o) { return rp_alignment_check(&o->alignment); }

static void add_alignment_heads(rp_objective *o, rp_params *heads, const rp_params *params, int64_t dim) {
    (void)params;
    rp_alignment_add_heads(&o->memory.alignment, heads, o->options.name, &o->options.alignment, dim);
}

static void plan_alignment(rp_objective *o, const rp_objective_sizes *sizes, rp_arena *arena, rp_arena *host) {
    rp_alignment_plan(&o->memory.alignment, arena, host, &o->options.alignment, o->options.samples, sizes->dim);
}

static rp_status fill_alignment(rp_objective *o, rp_dev *dev) {
    return rp_alignment_fill(&o->memory.alignment, dev, &o->options.alignment);
}

static int64_t widest_alignment(const rp_objective *o) { return o->options.alignment.relations; }

static rp_status run_alignment(rp_objective *o, const rp_view *v) {
    int64_t first = o->options.first, at = first * v->dim;
    return rp_alignment_run(&o->memory.alignment, v->dev, &o->options.alignment, o->options.weight, v->heads,
                            v->dvectors + at, &o->loss, &o->accuracy, v->vectors + at, v->batch->relation + first,
                            samples_there(o, v), v->dim);
}

static rp_status check_bags(const rp_objective_options *o) { return rp_bags_check(&o->bags); }

static void add_bags_heads(rp_objective *o, rp_params *heads, const rp_params *params, int64_t dim) {
    (void)params;
    rp_bags_add_heads(&o->memory.bags, heads, o->options.name, &o->options.bags, dim);
}

static void plan_bags(rp_objective *o, const rp_objective_sizes *sizes, rp_arena *arena, rp_arena *host) {
    rp_bags_plan(&o->memory.bags, arena, host, &o->options.bags, o->options.samples, sizes->dim);
}

static rp_status run_bags(rp_objective *o, const rp_view *v) {
    int64_t at = o->options.first * v->dim;
    return rp_bags_run(&o->memory.bags, v->dev, &o->options.bags, o->options.weight, v->heads, v->dvectors + at,
                       &o->loss, &o->accuracy, v->vectors + at, v->batch, o->options.first, samples_there(o, v), v->dim,
                       v->pass);
}

static rp_status check_domain(const rp_objective_options *o) { return rp_domain_check(&o->domain); }

static void add_domain_heads(rp_objective *o, rp_params *heads, const rp_params *params, int64_t dim) {
    (void)params;
    rp_domain_add_heads(&o->memory.domain, heads, o->options.name, &o->options.domain, dim);
}

static void plan_domain(rp_objective *o, const rp_objective_sizes *sizes, rp_arena *arena, rp_arena *host) {
    rp_domain_plan(&o->memory.domain, arena, host, o->options.samples, sizes->dim);
}

static rp_status run_domain(rp_objective *o, const rp_view *v) {
    int64_t first = o->options.first, at = first * v->dim;
    return rp_domain_run(&o->memory.domain, v->dev, &o->options.domain, o->options.weight, v->heads, v->dvectors + at,
                         &o->loss, &o->accuracy, v->vectors + at, v->batch->relation + first, v->batch->sample + first,
                         samples_there(o, v), v->dim, v->pass);
}

static rp_status check_boundary(const rp_objective_options *o) { return rp_boundary_check(&o->boundary); }

static void add_boundary_heads(rp_objective *o, rp_params *heads, const rp_params *params, int64_t dim) {
    (void)dim;
    rp_boundary_add_heads(&o->memory.boundary, heads, o->options.name, &o->options.boundary, params);
}

static void plan_boundary(rp_objective *o, const rp_objective_sizes *sizes, rp_arena *arena, rp_arena *host) {
    rp_boundary_plan(&o->memory.boundary, arena, host, &o->options.boundary, sizes->params, sizes->micro_tokens,
                     sizes->chunk, sizes->spare);
}

static rp_status run_boundary(rp_objective *o, const rp_view *v) {
    double weight = v->batch->M > 0 ? o->options.weight / v->batch->M : 0;
    RP_TRY(rp_boundary_run(&o->memory.boundary, v->dev, v->model, v->heads, v->dhidden, weight, &o->loss, &o->accuracy,
                           v->hidden, v->inputs));
    o->rows += v->inputs->M;
    return RP_OK;
}

static const kind kinds[RP_OBJECTIVE_KINDS] = {
    [RP_OBJECTIVE_CONTRASTIVE] = {.over_vectors = true,
                                  .has_accuracy = true,
                                  .check = check_contrastive,
                                  .plan = plan_contrastive,
                                  .run = run_contrastive},
    [RP_OBJECTIVE_MLM] =
        {.mlm_head = true, .reads = {.masked = true}, .floats = rp_mlm_floats, .plan = plan_mlm, .run = run_mlm},
    [RP_OBJECTIVE_MATCH] =
        {.over_vectors = true, .has_accuracy = true, .check = check_match, .plan = plan_match, .run = run_match},
    [RP_OBJECTIVE_CLASSIFY] = {.over_vectors = true,
                               .has_accuracy = true,
                               .single = true,
                               .check = check_classify,
                               .add_heads = add_classify_heads,
                               .plan = plan_classify,
                               .run = run_classify},
    [RP_OBJECTIVE_PROTOTYPES] = {.over_vectors = true,
                                 .has_accuracy = true,
                                 .check = check_prototypes,
                                 .plan = plan_prototypes,
                                 .run = run_prototypes},
    [RP_OBJECTIVE_ALIGNMENT] = {.over_vectors = true,
                                .has_accuracy = true,
                                .single = true,
                                .check = check_alignment,
                                .add_heads = add_alignment_heads,
                                .plan = plan_alignment,
                                .fill = fill_alignment,
                                .widest = widest_alignment,
                                .run = run_alignment},
    [RP_OBJECTIVE_BAGS] = {.over_vectors = true,
                           .has_accuracy = true,
                           .single = true,
                           .check = check_bags,
                           .add_heads = add_bags_heads,
                           .plan = plan_bags,
                           .run = run_bags},
    [RP_OBJECTIVE_DOMAIN] = {.over_vectors = true,
                             .has_accuracy = true,
                             .single = true,
                             .check = check_domain,
                             .add_heads = add_domain_heads,
                             .plan = plan_domain,
                             .run = run_domain},
    [RP_OBJECTIVE_BOUNDARY] = {.has_accuracy = true,
                               .reads = {.outside = true},
                               .check = check_boundary,
                               .add_heads = add_boundary_heads,
                               .floats = rp_mlm_floats,
                               .plan = plan_boundary,
                               .run = run_boundary},
};

static const kind *kind_of(const rp_objective *o) { return &kinds[o->options.kind]; }

/* -- checking -------------------------------------------------------------------------------------------- */

static rp_status check_one(const rp_objective_options *o, int64_t samples) {
    if ((int)o->kind < 0 || o->kind >= RP_OBJECTIVE_KINDS)
        return rp_fail(RP_STATUS_VALUE, "%s: there is no kind %d of objective", o->name, (int)o->kind);
    if (!(o->weight >= 0)) return rp_fail(RP_STATUS_VALUE, "%s_weight is %g, expected 0 or more", o->name, o->weight);
    if (o->first < 0 || o->samples < 1 || o->first > samples - o->samples)
        return rp_fail(RP_STATUS_VALUE, "%s runs on %lld samples from %lld on, of a step of %lld", o->name,
                       (long long)o->samples, (long long)o->first, (long long)samples);
    return kinds[o->kind].check == NULL ? RP_OK : kinds[o->kind].check(o);
}

/* "cp_weight is 0 and mlm_weight 0" */
static rp_status refuse_all_left_out(const rp_objective_options *options, int64_t count) {
    char names[RP_OBJECTIVES * 64];
    int length = 0;
    for (int64_t i = 0; i < count; i++)
        length += snprintf(names + length, sizeof names - (size_t)length, "%s%s_weight%s 0", i > 0 ? " and " : "",
                           options[i].name, i > 0 ? "" : " is");
    return rp_fail(RP_STATUS_VALUE, "%s: expected one above 0", names);
}

rp_status rp_objectives_check(const rp_objective_options *options, int64_t count, int64_t samples) {
    double sum = 0;
    if (count < 1 || count > RP_OBJECTIVES)
        return rp_fail(RP_STATUS_VALUE, "%lld objectives, expected 1 to %d", (long long)count, RP_OBJECTIVES);
    for (int64_t i = 0; i < count; i++) {
        RP_TRY(check_one(&options[i], samples));
        for (int64_t j = 0; j < i; j++)
            if (strcmp(options[i].name, options[j].name) == 0)
                return rp_fail(RP_STATUS_VALUE, "two objectives are called %s; give one another name", options[i].name);
        sum += options[i].weight;
    }
    return sum > 0 ? RP_OK : refuse_all_left_out(options, count);
}

/* -- use ------------------------------------------------------------------------------------------------- */

bool rp_objective_over_vectors(const rp_objective *o) { return kind_of(o)->over_vectors; }

bool rp_objective_has_accuracy(const rp_objective *o) { return kind_of(o)->has_accuracy; }

bool rp_objective_uses_mlm_head(const rp_objective *o) { return kind_of(o)->mlm_head; }

void rp_objective_mark_reads(const rp_objective *o, rp_reads *reads) {
    reads->masked |= kind_of(o)->reads.masked;
    reads->outside |= kind_of(o)->reads.outside;
}

void rp_objective_add_heads(rp_objective *o, rp_params *heads, const rp_params *params, int64_t dim) {
    if (kind_of(o)->add_heads != NULL) kind_of(o)->add_heads(o, heads, params, dim);
}

int64_t rp_objective_floats(const rp_objective *o, const rp_objective_sizes *sizes) {
    if (kind_of(o)->floats == NULL) return 0;
    return kind_of(o)->floats(sizes->params, sizes->micro_tokens, sizes->chunk);
}

void rp_objective_plan(rp_objective *o, const rp_objective_sizes *sizes, rp_arena *arena, rp_arena *host) {
    kind_of(o)->plan(o, sizes, arena, host);
}

rp_status rp_objective_fill(rp_objective *o, rp_dev *dev) {
    return kind_of(o)->fill == NULL ? RP_OK : kind_of(o)->fill(o, dev);
}

int64_t rp_objective_widest(const rp_objective *o) { return kind_of(o)->widest == NULL ? 0 : kind_of(o)->widest(o); }

void rp_objective_begin(rp_objective *o) {
    o->loss = o->accuracy = 0;
    o->rows = 0;
}

rp_status rp_objective_run(rp_objective *o, const rp_view *view) {
    int64_t left = view->batch->S - o->options.first; /* fewer than its samples at the end of an epoch */
    if (kind_of(o)->over_vectors && left < (kind_of(o)->single ? 1 : o->options.samples))
        return rp_fail(RP_STATUS_VALUE, "%s: the step has %lld of its %lld samples", o->options.name, (long long)left,
                       (long long)o->options.samples);
    return kind_of(o)->run(o, view);
}

void rp_objective_finish(rp_objective *o) {
    if (o->rows == 0) return;
    o->loss /= (double)o->rows;
    o->accuracy /= (double)o->rows;
}
