#include "kge_trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "rng.h"
#include "threads.h"

#define ADAGRAD_EPS 1e-10f
#define AHEAD 4 /* candidates between a prefetch and the use of the row */

struct rp_kge_trainer {
    const rp_graph *graph;
    rp_kge_options o;
    int64_t rows, pid;               /* of values: entities, then relations */
    int64_t epoch;                   /* whose order stands in `order`; -1: none */
    uint32_t *order;                 /* (n) */
    float *values, *squares, *grads; /* (rows,dim); squares: Adagrad's sums, grads: 0 where not touched */
    uint8_t *touched;                /* (rows) has a gradient in this step */
    /* of the step's triples */
    rp_query *query;    /* (batch) */
    int32_t *candidate; /* (batch, 1+negatives) */
    double *score;      /* (batch, 1+negatives) */
    double *dscore;     /* (batch, 1+negatives) */
    double *loss;       /* (batch) */
    float *q, *dq;      /* (batch,dim) */
    void *memory;
};

/* -- options and memory ---------------------------------------------------------------------------------- */

/* A finite gradient times the largest rate is finite, so that no update can make an embedding infinite. */
static rp_status check_number(double value, bool zero, const char *name) {
    if (value <= 1e6 && (value > 0 || (zero && value == 0))) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "%s is %g; expected a number %s 0, at most 1e6", name, value,
                   zero ? "from" : "above");
}

static rp_status check_size(int64_t value, int64_t high, const char *name) {
    if (value >= 1 && value <= high) return RP_OK;
    return rp_fail(RP_STATUS_VALUE, "%s is %" PRId64 "; expected 1 .. %" PRId64, name, value, high);
}

static rp_status check_options(const rp_kge_options *o) {
    if ((int)o->model < 0 || o->model >= RP_KGE_MODELS || (int)o->loss < 0 || o->loss >= RP_KGE_LOSSES ||
        (int)o->optimizer < 0 || o->optimizer >= RP_KGE_OPTIMIZERS)
        return rp_fail(RP_STATUS_VALUE, "model %d, loss %d or optimizer %d is out of range", (int)o->model,
                       (int)o->loss, (int)o->optimizer);
    RP_TRY(check_size(o->dim, INT32_MAX, "dim"));
    RP_TRY(check_size(o->batch, INT32_MAX, "batch_size"));
    RP_TRY(check_size(o->num_threads, 4096, "num_threads"));
    RP_TRY(check_number(o->margin, true, "margin"));
    RP_TRY(check_number(o->l2, true, "l2"));
    RP_TRY(check_number(o->n3, true, "n3"));
    return check_number(o->learning_rate, false, "learning_rate");
}

static void plan(rp_kge_trainer *t, rp_arena *arena) {
    size_t rows = (size_t)t->rows, row = (size_t)t->o.dim * sizeof(float), batch = (size_t)t->o.batch;
    size_t candidates = 1 + (size_t)t->o.corruption.negatives;
    t->values = rp_arena_take(arena, rows, row);
    t->squares = rp_arena_take(arena, rows, row);
    t->grads = rp_arena_take(arena, rows, row);
    t->touched = rp_arena_take(arena, rows, sizeof *t->touched);
    t->order = rp_arena_take(arena, (size_t)t->graph->n, sizeof *t->order);
    t->query = rp_arena_take(arena, batch, sizeof *t->query);
    t->candidate = rp_arena_take(arena, batch, candidates * sizeof *t->candidate);
    t->score = rp_arena_take(arena, batch, candidates * sizeof *t->score);
    t->dscore = rp_arena_take(arena, batch, candidates * sizeof *t->dscore);
    t->loss = rp_arena_take(arena, batch, sizeof *t->loss);
    t->q = rp_arena_take(arena, batch, row);
    t->dq = rp_arena_take(arena, batch, row);
}

static rp_status allocate(rp_kge_trainer *t) {
    rp_arena arena = {0};
    plan(t, &arena);
    RP_TRY(rp_arena_check(&arena));
    t->memory = rp_aligned_alloc(arena.used);
    if (t->memory == NULL)
        return rp_fail(RP_STATUS_MEMORY, "no memory for embeddings of %" PRId64 " rows of %" PRId64 " (%zu bytes)",
                       t->rows, t->o.dim, arena.used);
    arena = (rp_arena){.base = t->memory, .capacity = arena.used};
    plan(t, &arena);
    return RP_OK;
}

