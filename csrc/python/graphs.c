#include "graphs.h"

#include <pythread.h>

#include "array.h"
#include "errors.h"

/* -- Graph ----------------------------------------------------------------------------------------------- */

typedef struct graph_object {
    PyObject_HEAD rp_graph *graph;
} graph_object;

static PyObject *graph_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"triples", "n_entities", "n_relations", NULL};
    PyObject *triples;
    long long n_entities, n_relations;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OLL:Graph", names, &triples, &n_entities, &n_relations))
        return NULL;
    int64_t shape[2] = {-1, 3};
    const int32_t *data = relpt_array_data(triples, "triples", RELPT_INT32, 2, shape);
    if (data == NULL) return NULL;
    rp_graph *graph = NULL;
    rp_status status;
    Py_BEGIN_ALLOW_THREADS status = rp_graph_new(&graph, data, shape[0], n_entities, n_relations);
    Py_END_ALLOW_THREADS if (status != RP_OK) return relpt_raise(PyType_GetModuleState(type), status);
    graph_object *self = (graph_object *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        rp_graph_free(graph);
        return NULL;
    }
    self->graph = graph;
    return (PyObject *)self;
}

static void graph_dealloc(PyObject *object) {
    rp_graph_free(((graph_object *)object)->graph);
    relpt_free_object(object);
}

static Py_ssize_t graph_length(PyObject *object) { return (Py_ssize_t)((graph_object *)object)->graph->n; }

static graph_object *graph_of(const relpt_state *state, PyObject *object, const char *name) {
    if (Py_TYPE(object) == (PyTypeObject *)state->graph_type) return (graph_object *)object;
    PyErr_Format(PyExc_TypeError, "%s: expected a relpt._core.Graph, got %R", name, (PyObject *)Py_TYPE(object));
    return NULL;
}

static PyObject *graph_answers(PyObject *object, PyObject *args) {
    const rp_graph *graph = ((graph_object *)object)->graph;
    int side, anchor, relation;
    if (!PyArg_ParseTuple(args, "iii:answers", &side, &anchor, &relation)) return NULL;
    if (side < 0 || side > 1 || anchor < 0 || anchor >= graph->n_entities || relation < 0 ||
        relation >= graph->n_relations)
        return PyErr_Format(PyExc_ValueError, "no query with side %d, entity %d and relation %d", side, anchor,
                            relation);
    rp_query query = {.side = (rp_side)side, .anchor = anchor, .relation = relation};
    int64_t count;
    const int32_t *answers = rp_graph_answers(graph, &query, &count);
    return relpt_array_copy(RELPT_INT32, 1, &count, answers);
}

static PyObject *graph_corrupt(PyObject *object, PyObject *args) {
    const rp_graph *graph = ((graph_object *)object)->graph;
    rp_corruption o = {0};
    PyObject *seed;
    int bernoulli, filtered;
    long long negatives, epoch, i;
    if (!PyArg_ParseTuple(args, "OLppLL:corrupt", &seed, &negatives, &bernoulli, &filtered, &epoch, &i)) return NULL;
    if (relpt_parse_u64(seed, "seed", &o.seed) < 0) return NULL;
    o.negatives = negatives;
    o.bernoulli = bernoulli;
    o.filtered = filtered;
    rp_status status = rp_graph_check_corruption(graph, &o);
    if (status != RP_OK) return relpt_raise(relpt_state_of(object), status);
    if (i < 0 || i >= graph->n) return PyErr_Format(PyExc_ValueError, "triple %lld of %lld", i, (long long)graph->n);
    void *data;
    int64_t count = 1 + o.negatives;
    PyObject *candidates = relpt_array_new(RELPT_INT32, 1, &count, &data);
    if (candidates == NULL) return NULL;
    rp_query query = rp_graph_corrupt(graph, &o, epoch, i, data);
    return Py_BuildValue("iN", (int)query.side, candidates);
}

