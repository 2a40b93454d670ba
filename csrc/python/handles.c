#include "handles.h"

#include "array.h"
#include "data.h"
#include "errors.h"

/* -- shared ---------------------------------------------------------------------------------------------- */

int relpt_check_signals(void *context) {
    (void)context;
    PyGILState_STATE gil = PyGILState_Ensure();
    int raised = PyErr_CheckSignals();
    PyGILState_Release(gil);
    return raised;
}

int relpt_no_positionals(PyObject *args, const char *name) {
    if (PyTuple_Size(args) == 0) return 0;
    PyErr_Format(PyExc_TypeError, "%s takes keyword arguments only", name);
    return -1;
}

/* -- Model ----------------------------------------------------------------------------------------------- */

typedef relpt_model model_object;

/* A Model, which takes over the core's. */
static PyObject *wrap_model(PyTypeObject *type, rp_model *model) {
    model_object *self = (model_object *)PyType_GenericAlloc(type, 0);
    PyThread_type_lock lock = PyThread_allocate_lock();
    if (self == NULL || lock == NULL) {
        rp_model_free(model);
        if (lock != NULL) PyThread_free_lock(lock);
        Py_XDECREF((PyObject *)self);
        return self == NULL ? NULL : PyErr_NoMemory();
    }
    self->model = model;
    self->lock = lock;
    return (PyObject *)self;
}

static PyObject *model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"vocab_size",
                            "hidden_size",
                            "num_hidden_layers",
                            "num_attention_heads",
                            "intermediate_size",
                            "max_position_embeddings",
                            "type_vocab_size",
                            "layer_norm_eps",
                            "initializer_range",
                            "hidden_dropout_prob",
                            "attention_probs_dropout_prob",
                            "embedding_size",
                            "position_offset",
                            "embedding_projection",
                            "shared_layers",
                            "attended_dropout",
                            "feed_forward_dropout",
                            "backend",
                            "graph",
                            NULL};
    PyObject *graph = Py_None;
    const float *table = NULL;
    int64_t shape[2] = {-1, -1};
    long long n[9] = {0};
    int embedding_projection = 0, shared_layers = 0, attended_dropout = 1, feed_forward_dropout = 1;
    rp_config c = {0};
    const char *backend = "cpu";
    if (relpt_no_positionals(args, "Model") < 0) return NULL;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "LLLLLLLdddd|LLppppsO:Model", names, &n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6],
            &c.layer_norm_eps, &c.initializer_range, &c.hidden_dropout_prob, &c.attention_probs_dropout_prob, &n[7],
            &n[8], &embedding_projection, &shared_layers, &attended_dropout, &feed_forward_dropout, &backend, &graph))
        return NULL;
    if (graph != Py_None && (table = relpt_array_data(graph, "graph", RELPT_FLOAT32, 2, shape)) == NULL) return NULL;
    c.vocab_size = n[0];
    c.hidden_size = n[1];
    c.num_hidden_layers = n[2];
    c.num_attention_heads = n[3];
    c.intermediate_size = n[4];
    c.max_position_embeddings = n[5];
    c.type_vocab_size = n[6];
    c.embedding_size = n[7] == 0 ? c.hidden_size : n[7];
    c.position_offset = n[8];
    c.embedding_projection = embedding_projection;
    c.shared_layers = shared_layers;
    c.attended_dropout = attended_dropout;
    c.feed_forward_dropout = feed_forward_dropout;
    c.graph_size = table == NULL ? 0 : shape[1];
    rp_model *model = NULL;
    rp_status status = rp_model_new(&model, &c, backend);
    if (status == RP_OK && table != NULL && (status = rp_model_set_graph(model, table, shape[0])) != RP_OK)
        rp_model_free(model);
    if (status != RP_OK) return relpt_raise(PyType_GetModuleState(type), status);
    return wrap_model(type, model);
}

