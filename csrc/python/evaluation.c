#include "evaluation.h"

#include <stdint.h>

#include "array.h"
#include "errors.h"
#include "relpt.h"

typedef struct episode_args {
    const int32_t *labels; /* (n) */
    int64_t n;
    long long n_classes, n_way, k_shot, n_query;
    double nota_rate;
    uint64_t seed;
} episode_args;

static rp_status make_episodes(const episode_args *a, rp_episodes **out) {
    return rp_episodes_new(out, a->labels, a->n, a->n_classes, a->n_way, a->k_shot, a->n_query, a->nota_rate, a->seed);
}

static rp_status score(const episode_args *a, double *accuracy, const float *vectors, int64_t dim, int64_t count,
                       rp_similarity similarity, int64_t num_threads) {
    rp_episodes *episodes;
    RP_TRY(rp_threads_begin(num_threads));
    RP_TRY(make_episodes(a, &episodes));
    rp_status status = rp_fewshot_score(accuracy, episodes, vectors, dim, count, similarity, num_threads);
    rp_episodes_free(episodes);
    return status;
}

static PyObject *py_fewshot_score(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"vectors",  "labels",     "n_classes", "n_way",       "k_shot", "n_query",
                            "episodes", "similarity", "seed",      "num_threads", NULL};
    PyObject *vectors, *labels, *seed;
    episode_args a = {0};
    long long episodes, num_threads;
    int similarity;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOLLLLLiOL:fewshot_score", names, &vectors, &labels, &a.n_classes,
                                     &a.n_way, &a.k_shot, &a.n_query, &episodes, &similarity, &seed, &num_threads))
        return NULL;
    int64_t shape[2] = {-1, -1}, count = episodes < 0 ? 0 : episodes;
    const float *table = relpt_array_data(vectors, "vectors", RELPT_FLOAT32, 2, shape);
    if (table == NULL || (a.labels = relpt_array_data(labels, "labels", RELPT_INT32, 1, &shape[0])) == NULL)
        return NULL;
    if (relpt_parse_u64(seed, "seed", &a.seed) < 0) return NULL;
    a.n = shape[0];
    void *accuracy;
    PyObject *result = relpt_array_new(RELPT_FLOAT64, 1, &count, &accuracy);
    if (result == NULL) return NULL;
    const relpt_state *state = relpt_module_state(module);
    rp_status status;
    Py_BEGIN_ALLOW_THREADS status =
        score(&a, accuracy, table, shape[1], episodes, (rp_similarity)similarity, num_threads);
    Py_END_ALLOW_THREADS if (status == RP_OK) return result;
    Py_DECREF(result);
    return relpt_raise(state, status);
}

/* What fewshot_answers asks of the core. */
typedef struct answer_args {
    const float *vectors; /* (n, dim) */
    int64_t n, dim;
    rp_fewshot_rows rows;
    rp_similarity similarity;
    int64_t num_threads;
} answer_args;

static int parse_answer(PyObject *args, PyObject *kwargs, answer_args *a) {
    static char *names[] = {"vectors", "support", "query", "similarity", "num_threads", NULL};
    PyObject *vectors, *support, *query;
    long long num_threads;
    int similarity;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOiL:fewshot_answers", names, &vectors, &support, &query,
                                     &similarity, &num_threads))
        return -1;
    int64_t table[2] = {-1, -1}, shots[3] = {-1, -1, -1}, queries[2] = {-1, -1};
    if ((a->vectors = relpt_array_data(vectors, "vectors", RELPT_FLOAT32, 2, table)) == NULL) return -1;
    if ((a->rows.support = relpt_array_data(support, "support", RELPT_INT64, 3, shots)) == NULL) return -1;
    queries[0] = shots[0];
    if ((a->rows.query = relpt_array_data(query, "query", RELPT_INT64, 2, queries)) == NULL) return -1;
    a->n = table[0];
    a->dim = table[1];
    a->rows.count = shots[0];
    a->rows.n_way = shots[1];
    a->rows.k_shot = shots[2];
    a->rows.n_query = queries[1];
    a->similarity = (rp_similarity)similarity;
    a->num_threads = num_threads;
    return 0;
}

static rp_status answer(const answer_args *a, const rp_fewshot_answers *out) {
    RP_TRY(rp_threads_begin(a->num_threads));
    return rp_fewshot_answer(out, &a->rows, a->vectors, a->n, a->dim, a->similarity, a->num_threads);
}

static PyObject *py_fewshot_answers(PyObject *module, PyObject *args, PyObject *kwargs) {
    const relpt_state *state = relpt_module_state(module);
    answer_args a;
    if (parse_answer(args, kwargs, &a) < 0) return NULL;
    const int64_t shape[] = {a.rows.count, a.rows.n_query};
    void *way_data = NULL, *similarity_data = NULL, *margin_data = NULL;
    PyObject *way = relpt_array_new(RELPT_INT32, 2, shape, &way_data);
    PyObject *similarity = way == NULL ? NULL : relpt_array_new(RELPT_FLOAT64, 2, shape, &similarity_data);
    PyObject *margin = similarity == NULL ? NULL : relpt_array_new(RELPT_FLOAT64, 2, shape, &margin_data);
    PyObject *result = margin == NULL ? NULL : PyTuple_Pack(3, way, similarity, margin);
    if (result != NULL) {
        const rp_fewshot_answers out = {way_data, similarity_data, margin_data};
        rp_status status;
        Py_BEGIN_ALLOW_THREADS status = answer(&a, &out);
        Py_END_ALLOW_THREADS if (status != RP_OK) {
            Py_CLEAR(result);
            relpt_raise(state, status);
        }
    }
    Py_XDECREF(way);
    Py_XDECREF(similarity);
    Py_XDECREF(margin);
    return result;
}