static void normalize_row(float *row, int64_t dim) {
    double squares = 0;
    for (int64_t i = 0; i < dim; i++) squares += (double)row[i] * (double)row[i];
    if (!(squares > 0)) return;
    float scale = (float)(1 / sqrt(squares));
    for (int64_t i = 0; i < dim; i++) row[i] *= scale;
}

static void initialize(rp_kge_trainer *t) {
    double bound = 6 / sqrt((double)t->o.dim);
    for (int64_t row = 0; row < t->rows; row++) {
        uint64_t key = rp_rng_key(t->o.corruption.seed, RP_PURPOSE_INIT, 0);
        rp_rng rng = rp_rng_stream(key, 0, (uint32_t)row, 0);
        float *values = t->values + row * t->o.dim;
        for (int64_t i = 0; i < t->o.dim; i++) values[i] = (float)(bound * (2 * rp_rng_unit(&rng) - 1));
        if (t->o.model != RP_KGE_DISTMULT || t->o.normalize) normalize_row(values, t->o.dim);
    }
}

rp_status rp_kge_trainer_new(rp_kge_trainer **out, const rp_graph *graph, const rp_kge_options *options) {
    *out = NULL;
    RP_TRY(check_options(options));
    RP_TRY(rp_threads_begin(options->num_threads));
    RP_TRY(rp_graph_check_corruption(graph, &options->corruption));
    rp_kge_trainer *t = calloc(1, sizeof *t);
    if (t == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for a trainer of embeddings");
    *t = (rp_kge_trainer){.graph = graph, .o = *options, .epoch = -1, .pid = rp_threads_pid()};
    if (t->o.batch > graph->n) t->o.batch = graph->n;
    t->rows = graph->n_entities + graph->n_relations;
    rp_status status = allocate(t);
    if (status != RP_OK) {
        rp_kge_trainer_free(t);
        return status;
    }
    initialize(t);
    *out = t;
    return RP_OK;
}

void rp_kge_trainer_free(rp_kge_trainer *t) {
    if (t == NULL) return;
    rp_aligned_free(t->memory);
    free(t);
}

int64_t rp_kge_trainer_steps(const rp_kge_trainer *t) { return (t->graph->n + t->o.batch - 1) / t->o.batch; }
const float *rp_kge_trainer_values(const rp_kge_trainer *t) { return t->values; }
const float *rp_kge_trainer_gradients(const rp_kge_trainer *t) { return t->grads; }

int64_t rp_kge_trainer_dim(const rp_kge_trainer *t) { return t->o.dim; }

void rp_kge_trainer_set(rp_kge_trainer *t, const float *entity, const float *relation) {
    int64_t entities = t->graph->n_entities * t->o.dim, relations = t->graph->n_relations * t->o.dim;
    memcpy(t->values, entity, (size_t)entities * sizeof *entity);
    memcpy(t->values + entities, relation, (size_t)relations * sizeof *relation);
}

/* -- a step ---------------------------------------------------------------------------------------------- */

static float *row_of(float *table, const rp_kge_trainer *t, int64_t row) { return table + row * t->o.dim; }
static int64_t relation_row(const rp_kge_trainer *t, int32_t relation) { return t->graph->n_entities + relation; }

/* Rows come from all over the tables, in no order that the processor could foresee: the next ones are asked for early.
 */
static void prefetch_row(const float *row, int64_t dim) {
    for (int64_t i = 0; i < dim; i += 16) __builtin_prefetch(row + i);
}

/* l2 times the squares of a right triple's row, n3 times the cubes of its absolute values. */
static double penalty(const rp_kge_trainer *t, const float *row) {
    double squares = 0, cubes = 0;
    for (int64_t i = 0; i < t->o.dim; i++) {
        double square = (double)row[i] * (double)row[i];
        squares += square;
        cubes += square * fabs((double)row[i]);
    }
    return t->o.l2 * squares + t->o.n3 * cubes;
}

/* Draws, scores and loss of the step's i-th triple; its dscore, divided by the batch, and dq. */
static void forward(rp_kge_trainer *t, int64_t i, int64_t triple, int64_t batch) {
    const rp_kge_options *o = &t->o;
    int64_t K = o->corruption.negatives, dim = o->dim;
    int32_t *candidate = t->candidate + i * (1 + K);
    double *score = t->score + i * (1 + K), *dscore = t->dscore + i * (1 + K);
    rp_query query = t->query[i] = rp_graph_corrupt(t->graph, &o->corruption, t->epoch, triple, candidate);
    const float *anchor = row_of(t->values, t, query.anchor);
    const float *relation = row_of(t->values, t, relation_row(t, query.relation));
    float *q = row_of(t->q, t, i), *dq = row_of(t->dq, t, i);
    rp_kge_query(o->model, query.side == RP_SIDE_HEAD, q, anchor, relation, dim);
    for (int64_t k = 0; k <= K; k++) {
        if (k + AHEAD <= K) prefetch_row(row_of(t->values, t, candidate[k + AHEAD]), dim);
        score[k] = rp_kge_score(o->model, q, row_of(t->values, t, candidate[k]), dim);
    }
    t->loss[i] = rp_kge_loss_forward(o->loss, o->model, o->margin, dscore, score, K);
    t->loss[i] += penalty(t, anchor) + penalty(t, relation) + penalty(t, row_of(t->values, t, query.answer));
    memset(dq, 0, (size_t)dim * sizeof *dq);
    for (int64_t k = 0; k <= K; k++) {
        dscore[k] /= (double)batch;
        if (dscore[k] == 0) continue;
        rp_kge_score_backward(o->model, dq, NULL, dscore[k], score[k], q, row_of(t->values, t, candidate[k]), dim);
    }
}

/* A row is added to by one thread alone, in the order of the triples. Rows are spread over parts by Fibonacci hashing,
 * which takes no division. */
static bool owns(const rp_kge_trainer *t, int64_t row, int64_t part) {
    uint32_t hash = (uint32_t)row * 2654435769u;
    return (int64_t)((uint64_t)hash * (uint64_t)t->o.num_threads >> 32) == part;
}

/* The gradient of a row, when it is this part's. */
static float *own_row(rp_kge_trainer *t, int64_t row, int64_t part) {
    if (!owns(t, row, part)) return NULL;
    t->touched[row] = 1;
    return row_of(t->grads, t, row);
}

static void add_penalty(const rp_kge_trainer *t, float *grad, int64_t row, int64_t batch) {
    const float *x = t->values + row * t->o.dim;
    float linear = (float)(2 * t->o.l2 / (double)batch), quadratic = (float)(3 * t->o.n3 / (double)batch);
    for (int64_t i = 0; i < t->o.dim; i++) grad[i] += (linear + quadratic * fabsf(x[i])) * x[i];
}

/* Adds what the step's i-th triple contributes to the rows of one part. */
static void backward(rp_kge_trainer *t, int64_t i, int64_t part, int64_t batch) {
    const rp_kge_options *o = &t->o;
    const rp_query *query = &t->query[i];
    int64_t K = o->corruption.negatives, relation = relation_row(t, query->relation);
    const int32_t *candidate = t->candidate + i * (1 + K);
    float *danchor = own_row(t, query->anchor, part), *drelation = own_row(t, relation, part), *dentity;
    if (danchor != NULL) add_penalty(t, danchor, query->anchor, batch);
    if (drelation != NULL) add_penalty(t, drelation, relation, batch);
    rp_kge_query_backward(o->model, query->side == RP_SIDE_HEAD, danchor, drelation, row_of(t->dq, t, i),
                          row_of(t->values, t, query->anchor), row_of(t->values, t, relation), o->dim);
    for (int64_t k = 0; k <= K; k++) {
        double dscore = t->dscore[i * (1 + K) + k];
        if (k + AHEAD <= K && owns(t, candidate[k + AHEAD], part)) {
            prefetch_row(row_of(t->grads, t, candidate[k + AHEAD]), o->dim);
            if (o->model != RP_KGE_DISTMULT) prefetch_row(row_of(t->values, t, candidate[k + AHEAD]), o->dim);
        }
        if ((k > 0 && dscore == 0) || (dentity = own_row(t, candidate[k], part)) == NULL) continue;
        rp_kge_score_backward(o->model, NULL, dentity, dscore, t->score[i * (1 + K) + k], row_of(t->q, t, i),
                              row_of(t->values, t, candidate[k]), o->dim);
        if (k == 0) add_penalty(t, dentity, candidate[0], batch);
    }
}

/* Whether the gradients' squares are finite, as Adagrad needs them. */
static int is_finite_row(const float *row, int64_t dim) {
    float sum = 0; /* not finite when one of them is not */
    for (int64_t i = 0; i < dim; i++) sum += row[i] * row[i] * 0;
    return sum == 0;
}

static void update_row(rp_kge_trainer *t, int64_t row) {
    float *value = row_of(t->values, t, row), *square = row_of(t->squares, t, row), rate = (float)t->o.learning_rate;
    const float *grad = row_of(t->grads, t, row);
    if (t->o.optimizer == RP_KGE_SGD)
        for (int64_t i = 0; i < t->o.dim; i++) value[i] -= rate * grad[i];
    else
        for (int64_t i = 0; i < t->o.dim; i++) {
            square[i] += grad[i] * grad[i];
            value[i] -= rate * grad[i] / (sqrtf(square[i]) + ADAGRAD_EPS);
        }
    if (t->o.normalize && row < t->graph->n_entities) normalize_row(value, t->o.dim);
}

/* Losses and gradients of the triples `first` .. `first + batch` of the epoch's order. */
static void compute(rp_kge_trainer *t, int64_t first, int64_t batch) {
    int64_t threads = t->o.num_threads;
#pragma omp parallel num_threads((int)threads)
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static)
        for (int64_t row = 0; row < t->rows; row++) {
            if (!t->touched[row]) continue;
            memset(row_of(t->grads, t, row), 0, (size_t)t->o.dim * sizeof(float));
            t->touched[row] = 0;
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < batch; i++) forward(t, i, t->order[first + i], batch);
#pragma omp for schedule(static)
        for (int64_t part = 0; part < threads; part++)
            for (int64_t i = 0; i < batch; i++) backward(t, i, part, batch);
        rp_threads_restore(mode);
    }
}