static PyObject *py_cnn_model(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"vocab_size", "word_size",  "max_distance",      "position_size", "pos_tags",
                            "pos_size",   "ner_tags",   "ner_size",          "window",        "hidden_size",
                            "piecewise",  "activation", "initializer_range", "backend",       NULL};
    const relpt_state *state = relpt_module_state(module);
    long long n[10];
    int piecewise, activation;
    rp_cnn_config c = {0};
    const char *backend = "cpu";
    if (relpt_no_positionals(args, "cnn_model") < 0) return NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "LLLLLLLLLLpid|s:cnn_model", names, &n[0], &n[1], &n[2], &n[3],
                                     &n[4], &n[5], &n[6], &n[7], &n[8], &n[9], &piecewise, &activation,
                                     &c.initializer_range, &backend))
        return NULL;
    c.vocab_size = n[0];
    c.word_size = n[1];
    c.max_distance = n[2];
    c.position_size = n[3];
    for (int k = 0; k < RP_TAGS; k++) {
        c.tag_count[k] = n[4 + 2 * k];
        c.tag_size[k] = n[5 + 2 * k];
    }
    c.window = n[8];
    c.hidden_size = n[9];
    c.piecewise = piecewise;
    c.activation = (rp_activation)activation;
    rp_model *model = NULL;
    rp_status status = rp_model_new_cnn(&model, &c, backend);
    if (status != RP_OK) return relpt_raise(state, status);
    return wrap_model((PyTypeObject *)state->model_type, model);
}

static void model_dealloc(PyObject *object) {
    model_object *self = (model_object *)object;
    rp_model_free(self->model);
    if (self->lock != NULL) PyThread_free_lock(self->lock);
    relpt_free_object(object);
}

static int busy(const char *who) {
    PyErr_Format(PyExc_RuntimeError, "busy: %s", who);
    return -1;
}

/* Waits for the lock with the GIL released; a signal's handler that raises, as Ctrl-C does, ends it. */
static int wait_for(PyThread_type_lock lock) {
    PyLockStatus found = PyThread_acquire_lock_timed(lock, 0, 0);
    while (found != PY_LOCK_ACQUIRED) {
        Py_BEGIN_ALLOW_THREADS found = PyThread_acquire_lock_timed(lock, -1, 1);
        Py_END_ALLOW_THREADS if (found == PY_LOCK_INTR && PyErr_CheckSignals() < 0) return -1;
    }
    return 0;
}

int relpt_model_take(relpt_model *self, bool writes) {
    unsigned long me = PyThread_get_thread_ident();
    if (self->taken && self->owner == me) return busy("this is called in the midst of a call on the same model");
    if (writes && self->writing) return busy("another thread is training this model");
    if (wait_for(self->lock) < 0) return -1;
    self->taken = true;
    self->writing = writes;
    self->owner = me;
    return 0;
}

void relpt_model_release(relpt_model *self) {
    self->taken = self->writing = false;
    PyThread_release_lock(self->lock);
}

relpt_model *relpt_model_of(const relpt_state *state, PyObject *object) {
    if (Py_TYPE(object) == (PyTypeObject *)state->model_type) return (model_object *)object;
    PyErr_Format(PyExc_TypeError, "model: expected a relpt._core.Model, got %R", (PyObject *)Py_TYPE(object));
    return NULL;
}

/* Index of the named parameter; -1 with KeyError. */
static int64_t param_index(const rp_model *model, const char *name) {
    int64_t index = rp_params_find(model->params, name);
    if (index < 0) PyErr_Format(PyExc_KeyError, "the model has no parameter %s", name);
    return index;
}

int relpt_param_shape(const rp_param *param, int64_t shape[2]) {
    shape[0] = param->rows;
    shape[1] = param->columns;
    return param->columns ? 2 : 1;
}

