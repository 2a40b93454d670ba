#include "fewshot.h"

#include <inttypes.h>
#include <math.h>

#include "arena.h"
#include "lanes.h"
#include "threads.h"

/* What one thread works in. All sums are in double, in one order: they do not depend on the number of threads. */
typedef struct scratch {
    double *prototypes; /* (n_way, dim) */
    double *query;      /* (dim) */
    int64_t *support;   /* (n_way, k_shot) rows of an episode drawn here */
    int64_t *queries;   /* (n_way, n_query) rows of an episode drawn here */
} scratch;

typedef struct task {
    void (*episode)(const scratch *s, const struct task *t, int64_t i);
    const float *vectors; /* (n, dim) */
    int64_t n, dim, n_way, k_shot;
    rp_similarity similarity;
    const rp_episodes *episodes; /* of rp_fewshot_score; n_query queries a way */
    double *accuracy;
    const rp_fewshot_rows *rows; /* of rp_fewshot_answer */
    const rp_fewshot_answers *answers;
} task;

static void take_scratch(scratch *s, rp_arena *arena, const task *t) {
    size_t way = (size_t)t->n_way, dim = (size_t)t->dim;
    s->prototypes = rp_arena_take(arena, way, dim * sizeof(double));
    s->query = rp_arena_take(arena, dim, sizeof(double));
    if (t->episodes == NULL) return;
    s->support = rp_arena_take(arena, way, (size_t)t->k_shot * sizeof(int64_t));
    s->queries = rp_arena_take(arena, way, (size_t)t->episodes->n_query * sizeof(int64_t));
}

static double squared_distance(const double *a, const double *b, int64_t n) {
    double lane[RP_LANES] = {0};
    int64_t i = 0;
    for (; i + RP_LANES <= n; i += RP_LANES)
        for (int j = 0; j < RP_LANES; j++) lane[j] += (a[i + j] - b[i + j]) * (a[i + j] - b[i + j]);
    for (; i < n; i++) lane[0] += (a[i] - b[i]) * (a[i] - b[i]);
    return rp_lanes_sum(lane);
}

/* out(dim) = mean of the rows' vectors; for the cosine divided by its norm. */
static void make_prototype(double *out, const task *t, const int64_t *rows) {
    int64_t shots = t->k_shot, dim = t->dim;
    const float *first = t->vectors + rows[0] * dim;
    for (int64_t i = 0; i < dim; i++) out[i] = first[i];
    for (int64_t k = 1; k < shots; k++) {
        const float *vector = t->vectors + rows[k] * dim;
        for (int64_t i = 0; i < dim; i++) out[i] += vector[i];
    }
    double scale = 1 / (double)shots;
    if (t->similarity == RP_SIMILARITY_COSINE) { /* the mean's factor cancels against its norm */
        double norm = sqrt(rp_lanes_dot(out, out, dim));
        scale = 1 / (norm > 1e-12 ? norm : 1e-12);
    }
    if (scale != 1)
        for (int64_t i = 0; i < dim; i++) out[i] *= scale;
}

static void make_prototypes(const scratch *s, const task *t, const int64_t *support) {
    for (int64_t w = 0; w < t->n_way; w++) make_prototype(s->prototypes + w * t->dim, t, support + w * t->k_shot);
}

typedef struct answer {
    int64_t way;
    double similarity, runner_up; /* to the best and the second best prototype, the same where there is one */
} answer;

/* The way whose prototype is the most similar to the row's vector, which is left in s->query. The query's norm is left
 * out of the cosine: it is the same for all ways. */
static answer nearest_way(const scratch *s, const task *t, int64_t row) {
    const float *vector = t->vectors + row * t->dim;
    for (int64_t i = 0; i < t->dim; i++) s->query[i] = vector[i];
    answer best = {0};
    for (int64_t w = 0; w < t->n_way; w++) {
        const double *prototype = s->prototypes + w * t->dim;
        double similarity = t->similarity == RP_SIMILARITY_EUCLIDEAN ? -squared_distance(s->query, prototype, t->dim)
                                                                     : rp_lanes_dot(s->query, prototype, t->dim);
        if (w == 0)
            best = (answer){0, similarity, similarity};
        else if (similarity > best.similarity)
            best = (answer){w, similarity, best.similarity};
        else if (w == 1 || similarity > best.runner_up)
            best.runner_up = similarity;
    }
    return best;
}

static void score_episode(const scratch *s, const task *t, int64_t i) {
    int64_t ways = t->n_way, queries = t->episodes->n_query, right = 0;
    rp_episodes_draw(t->episodes, i, s->support, s->queries);
    make_prototypes(s, t, s->support);
    for (int64_t w = 0; w < ways; w++)
        for (int64_t q = 0; q < queries; q++) right += nearest_way(s, t, s->queries[w * queries + q]).way == w;
    t->accuracy[i] = (double)right / (double)(ways * queries);
}