static void apply(rp_kge_trainer *t) {
#pragma omp parallel num_threads((int)t->o.num_threads)
    {
        uint32_t mode = rp_threads_flush_denormals();
#pragma omp for schedule(static)
        for (int64_t row = 0; row < t->rows; row++)
            if (t->touched[row]) update_row(t, row);
        rp_threads_restore(mode);
    }
}

static rp_status check_step(const rp_kge_trainer *t, double loss) {
    int finite = isfinite(loss);
#pragma omp parallel for schedule(static) num_threads((int)t->o.num_threads) reduction(&& : finite)
    for (int64_t row = 0; row < t->rows; row++)
        finite = finite && (!t->touched[row] || is_finite_row(t->grads + row * t->o.dim, t->o.dim));
    if (finite) return RP_OK;
    return rp_fail(RP_STATUS_NUMERIC,
                   "the loss is %g or its gradient not finite: this step is refused and the embeddings are unchanged; "
                   "lower the learning rate",
                   loss);
}

rp_status rp_kge_trainer_step(rp_kge_trainer *t, int64_t epoch, int64_t step, bool update, double *loss) {
    RP_TRY(rp_threads_check_pid(t->pid));
    if (epoch < 0 || epoch > UINT32_MAX || step < 0 || step >= rp_kge_trainer_steps(t))
        return rp_fail(RP_STATUS_VALUE, "step %" PRId64 " of epoch %" PRId64 "; expected 0 .. %" PRId64 " from epoch 0",
                       step, epoch, rp_kge_trainer_steps(t) - 1);
    if (epoch != t->epoch) rp_graph_shuffle(t->graph, t->o.corruption.seed, epoch, t->order);
    t->epoch = epoch;
    int64_t first = step * t->o.batch, batch = t->graph->n - first < t->o.batch ? t->graph->n - first : t->o.batch;
    compute(t, first, batch);
    *loss = 0;
    for (int64_t i = 0; i < batch; i++) *loss += t->loss[i] / (double)batch;
    RP_TRY(check_step(t, *loss));
    if (update) apply(t);
    return RP_OK;
}