PyObject *relpt_params_list(const rp_params *params) {
    PyObject *list = PyList_New(0);
    for (int64_t i = 0; list != NULL && i < params->count; i++) {
        const rp_param *p = &params->table[i];
        PyObject *item = p->columns ? Py_BuildValue("s(LL)", p->name, (long long)p->rows, (long long)p->columns)
                                    : Py_BuildValue("s(L)", p->name, (long long)p->rows);
        if (item == NULL || PyList_Append(list, item) < 0) Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static PyObject *model_parameters(PyObject *object, PyObject *unused) {
    (void)unused;
    return relpt_params_list(((model_object *)object)->model->params);
}

static PyObject *model_get(PyObject *object, PyObject *args) {
    model_object *self = (model_object *)object;
    const char *name;
    if (!PyArg_ParseTuple(args, "s:get", &name)) return NULL;
    int64_t index = param_index(self->model, name), shape[2];
    if (index < 0) return NULL;
    void *data;
    PyObject *array =
        relpt_array_new(RELPT_FLOAT32, relpt_param_shape(&self->model->params->table[index], shape), shape, &data);
    if (array == NULL) return NULL;
    if (relpt_model_take(self, false) < 0) return Py_DECREF(array), NULL;
    rp_status status = rp_model_get(self->model, index, data);
    relpt_model_release(self);
    if (status == RP_OK) return array;
    Py_DECREF(array);
    return relpt_raise(relpt_state_of(object), status);
}

static PyObject *model_set(PyObject *object, PyObject *args) {
    model_object *self = (model_object *)object;
    const char *name;
    PyObject *array;
    if (!PyArg_ParseTuple(args, "sO:set", &name, &array)) return NULL;
    int64_t index = param_index(self->model, name), shape[2];
    if (index < 0) return NULL;
    int ndim = relpt_param_shape(&self->model->params->table[index], shape);
    const float *data = relpt_array_data(array, name, RELPT_FLOAT32, ndim, shape);
    if (data == NULL || relpt_model_take(self, true) < 0) return NULL;
    rp_status status = rp_model_set(self->model, index, data);
    relpt_model_release(self);
    if (status != RP_OK) return relpt_raise(relpt_state_of(object), status);
    Py_RETURN_NONE;
}

static PyObject *model_init(PyObject *object, PyObject *args) {
    model_object *self = (model_object *)object;
    const char *name;
    PyObject *seed_object;
    uint64_t seed;
    if (!PyArg_ParseTuple(args, "sO:init", &name, &seed_object)) return NULL;
    if (relpt_parse_u64(seed_object, "seed", &seed) < 0) return NULL;
    int64_t index = param_index(self->model, name);
    if (index < 0 || relpt_model_take(self, true) < 0) return NULL;
    rp_status status = rp_model_init(self->model, index, seed);
    relpt_model_release(self);
    if (status != RP_OK) return relpt_raise(relpt_state_of(object), status);
    Py_RETURN_NONE;
}

static PyObject *model_backend(PyObject *object, void *unused) {
    (void)unused;
    return PyUnicode_FromString(((model_object *)object)->model->dev->ops->name);
}

static PyObject *model_busy(PyObject *object, void *unused) {
    (void)unused;
    return PyBool_FromLong(((model_object *)object)->taken);
}

static PyMethodDef model_methods[] = {
    {"parameters", model_parameters, METH_NOARGS, "Names and shapes of all parameters, in the order of the table."},
    {"get", model_get, METH_VARARGS, "get(name): a copy of a parameter, float32."},
    {"set", model_set, METH_VARARGS, "set(name, array): writes a parameter; float32 of its shape."},
    {"init", model_init, METH_VARARGS, "init(name, seed): writes a parameter's initial value."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef model_getset[] = {{"backend", model_backend, NULL, "The back end's name.", NULL},
                                     {"busy", model_busy, NULL, "Whether a call reads or writes it just now.", NULL},
                                     {0}};
static PyType_Slot model_slots[] = {
    {Py_tp_doc, (void *)"An encoder with an MLM head, or a CNN: configuration and weights on a device."},
    {Py_tp_new, RELPT_SLOT(model_new)},
    {Py_tp_dealloc, RELPT_SLOT(model_dealloc)},
    {Py_tp_methods, model_methods},
    {Py_tp_getset, model_getset},
    {0, NULL},
};
static PyType_Spec model_spec = {
    .name = "relpt._core.Model",
    .basicsize = sizeof(model_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = model_slots,
};

int relpt_parse_represent(PyObject *object, rp_represent *out) {
    Py_ssize_t size = PySequence_Size(object);
    if (size < 0) return -1;
    if (size < 1 || size > RP_PARTS) {
        PyErr_Format(PyExc_ValueError, "representation has %zd parts; expected 1 to %d", size, RP_PARTS);
        return -1;
    }
    out->parts = size;
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *item = PySequence_GetItem(object, i);
        int32_t part;
        int failed = item == NULL || relpt_parse_i32(item, "representation", &part) < 0;
        Py_XDECREF(item);
        if (failed) return -1;
        if (part < 0 || part >= RP_PARTS) {
            PyErr_Format(PyExc_ValueError, "representation: part %d; expected 0 to %d", (int)part, RP_PARTS - 1);
            return -1;
        }
        out->part[i] = (rp_part)part;
    }
    return 0;
}

/* -- EncodeRun ------------------------------------------------------------------------------------------- */

typedef struct run_object {
    PyObject_HEAD rp_encode_run *run;
    model_object *model; /* a reference */
} run_object;

static PyObject *run_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"model", "max_sequences", "max_tokens", "num_threads", "dtype", NULL};
    const relpt_state *state = PyType_GetModuleState(type);
    PyObject *model_argument;
    long long max_sequences, max_tokens, num_threads;
    int dtype = RP_FLOAT32;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OLLL|i:EncodeRun", names, &model_argument, &max_sequences,
                                     &max_tokens, &num_threads, &dtype))
        return NULL;
    model_object *model = relpt_model_of(state, model_argument);
    if (model == NULL) return NULL;
    rp_encode_run *run = NULL;
    rp_status status = rp_encode_run_new(&run, model->model, max_sequences, max_tokens, num_threads, (rp_dtype)dtype,
                                         relpt_check_signals, NULL);
    if (status != RP_OK) return relpt_raise(state, status);
    run_object *self = (run_object *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        rp_encode_run_free(run);
        return NULL;
    }
    self->run = run;
    self->model = (model_object *)Py_NewRef(model_argument);
    return (PyObject *)self;
}