static rp_status draw(const episode_args *a, int64_t *support, int64_t *query, int64_t first, int64_t count) {
    rp_episodes *episodes;
    RP_TRY(make_episodes(a, &episodes));
    for (int64_t i = 0; i < count; i++)
        rp_episodes_draw(episodes, first + i, support + i * a->n_way * a->k_shot, query + i * a->n_way * a->n_query);
    rp_episodes_free(episodes);
    return RP_OK;
}

/* The arguments of draw_episodes; -1 with an exception. Sizes are checked here only so far that the arrays can be made.
 */
static int parse_draw(PyObject *args, PyObject *kwargs, episode_args *a, long long *first, long long *count) {
    static char *names[] = {"labels", "n_classes", "n_way", "k_shot",    "n_query",
                            "seed",   "first",     "count", "nota_rate", NULL};
    PyObject *labels, *seed;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OLLLLOLL|d:draw_episodes", names, &labels, &a->n_classes, &a->n_way,
                                     &a->k_shot, &a->n_query, &seed, first, count, &a->nota_rate))
        return -1;
    a->n = -1;
    if ((a->labels = relpt_array_data(labels, "labels", RELPT_INT32, 1, &a->n)) == NULL) return -1;
    if (relpt_parse_u64(seed, "seed", &a->seed) < 0) return -1;
    if (*first >= 0 && *count >= 0 && *first <= INT64_MAX - *count) return 0;
    PyErr_Format(PyExc_ValueError, "first is %lld and count %lld; expected at least 0", *first, *count);
    return -1;
}

static PyObject *py_draw_episodes(PyObject *module, PyObject *args, PyObject *kwargs) {
    const relpt_state *state = relpt_module_state(module);
    episode_args a = {0};
    long long first, count;
    rp_episodes *episodes = NULL;
    if (parse_draw(args, kwargs, &a, &first, &count) < 0) return NULL;
    rp_status status = make_episodes(&a, &episodes); /* refuses sizes before arrays of them are made */
    rp_episodes_free(episodes);
    if (status != RP_OK) return relpt_raise(state, status);
    const int64_t support_shape[] = {count, a.n_way, a.k_shot}, query_shape[] = {count, a.n_way, a.n_query};
    void *support_data = NULL, *query_data = NULL;
    PyObject *support = relpt_array_new(RELPT_INT64, 3, support_shape, &support_data);
    PyObject *query = support == NULL ? NULL : relpt_array_new(RELPT_INT64, 3, query_shape, &query_data);
    PyObject *result = query == NULL ? NULL : PyTuple_Pack(2, support, query);
    if (result != NULL) {
        Py_BEGIN_ALLOW_THREADS status = draw(&a, support_data, query_data, first, count);
        Py_END_ALLOW_THREADS if (status != RP_OK) {
            Py_CLEAR(result);
            relpt_raise(state, status);
        }
    }
    Py_XDECREF(support);
    Py_XDECREF(query);
    return result;
}

PyDoc_STRVAR(
    fewshot_score_doc,
    "fewshot_score(vectors, labels, n_classes, n_way, k_shot, n_query, episodes, similarity, seed, num_threads)\n"
    "--\n\nThe share of right queries of each episode, float64 (episodes).");
PyDoc_STRVAR(fewshot_answers_doc,
             "fewshot_answers(vectors, support, query, similarity, num_threads)\n--\n\n"
             "Of each query the most similar way int32, its similarity float64, its margin over the next float64.");
PyDoc_STRVAR(draw_episodes_doc,
             "draw_episodes(labels, n_classes, n_way, k_shot, n_query, seed, first, count, nota_rate=0.0)\n--\n\n"
             "Rows of the episodes: support int64 (count, n_way, k_shot), query int64 (count, n_way, n_query).");

static PyMethodDef evaluation_functions[] = {
    {"fewshot_score", RELPT_KEYWORDS(py_fewshot_score), METH_VARARGS | METH_KEYWORDS, fewshot_score_doc},
    {"fewshot_answers", RELPT_KEYWORDS(py_fewshot_answers), METH_VARARGS | METH_KEYWORDS, fewshot_answers_doc},
    {"draw_episodes", RELPT_KEYWORDS(py_draw_episodes), METH_VARARGS | METH_KEYWORDS, draw_episodes_doc},
    {NULL, NULL, 0, NULL},
};

int relpt_add_evaluation(PyObject *module) { return PyModule_AddFunctions(module, evaluation_functions); }