static PyMethodDef graph_methods[] = {
    {"answers", graph_answers, METH_VARARGS,
     "answers(side, entity, relation): the known heads (side 0) or tails (1), ascending."},
    {"corrupt", graph_corrupt, METH_VARARGS,
     "corrupt(seed, negatives, bernoulli, filtered, epoch, i): the side asked for, and the right and wrong answers."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot graph_slots[] = {
    {Py_tp_doc, (void *)"Graph(triples, n_entities, n_relations)\n--\n\nTriples (n, 3) of numbers, and their index."},
    {Py_tp_new, RELPT_SLOT(graph_new)},
    {Py_tp_dealloc, RELPT_SLOT(graph_dealloc)},
    {Py_tp_methods, graph_methods},
    {Py_sq_length, RELPT_SLOT(graph_length)},
    {0, NULL},
};
static PyType_Spec graph_spec = {
    .name = "relpt._core.Graph",
    .basicsize = sizeof(graph_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = graph_slots,
};

/* -- GraphTrainer ---------------------------------------------------------------------------------------- */

typedef struct trainer_object {
    PyObject_HEAD rp_kge_trainer *trainer;
    graph_object *graph;
    PyThread_type_lock lock; /* held by the call that reads or writes the values */
} trainer_object;

static graph_object *parse_options(const relpt_state *state, PyObject *args, PyObject *kwargs, rp_kge_options *o) {
    static char *names[] = {"graph",     "model",         "loss",  "optimizer", "normalize", "bernoulli",
                            "filtered",  "margin",        "l2",    "n3",        "dim",       "num_threads",
                            "negatives", "learning_rate", "batch", "seed",      NULL};
    PyObject *graph, *seed;
    int model, loss, optimizer, normalize, bernoulli, filtered;
    long long dim, num_threads, negatives, batch;
    *o = (rp_kge_options){0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$OiiipppdddLLLdLO:GraphTrainer", names, &graph, &model, &loss,
                                     &optimizer, &normalize, &bernoulli, &filtered, &o->margin, &o->l2, &o->n3, &dim,
                                     &num_threads, &negatives, &o->learning_rate, &batch, &seed))
        return NULL;
    if (relpt_parse_u64(seed, "seed", &o->corruption.seed) < 0) return NULL;
    o->model = (rp_kge_model)model;
    o->loss = (rp_kge_loss)loss;
    o->optimizer = (rp_kge_optimizer)optimizer;
    o->normalize = normalize;
    o->corruption.bernoulli = bernoulli;
    o->corruption.filtered = filtered;
    o->corruption.negatives = negatives;
    o->dim = dim;
    o->num_threads = num_threads;
    o->batch = batch;
    return graph_of(state, graph, "graph");
}

static PyObject *trainer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    const relpt_state *state = PyType_GetModuleState(type);
    rp_kge_options options;
    graph_object *graph = parse_options(state, args, kwargs, &options);
    if (graph == NULL) return NULL;
    rp_kge_trainer *trainer = NULL;
    rp_status status;
    Py_BEGIN_ALLOW_THREADS status = rp_kge_trainer_new(&trainer, graph->graph, &options);
    Py_END_ALLOW_THREADS if (status != RP_OK) return relpt_raise(state, status);
    PyThread_type_lock lock = PyThread_allocate_lock();
    trainer_object *self = lock == NULL ? NULL : (trainer_object *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        rp_kge_trainer_free(trainer);
        if (lock == NULL) return PyErr_NoMemory();
        PyThread_free_lock(lock);
        return NULL;
    }
    self->trainer = trainer;
    self->lock = lock;
    self->graph = (graph_object *)Py_NewRef((PyObject *)graph);
    return (PyObject *)self;
}

static void trainer_dealloc(PyObject *object) {
    trainer_object *self = (trainer_object *)object;
    rp_kge_trainer_free(self->trainer);
    Py_XDECREF((PyObject *)self->graph);
    if (self->lock != NULL) PyThread_free_lock(self->lock);
    relpt_free_object(object);
}

static int trainer_lock(trainer_object *self) {
    if (PyThread_acquire_lock(self->lock, NOWAIT_LOCK)) return 0;
    PyErr_SetString(PyExc_RuntimeError, "busy: another thread is training these embeddings");
    return -1;
}

static PyObject *run_step(PyObject *object, PyObject *args, bool update) {
    trainer_object *self = (trainer_object *)object;
    long long epoch, step;
    double loss;
    rp_status status;
    if (!PyArg_ParseTuple(args, "LL", &epoch, &step) || trainer_lock(self) < 0) return NULL;
    Py_BEGIN_ALLOW_THREADS status = rp_kge_trainer_step(self->trainer, epoch, step, update, &loss);
    Py_END_ALLOW_THREADS PyThread_release_lock(self->lock);
    return status == RP_OK ? PyFloat_FromDouble(loss) : relpt_raise(relpt_state_of(object), status);
}

static PyObject *trainer_step(PyObject *object, PyObject *args) { return run_step(object, args, true); }
static PyObject *trainer_loss(PyObject *object, PyObject *args) { return run_step(object, args, false); }

/* The shapes of the entities' and of the relations' rows. */
static void table_shapes(const trainer_object *self, int64_t entities[2], int64_t relations[2]) {
    entities[0] = self->graph->graph->n_entities;
    relations[0] = self->graph->graph->n_relations;
    entities[1] = relations[1] = rp_kge_trainer_dim(self->trainer);
}

static PyObject *copy_tables(PyObject *object, const float *(*table)(const rp_kge_trainer *)) {
    trainer_object *self = (trainer_object *)object;
    int64_t entities[2], relations[2];
    table_shapes(self, entities, relations);
    if (trainer_lock(self) < 0) return NULL;
    const float *rows = table(self->trainer);
    PyObject *first = relpt_array_copy(RELPT_FLOAT32, 2, entities, rows);
    PyObject *second = relpt_array_copy(RELPT_FLOAT32, 2, relations, rows + entities[0] * entities[1]);
    PyThread_release_lock(self->lock);
    if (first != NULL && second != NULL) return Py_BuildValue("NN", first, second);
    Py_XDECREF(first);
    Py_XDECREF(second);
    return NULL;
}

static PyObject *trainer_values(PyObject *object, PyObject *unused) {
    (void)unused;
    return copy_tables(object, rp_kge_trainer_values);
}

static PyObject *trainer_gradients(PyObject *object, PyObject *unused) {
    (void)unused;
    return copy_tables(object, rp_kge_trainer_gradients);
}

static PyObject *trainer_set(PyObject *object, PyObject *args) {
    trainer_object *self = (trainer_object *)object;
    PyObject *arrays[2];
    int64_t entities[2], relations[2];
    if (!PyArg_ParseTuple(args, "OO:set", &arrays[0], &arrays[1])) return NULL;
    table_shapes(self, entities, relations);
    const float *first = relpt_array_data(arrays[0], "entities", RELPT_FLOAT32, 2, entities);
    if (first == NULL) return NULL;
    const float *second = relpt_array_data(arrays[1], "relations", RELPT_FLOAT32, 2, relations);
    if (second == NULL || trainer_lock(self) < 0) return NULL;
    rp_kge_trainer_set(self->trainer, first, second);
    PyThread_release_lock(self->lock);
    Py_RETURN_NONE;
}

static PyObject *trainer_steps(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(rp_kge_trainer_steps(((trainer_object *)object)->trainer));
}

static PyMethodDef trainer_methods[] = {
    {"step", trainer_step, METH_VARARGS, "step(epoch, step): one update; the loss before it."},
    {"loss", trainer_loss, METH_VARARGS, "loss(epoch, step): the same without the update."},
    {"values", trainer_values, METH_NOARGS, "values(): copies of the embeddings of entities and of relations."},
    {"gradients", trainer_gradients, METH_NOARGS, "gradients(): copies of the last step's gradients of both."},
    {"set", trainer_set, METH_VARARGS, "set(entities, relations): writes the embeddings."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef trainer_properties[] = {
    {"steps", trainer_steps, NULL, "Steps of an epoch.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot trainer_slots[] = {
    {Py_tp_doc, (void *)"Training of a Graph's embeddings: values, gradients and workspace."},
    {Py_tp_new, RELPT_SLOT(trainer_new)},
    {Py_tp_dealloc, RELPT_SLOT(trainer_dealloc)},
    {Py_tp_methods, trainer_methods},
    {Py_tp_getset, trainer_properties},
    {0, NULL},
};
static PyType_Spec trainer_spec = {
    .name = "relpt._core.GraphTrainer",
    .basicsize = sizeof(trainer_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = trainer_slots,
};

/* -- link prediction ------------------------------------------------------------------------------------- */

/* The embeddings and triples that both functions take; NULL with an exception. */
static const int32_t *parse_tables(int model, PyObject *const arrays[3], rp_embeddings *e, int64_t *n) {
    int64_t entities[2] = {-1, -1}, relations[2] = {-1, -1}, triples[2] = {-1, 3};
    if ((e->entity = relpt_array_data(arrays[0], "entities", RELPT_FLOAT32, 2, entities)) == NULL) return NULL;
    relations[1] = entities[1];
    if ((e->relation = relpt_array_data(arrays[1], "relations", RELPT_FLOAT32, 2, relations)) == NULL) return NULL;
    const int32_t *triple = relpt_array_data(arrays[2], "triples", RELPT_INT32, 2, triples);
    e->model = (rp_kge_model)model;
    e->n_entities = entities[0];
    e->n_relations = relations[0];
    e->dim = entities[1];
    *n = triples[0];
    return triple;
}

static PyObject *py_graph_scores(PyObject *module, PyObject *args) {
    const relpt_state *state = relpt_module_state(module);
    PyObject *arrays[3];
    int model;
    long long num_threads;
    rp_embeddings e;
    int64_t n;
    if (!PyArg_ParseTuple(args, "iOOOL:graph_scores", &model, &arrays[0], &arrays[1], &arrays[2], &num_threads))
        return NULL;
    const int32_t *triple = parse_tables(model, arrays, &e, &n);
    if (triple == NULL) return NULL;
    void *score;
    PyObject *result = relpt_array_new(RELPT_FLOAT64, 1, &n, &score);
    rp_status status = rp_threads_begin(num_threads);
    if (result != NULL && status == RP_OK) {
        Py_BEGIN_ALLOW_THREADS status = rp_link_scores(score, &e, triple, n, num_threads);
        Py_END_ALLOW_THREADS
    }
    if (result == NULL || status == RP_OK) return result;
    Py_DECREF(result);
    return relpt_raise(state, status);
}

static PyObject *py_graph_ranks(PyObject *module, PyObject *args) {
    const relpt_state *state = relpt_module_state(module);
    PyObject *arrays[3], *known_argument;
    int model;
    long long num_threads;
    rp_embeddings e;
    int64_t n;
    if (!PyArg_ParseTuple(args, "iOOOOL:graph_ranks", &model, &arrays[0], &arrays[1], &arrays[2], &known_argument,
                          &num_threads))
        return NULL;
    graph_object *known = graph_of(state, known_argument, "known");
    const int32_t *triple = known == NULL ? NULL : parse_tables(model, arrays, &e, &n);
    if (triple == NULL) return NULL;
    const int64_t shape[2] = {n, 2};
    void *raw_data = NULL, *filtered_data = NULL;
    PyObject *raw = relpt_array_new(RELPT_FLOAT64, 2, shape, &raw_data);
    PyObject *filtered = raw == NULL ? NULL : relpt_array_new(RELPT_FLOAT64, 2, shape, &filtered_data);
    rp_status status = rp_threads_begin(num_threads);
    if (filtered != NULL && status == RP_OK) {
        Py_BEGIN_ALLOW_THREADS status =
            rp_link_ranks(raw_data, filtered_data, &e, triple, n, known->graph, num_threads);
        Py_END_ALLOW_THREADS
    }
    if (filtered != NULL && status == RP_OK) return Py_BuildValue("NN", raw, filtered);
    if (filtered != NULL) relpt_raise(state, status);
    Py_XDECREF(raw);
    Py_XDECREF(filtered);
    return NULL;
}

static PyMethodDef functions[] = {
    {"graph_scores", py_graph_scores, METH_VARARGS,
     "graph_scores(model, entities, relations, triples, num_threads, /)\n--\n\nScores of triples, float64 (n)."},
    {"graph_ranks", py_graph_ranks, METH_VARARGS,
     "graph_ranks(model, entities, relations, triples, known, num_threads, /)\n--\n\n"
     "Ranks of heads and tails, float64 (n, 2): raw, and without the other known answers."},
    {NULL, NULL, 0, NULL},
};

int relpt_add_graphs(PyObject *module) {
    relpt_state *state = relpt_module_state(module);
    state->graph_type = PyType_FromModuleAndSpec(module, &graph_spec, NULL);
    if (state->graph_type == NULL || PyModule_AddType(module, (PyTypeObject *)state->graph_type) < 0) return -1;
    PyObject *trainer = PyType_FromModuleAndSpec(module, &trainer_spec, NULL);
    if (trainer == NULL) return -1;
    int added = PyModule_AddType(module, (PyTypeObject *)trainer);
    Py_DECREF(trainer);
    return added < 0 ? -1 : PyModule_AddFunctions(module, functions);
}