static void answer_episode(const scratch *s, const task *t, int64_t i) {
    const rp_fewshot_rows *rows = t->rows;
    make_prototypes(s, t, rows->support + i * t->n_way * t->k_shot);
    for (int64_t q = i * rows->n_query; q < (i + 1) * rows->n_query; q++) {
        answer best = nearest_way(s, t, rows->query[q]);
        double scale = 1;
        if (t->similarity == RP_SIMILARITY_COSINE) {
            double norm = sqrt(rp_lanes_dot(s->query, s->query, t->dim));
            scale = 1 / (norm > 1e-12 ? norm : 1e-12);
        }
        t->answers->way[q] = (int32_t)best.way;
        t->answers->similarity[q] = best.similarity * scale;
        t->answers->margin[q] = (best.similarity - best.runner_up) * scale;
    }
}

static rp_status check_task(const task *t, int64_t count, int64_t num_threads) {
    if (t->dim < 1 || t->dim > INT32_MAX)
        return rp_fail(RP_STATUS_VALUE, "vectors have %" PRId64 " columns; expected at least 1", t->dim);
    if (count < 0) return rp_fail(RP_STATUS_VALUE, "episodes is %" PRId64 "; expected at least 0", count);
    if (num_threads < 1 || num_threads > 4096)
        return rp_fail(RP_STATUS_VALUE, "num_threads is %" PRId64 "; expected 1 .. 4096", num_threads);
    if ((int)t->similarity < RP_SIMILARITY_DOT || (int)t->similarity > RP_SIMILARITY_EUCLIDEAN)
        return rp_fail(RP_STATUS_VALUE, "similarity is %d; expected 0 (dot), 1 (cosine) or 2 (euclidean)",
                       (int)t->similarity);
    for (int64_t row = 0; row < t->n; row++)
        for (int64_t i = 0; i < t->dim; i++)
            if (!isfinite(t->vectors[row * t->dim + i]))
                return rp_fail(RP_STATUS_NUMERIC,
                               "vectors[%" PRId64 ", %" PRId64 "] is not finite: no similarity can be taken", row, i);
    return RP_OK;
}

static rp_status run(const task *t, int64_t count, int64_t num_threads) {
    RP_TRY(check_task(t, count, num_threads));
    if (num_threads > count) num_threads = count > 0 ? count : 1;
    scratch counted;
    rp_arena arena = {0};
    take_scratch(&counted, &arena, t);
    RP_TRY(rp_arena_check(&arena));
    size_t bytes, each = arena.used;
    RP_TRY(rp_checked_mul(&bytes, each, (size_t)num_threads, "scratch of the episodes"));
    char *memory = rp_aligned_alloc(bytes);
    if (memory == NULL) return rp_fail(RP_STATUS_MEMORY, "no memory for scoring episodes (%zu bytes)", bytes);
#pragma omp parallel num_threads((int)num_threads)
    {
        scratch mine;
        rp_arena own = {.base = memory + (size_t)omp_get_thread_num() * each, .capacity = each};
        take_scratch(&mine, &own, t);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; i++) t->episode(&mine, t, i);
    }
    rp_aligned_free(memory);
    return RP_OK;
}

rp_status rp_fewshot_score(double *accuracy, const rp_episodes *episodes, const float *vectors, int64_t dim,
                           int64_t count, rp_similarity similarity, int64_t num_threads) {
    const task t = {.episode = score_episode,
                    .vectors = vectors,
                    .n = episodes->n,
                    .dim = dim,
                    .n_way = episodes->n_way,
                    .k_shot = episodes->k_shot,
                    .similarity = similarity,
                    .episodes = episodes,
                    .accuracy = accuracy};
    return run(&t, count, num_threads);
}

static rp_status check_rows(const int64_t *rows, int64_t count, int64_t n, const char *name) {
    for (int64_t i = 0; i < count; i++)
        if (rows[i] < 0 || rows[i] >= n)
            return rp_fail(RP_STATUS_VALUE,
                           "%s holds %" PRId64 " as its number %" PRId64
                           "; expected rows of the vectors, 0 .. %" PRId64,
                           name, rows[i], i, n - 1);
    return RP_OK;
}

rp_status rp_fewshot_answer(const rp_fewshot_answers *out, const rp_fewshot_rows *rows, const float *vectors, int64_t n,
                            int64_t dim, rp_similarity similarity, int64_t num_threads) {
    if (rows->n_way < 1 || rows->n_way > INT32_MAX || rows->k_shot < 1)
        return rp_fail(RP_STATUS_VALUE,
                       "support has %" PRId64 " ways of %" PRId64 " shots; expected at least 1 of each", rows->n_way,
                       rows->k_shot);
    RP_TRY(check_rows(rows->support, rows->count * rows->n_way * rows->k_shot, n, "support"));
    RP_TRY(check_rows(rows->query, rows->count * rows->n_query, n, "query"));
    const task t = {.episode = answer_episode,
                    .vectors = vectors,
                    .n = n,
                    .dim = dim,
                    .n_way = rows->n_way,
                    .k_shot = rows->k_shot,
                    .similarity = similarity,
                    .rows = rows,
                    .answers = out};
    return run(&t, rows->count, num_threads);
}