static void run_dealloc(PyObject *object) {
    run_object *self = (run_object *)object;
    rp_encode_run_free(self->run);
    Py_XDECREF((PyObject *)self->model);
    relpt_free_object(object);
}

typedef struct rows_task {
    rp_represent spec;
    const rp_corpus *corpus;
    rp_tokens tokens;
    const int64_t *rows;
    int64_t n, max_length;
    rp_input input;
} rows_task;

static PyObject *run_rows(PyObject *object, PyObject *args) {
    run_object *self = (run_object *)object;
    const relpt_state *state = relpt_state_of(object);
    PyObject *corpus, *tokens, *rows, *representation, *kept;
    rows_task t = {.n = -1};
    int input;
    long long max_length;
    if (!PyArg_ParseTuple(args, "OOOiLO:rows", &corpus, &tokens, &rows, &input, &max_length, &representation))
        return NULL;
    t.input = (rp_input)input;
    t.max_length = max_length;
    if ((t.corpus = relpt_corpus_of(state, corpus, "corpus")) == NULL) return NULL;
    if ((t.rows = relpt_array_data(rows, "rows", RELPT_INT64, 1, &t.n)) == NULL) return NULL;
    if (relpt_parse_represent(representation, &t.spec) < 0 || relpt_tokens_parse(tokens, &t.tokens, &kept) < 0)
        return NULL;
    int64_t shape[2] = {t.n, rp_network_dim(self->model->model->params, &t.spec)};
    void *out;
    PyObject *vectors = relpt_array_new(RELPT_FLOAT32, 2, shape, &out);
    rp_encode_counts counts = {0};
    rp_status status = RP_OK;
    if (vectors != NULL && relpt_model_take(self->model, false) < 0) Py_CLEAR(vectors);
    if (vectors != NULL) {
        Py_BEGIN_ALLOW_THREADS status =
            rp_encode_rows(self->run, &t.spec, out, &counts, t.corpus, &t.tokens, t.rows, t.n, t.input, t.max_length);
        Py_END_ALLOW_THREADS relpt_model_release(self->model);
    }
    Py_DECREF(kept);
    if (status != RP_OK) {
        Py_DECREF(vectors);
        return relpt_raise(state, status);
    }
    if (vectors == NULL) return NULL;
    return Py_BuildValue("N(LLL)", vectors, (long long)counts.tokens, (long long)counts.truncated,
                         (long long)counts.truncated_mentions);
}

static PyObject *run_ids(PyObject *object, PyObject *args) {
    run_object *self = (run_object *)object;
    PyObject *ids_argument, *lengths_argument;
    int64_t T = -1, ends = -1;
    if (!PyArg_ParseTuple(args, "OO:ids", &ids_argument, &lengths_argument)) return NULL;
    const int32_t *ids = relpt_array_data(ids_argument, "ids", RELPT_INT32, 1, &T);
    if (ids == NULL) return NULL;
    const int32_t *cu_seqlens = relpt_array_data(lengths_argument, "cu_seqlens", RELPT_INT32, 1, &ends);
    if (cu_seqlens == NULL) return NULL;
    if (ends < 2 || cu_seqlens[ends - 1] != T) {
        PyErr_Format(PyExc_ValueError,
                     "cu_seqlens: %lld sequences for %lld ids; expected at least one, and the last to end with the ids",
                     (long long)(ends > 0 ? ends - 1 : 0), (long long)T);
        return NULL;
    }
    int64_t shape[2] = {T, self->model->model->params->config.hidden_size};
    void *out;
    PyObject *hidden = relpt_array_new(RELPT_FLOAT32, 2, shape, &out);
    if (hidden == NULL) return NULL;
    rp_status status;
    if (relpt_model_take(self->model, false) < 0) return Py_DECREF(hidden), NULL;
    Py_BEGIN_ALLOW_THREADS status = rp_encode_ids(self->run, out, ids, cu_seqlens, ends - 1);
    Py_END_ALLOW_THREADS relpt_model_release(self->model);
    if (status == RP_OK) return hidden;
    Py_DECREF(hidden);
    return relpt_raise(relpt_state_of(object), status);
}

static PyMethodDef run_methods[] = {
    {"rows", run_rows, METH_VARARGS,
     "rows(corpus, tokens, rows, input, max_length, representation): vectors float32 (n, dim), and the counts (tokens, "
     "truncated, truncated_mentions)."},
    {"ids", run_ids, METH_VARARGS, "ids(ids, cu_seqlens): hidden states float32 (T, H) of packed sequences."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot run_slots[] = {
    {Py_tp_doc, (void *)"EncodeRun(model, max_sequences, max_tokens, num_threads, dtype=0): a workspace that encodes, "
                        "in batches of at most max_sequences sequences and max_tokens tokens."},
    {Py_tp_new, RELPT_SLOT(run_new)},
    {Py_tp_dealloc, RELPT_SLOT(run_dealloc)},
    {Py_tp_methods, run_methods},
    {0, NULL},
};
static PyType_Spec run_spec = {
    .name = "relpt._core.EncodeRun",
    .basicsize = sizeof(run_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = run_slots,
};

/* -- what this machine has ------------------------------------------------------------------------------- */

static PyObject *py_cpu_info(PyObject *module, PyObject *unused) {
    static const char *const names[] = {"cpu/baseline", "cpu/avx2", "cpu/avx512", "cpu/amx"};
    (void)module;
    (void)unused;
    PyObject *levels = PyList_New(0);
    for (size_t i = 0; levels != NULL && i < sizeof names / sizeof *names; i++) {
        if (rp_ops_find(names[i]) == NULL) continue;
        PyObject *name = PyUnicode_FromString(names[i] + 4);
        if (name == NULL || PyList_Append(levels, name) < 0) Py_CLEAR(levels);
        Py_XDECREF(name);
    }
    if (levels == NULL) return NULL;
    const rp_ops *ops = rp_ops_find("cpu");
    return Py_BuildValue("{sNszszsNsN}", "levels", levels, "level", ops ? ops->name + 4 : NULL, "problem",
                         ops ? NULL : rp_message(), "bfloat16",
                         PyBool_FromLong(ops != NULL && rp_ops_has(ops, RP_BFLOAT16)), "int8",
                         PyBool_FromLong(ops != NULL && rp_ops_has(ops, RP_INT8)));
}

static PyObject *py_add_backend(PyObject *module, PyObject *capsule) {
    const rp_backend *backend = PyCapsule_GetPointer(capsule, "relpt.backend");
    if (backend == NULL) return NULL;
    rp_status status = rp_ops_register(backend);
    if (status != RP_OK) return relpt_raise(relpt_module_state(module), status);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"add_backend", py_add_backend, METH_O,
     "add_backend(capsule): makes a back end of another extension, as relpt._cuda.backend is, known by its name."},
    {"cnn_model", RELPT_KEYWORDS(py_cnn_model), METH_VARARGS | METH_KEYWORDS,
     "cnn_model(**configuration of csrc/cnn.h): a Model that is a CNN."},
    {"cpu_info", py_cpu_info, METH_NOARGS,
     "CPU levels of this build that run here, the one chosen, and whether it has bfloat16 and int8."},
    {NULL, NULL, 0, NULL},
};

static PyObject *add_type(PyObject *module, PyType_Spec *spec) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0) Py_CLEAR(type);
    return type;
}

int relpt_add_model_types(PyObject *module) {
    relpt_state *state = relpt_module_state(module);
    if ((state->model_type = add_type(module, &model_spec)) == NULL) return -1;
    PyObject *run_type = add_type(module, &run_spec);
    if (run_type == NULL) return -1;
    Py_DECREF(run_type);
    return PyModule_AddFunctions(module, functions);
}
