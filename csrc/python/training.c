#include "training.h"

#include <stdio.h>

#include "array.h"
#include "errors.h"
#include "fields.h"
#include "handles.h"
#include "sampling.h"

typedef struct trainer_object {
    PyObject_HEAD rp_trainer *trainer;
    PyObject *parts; /* a tuple, which keeps models and vectors */
    int networks;
    relpt_model *model[RP_JOIN_PARTS]; /* (networks) references */
} trainer_object;

/* -- options --------------------------------------------------------------------------------------------- */

static int parse_contrastive(PyObject *dict, rp_contrastive_options *o) {
    int64_t similarity;
    if (relpt_field_integer(dict, "similarity", &similarity) < 0) return -1;
    o->similarity = (rp_similarity)similarity;
    if (relpt_field_number(dict, "temperature", &o->temperature) < 0) return -1;
    if (relpt_field_flag(dict, "symmetric", &o->symmetric) < 0) return -1;
    if (relpt_field_flag(dict, "mask_same_group", &o->mask_same_group) < 0) return -1;
    if (relpt_field_flag(dict, "by_entities", &o->by_entities) < 0) return -1;
    return relpt_field_flag(dict, "supervised", &o->supervised);
}

static int parse_match(PyObject *dict, rp_match_options *o) {
    int64_t similarity;
    if (relpt_field_integer(dict, "similarity", &similarity) < 0) return -1;
    o->similarity = (rp_similarity)similarity;
    if (relpt_field_number(dict, "temperature", &o->temperature) < 0) return -1;
    return relpt_field_number(dict, "threshold", &o->threshold);
}

static int parse_classify(PyObject *dict, rp_classify_options *o) {
    if (relpt_field_integer(dict, "classes", &o->classes) < 0) return -1;
    if (relpt_field_number(dict, "label_smoothing", &o->smoothing) < 0) return -1;
    return relpt_field_number(dict, "dropout", &o->dropout);
}

static int parse_boundary(PyObject *dict, rp_boundary_options *o) {
    return relpt_field_integer(dict, "position_size", &o->position_size);
}

static int parse_prototypes(PyObject *dict, rp_prototypes_options *o) {
    int64_t similarity;
    if (relpt_field_integer(dict, "similarity", &similarity) < 0) return -1;
    o->similarity = (rp_similarity)similarity;
    if (relpt_field_number(dict, "temperature", &o->temperature) < 0) return -1;
    if (relpt_field_integer(dict, "n_way", &o->n_way) < 0) return -1;
    if (relpt_field_integer(dict, "k_shot", &o->k_shot) < 0) return -1;
    return relpt_field_integer(dict, "n_query", &o->n_query);
}

/* dict[name] as relpt_array_data has it; the dict, which owns the array, outlives the use. */
static const void *field_array(PyObject *dict, const char *name, relpt_dtype dtype, int ndim, int64_t *dims) {
    PyObject *array = relpt_field(dict, name);
    const void *data = array == NULL ? NULL : relpt_array_data(array, name, dtype, ndim, dims);
    Py_XDECREF(array);
    return data;
}

static int parse_alignment(PyObject *dict, rp_alignment_options *o) {
    int64_t shape[2] = {-1, -1};
    o->classes = -1;
    if (relpt_field_number(dict, "temperature", &o->temperature) < 0) return -1;
    o->graph = field_array(dict, "graph", RELPT_FLOAT32, 2, shape);
    if (o->graph == NULL) return -1;
    o->relations = shape[0];
    o->size = shape[1];
    o->relation_of = field_array(dict, "relation_of", RELPT_INT32, 1, &o->classes);
    return o->relation_of == NULL ? -1 : 0;
}

static int parse_bags(PyObject *dict, rp_bags_options *o) {
    static const char *const poolings[] = {"attention", "one", "mean", NULL}; /* rp_pooling */
    int pooling;
    if (relpt_field_choice(dict, "pooling", poolings, &pooling) < 0) return -1;
    o->pooling = (rp_pooling)pooling;
    return parse_classify(dict, &o->classify);
}

static int parse_domain(PyObject *dict, rp_domain_options *o) {
    if (relpt_field_integer(dict, "hidden", &o->hidden) < 0) return -1;
    if (relpt_field_number(dict, "dropout", &o->dropout) < 0) return -1;
    if (relpt_field_number(dict, "reversal", &o->reversal) < 0) return -1;
    return relpt_field_integer(dict, "ramp_steps", &o->ramp_steps);
}

/* {"kind": …, "name": …, "weight": …, "first": …, "samples": …} and what its kind has besides. */
static int parse_objective(PyObject *dict, rp_objective_options *o) {
    static const char *const kinds[] = {"contrastive", "mlm",  "match",  "classify", "prototypes",
                                        "alignment",   "bags", "domain", "boundary", NULL}; /* rp_objective_kind */
    int kind;
    if (relpt_field_choice(dict, "kind", kinds, &kind) < 0) return -1;
    o->kind = (rp_objective_kind)kind;
    if (relpt_field_text(dict, "name", o->name, sizeof o->name) < 0) return -1;
    if (relpt_field_number(dict, "weight", &o->weight) < 0) return -1;
    if (relpt_field_integer(dict, "first", &o->first) < 0) return -1;
    if (relpt_field_integer(dict, "samples", &o->samples) < 0) return -1;
    switch (o->kind) {
    case RP_OBJECTIVE_CONTRASTIVE:
        return parse_contrastive(dict, &o->contrastive);
    case RP_OBJECTIVE_MATCH:
        return parse_match(dict, &o->match);
    case RP_OBJECTIVE_CLASSIFY:
        return parse_classify(dict, &o->classify);
    case RP_OBJECTIVE_PROTOTYPES:
        return parse_prototypes(dict, &o->prototypes);
    case RP_OBJECTIVE_ALIGNMENT:
        return parse_alignment(dict, &o->alignment);
    case RP_OBJECTIVE_BAGS:
        return parse_bags(dict, &o->bags);
    case RP_OBJECTIVE_DOMAIN:
        return parse_domain(dict, &o->domain);
    case RP_OBJECTIVE_BOUNDARY:
        return parse_boundary(dict, &o->boundary);
    default:
        return 0;
    }
}

static int parse_objectives(PyObject *list, rp_trainer_options *o) {
    Py_ssize_t size = PySequence_Size(list);
    if (size < 0) return -1;
    if (size > RP_OBJECTIVES) {
        PyErr_Format(PyExc_ValueError, "%zd objectives, expected at most %d", size, RP_OBJECTIVES);
        return -1;
    }
    o->objectives = size;
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *dict = PySequence_GetItem(list, i);
        int result = dict == NULL ? -1 : parse_objective(dict, &o->objective[i]);
        Py_XDECREF(dict);
        if (result < 0) return -1;
    }
    return 0;
}

/* A part: (Model, representation), or float32 vectors (rows, dim). */
static int parse_part(const relpt_state *state, PyObject *item, rp_join_part_options *o) {
    if (!PyTuple_Check(item)) {
        int64_t shape[2] = {-1, -1};
        o->fixed = relpt_array_data(item, "parts", RELPT_FLOAT32, 2, shape);
        o->rows = shape[0];
        o->dim = shape[1];
        return o->fixed == NULL ? -1 : 0;
    }
    PyObject *model_argument, *representation;
    if (!PyArg_ParseTuple(item, "OO:parts", &model_argument, &representation)) return -1;
    const relpt_model *model = relpt_model_of(state, model_argument);
    if (model == NULL) return -1;
    o->model = model->model;
    return relpt_parse_represent(representation, &o->represent);
}

/* The parts as a tuple, a new reference; NULL with an exception. */
static PyObject *parse_parts(const relpt_state *state, PyObject *argument, rp_join_options *o) {
    PyObject *parts = PySequence_Tuple(argument);
    if (parts == NULL) return NULL;
    o->parts = PyTuple_Size(parts);
    if (o->parts > RP_JOIN_PARTS) {
        PyErr_Format(PyExc_ValueError, "%lld parts, expected at most %d", (long long)o->parts, RP_JOIN_PARTS);
        Py_CLEAR(parts);
    }
    for (Py_ssize_t i = 0; parts != NULL && i < o->parts; i++)
        if (parse_part(state, PyTuple_GetItem(parts, i), &o->part[i]) < 0) Py_CLEAR(parts);
    return parts;
}

/* The options of a Trainer from keywords; the parts as a tuple, a new reference. */
static PyObject *trainer_options(const relpt_state *state, PyObject *args, PyObject *kwargs, rp_trainer_options *o) {
    static char *names[] = {"parts",
                            "objectives",
                            "beta1",
                            "beta2",
                            "eps",
                            "weight_decay",
                            "max_grad_norm",
                            "schedule",
                            "learning_rate",
                            "warmup_steps",
                            "max_steps",
                            "seed",
                            "samples",
                            "max_length",
                            "micro_samples",
                            "num_threads",
                            "hidden_dropout",
                            "attention_dropout",
                            "dtype",
                            "optimizer",
                            "momentum",
                            NULL};
    PyObject *parts, *objectives, *seed;
    int dtype = RP_FLOAT32, schedule, optimizer = RP_OPTIMIZER_ADAMW;
    long long warmup_steps, max_steps, samples, max_length, micro_samples, num_threads;
    *o = (rp_trainer_options){0};
    if (relpt_no_positionals(args, "Trainer") < 0) return NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOdddddidLLOLLLLdd|iid:Trainer", names, &parts, &objectives,
                                     &o->adamw.beta1, &o->adamw.beta2, &o->adamw.eps, &o->adamw.weight_decay,
                                     &o->adamw.max_grad_norm, &schedule, &o->learning_rate, &warmup_steps, &max_steps,
                                     &seed, &samples, &max_length, &micro_samples, &num_threads, &o->hidden_dropout,
                                     &o->attention_dropout, &dtype, &optimizer, &o->sgd.momentum))
        return NULL;
    o->dtype = (rp_dtype)dtype;
    o->optimizer = (rp_optimizer)optimizer;
    o->sgd.weight_decay = o->adamw.weight_decay;
    o->sgd.max_grad_norm = o->adamw.max_grad_norm;
    if (relpt_parse_u64(seed, "seed", &o->seed) < 0 || parse_objectives(objectives, o) < 0) return NULL;
    o->schedule = (rp_schedule_kind)schedule;
    o->warmup_steps = warmup_steps;
    o->max_steps = max_steps;
    o->samples = samples;
    o->max_length = max_length;
    o->micro_samples = micro_samples;
    o->num_threads = num_threads;
    return parse_parts(state, parts, &o->join);
}

/* -- life ------------------------------------------------------------------------------------------------ */

/* Takes over `parts` and holds their models. */
static PyObject *wrap_trainer(PyTypeObject *type, rp_trainer *trainer, PyObject *parts) {
    trainer_object *self = (trainer_object *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        rp_trainer_free(trainer);
        Py_DECREF(parts);
        return NULL;
    }
    self->trainer = trainer;
    self->parts = parts;
    for (Py_ssize_t i = 0; i < PyTuple_Size(parts); i++) {
        PyObject *part = PyTuple_GetItem(parts, i);
        if (PyTuple_Check(part)) self->model[self->networks++] = (relpt_model *)Py_NewRef(PyTuple_GetItem(part, 0));
    }
    return (PyObject *)self;
}

static PyObject *trainer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    const relpt_state *state = PyType_GetModuleState(type);
    rp_trainer_options options;
    PyObject *parts = trainer_options(state, args, kwargs, &options);
    if (parts == NULL) return NULL;
    rp_trainer *trainer = NULL;
    rp_status status;
    Py_BEGIN_ALLOW_THREADS status = rp_trainer_new(&trainer, &options, relpt_check_signals, NULL);
    Py_END_ALLOW_THREADS if (status == RP_OK) return wrap_trainer(type, trainer, parts);
    Py_DECREF(parts);
    return relpt_raise(state, status);
}

static PyObject *py_trainer_bytes(PyObject *module, PyObject *args, PyObject *kwargs) {
    const relpt_state *state = relpt_module_state(module);
    rp_trainer_options options;
    PyObject *parts = trainer_options(state, args, kwargs, &options);
    if (parts == NULL) return NULL;
    int64_t bytes;
    rp_status status = rp_trainer_bytes(&bytes, &options);
    Py_DECREF(parts);
    return status == RP_OK ? PyLong_FromLongLong(bytes) : relpt_raise(state, status);
}

static void trainer_dealloc(PyObject *object) {
    trainer_object *self = (trainer_object *)object;
    rp_trainer_free(self->trainer);
    for (int i = 0; i < self->networks; i++) Py_DECREF((PyObject *)self->model[i]);
    Py_XDECREF(self->parts);
    relpt_free_object(object);
}

static void release_models(const trainer_object *self) {
    for (int i = 0; i < self->networks; i++) relpt_model_release(self->model[i]);
}

/* Takes all models, or none: -1 with an exception. All trainers take them in one order, that of their places. */
static int take_models(const trainer_object *self, bool writes) {
    relpt_model *model[RP_JOIN_PARTS];
    for (int i = 0; i < self->networks; i++) {
        int at = i;
        for (; at > 0 && (uintptr_t)model[at - 1] > (uintptr_t)self->model[i]; at--) model[at] = model[at - 1];
        model[at] = self->model[i];
    }
    for (int i = 0; i < self->networks; i++)
        if (relpt_model_take(model[i], writes) < 0) {
            while (i-- > 0) relpt_model_release(model[i]);
            return -1;
        }
    return 0;
}

/* -- steps ----------------------------------------------------------------------------------------------- */

/* dict["prefix_name"] = value */
static int put_figure(PyObject *dict, const char *prefix, const char *name, double value) {
    char key[64];
    snprintf(key, sizeof key, "%s_%s", prefix, name);
    PyObject *number = PyFloat_FromDouble(value);
    int result = number == NULL ? -1 : PyDict_SetItemString(dict, key, number);
    Py_XDECREF(number);
    return result;
}

/* loss, loss_<name> of each objective, accuracy (of the first objective that has one), accuracy_<name> of the others,
 * and the step's own. */
static PyObject *stats_dict(const rp_trainer *trainer, const rp_step_stats *s) {
    int64_t count, first = -1;
    const rp_objective *objective = rp_trainer_objectives(trainer, &count);
    PyObject *dict = Py_BuildValue("{sd}", "loss", s->loss);
    for (int64_t i = 0; i < count && dict != NULL; i++) {
        if (first < 0 && rp_objective_has_accuracy(&objective[i])) first = i;
        if (put_figure(dict, "loss", objective[i].options.name, s->objective_loss[i]) < 0) Py_CLEAR(dict);
    }
    PyObject *rest = Py_BuildValue("{sdsdsdsLsLsLsLsL}", "accuracy", first < 0 ? 0.0 : s->objective_accuracy[first],
                                   "lr", s->lr, "grad_norm", s->grad_norm, "sentences", (long long)s->sentences,
                                   "tokens", (long long)s->tokens, "masked", (long long)s->masked, "truncated",
                                   (long long)s->truncated, "truncated_mentions", (long long)s->truncated_mentions);
    if (dict != NULL && (rest == NULL || PyDict_Update(dict, rest) < 0)) Py_CLEAR(dict);
    Py_XDECREF(rest);
    for (int64_t i = first + 1; i < count && dict != NULL; i++)
        if (rp_objective_has_accuracy(&objective[i]) &&
            put_figure(dict, "accuracy", objective[i].options.name, s->objective_accuracy[i]) < 0)
            Py_CLEAR(dict);
    return dict;
}

typedef rp_status (*step_function)(rp_trainer *, const rp_batch *const *, int64_t, rp_step_stats *);

/* The samplers of a step, one for each network; locked. */
typedef struct step_samplers {
    PyObject *objects; /* a tuple, a reference */
    int count;         /* that are locked */
    rp_sampler *sampler[RP_JOIN_PARTS];
} step_samplers;

static void unlock_samplers(step_samplers *s) {
    for (int i = 0; i < s->count; i++) relpt_sampler_unlock(PyTuple_GetItem(s->objects, i));
    Py_CLEAR(s->objects);
}

/* From a Sampler, or a list of `wanted`. */
static int lock_samplers(const relpt_state *state, PyObject *argument, int wanted, step_samplers *s) {
    bool several = PyTuple_Check(argument) || PyList_Check(argument);
    *s = (step_samplers){.objects = several ? PySequence_Tuple(argument) : PyTuple_Pack(1, argument)};
    if (s->objects == NULL) return -1;
    if (PyTuple_Size(s->objects) != wanted) {
        PyErr_Format(PyExc_ValueError, "%zd samplers for %d networks; give one for each", PyTuple_Size(s->objects),
                     wanted);
        return unlock_samplers(s), -1;
    }
    for (int i = 0; i < wanted; i++) {
        PyObject *object = PyTuple_GetItem(s->objects, i);
        s->sampler[i] = relpt_sampler_of(state, object, "sampler");
        if (s->sampler[i] == NULL || relpt_sampler_lock(object) < 0) return unlock_samplers(s), -1;
        s->count++;
    }
    return 0;
}

static rp_status sampled_step(step_function function, rp_trainer *trainer, step_samplers *samplers, int64_t step,
                              rp_step_stats *stats) {
    const rp_batch *batches[RP_JOIN_PARTS];
    for (int i = 0; i < samplers->count; i++) RP_TRY(rp_sampler_batch(samplers->sampler[i], step, &batches[i]));
    return function(trainer, batches, step, stats);
}

static PyObject *run_step(PyObject *object, PyObject *args, step_function function) {
    trainer_object *self = (trainer_object *)object;
    PyObject *argument;
    long long step;
    rp_step_stats stats;
    step_samplers samplers;
    if (!PyArg_ParseTuple(args, "OL", &argument, &step)) return NULL;
    if (lock_samplers(relpt_state_of(object), argument, self->networks, &samplers) < 0) return NULL;
    if (take_models(self, true) < 0) return unlock_samplers(&samplers), NULL;
    rp_status status;
    Py_BEGIN_ALLOW_THREADS status = sampled_step(function, self->trainer, &samplers, step, &stats);
    Py_END_ALLOW_THREADS release_models(self);
    unlock_samplers(&samplers);
    return status == RP_OK ? stats_dict(self->trainer, &stats) : relpt_raise(relpt_state_of(object), status);
}

static PyObject *trainer_step(PyObject *object, PyObject *args) { return run_step(object, args, rp_trainer_step); }
static PyObject *trainer_gradients(PyObject *object, PyObject *args) {
    return run_step(object, args, rp_trainer_gradients);
}

/* -- state ----------------------------------------------------------------------------------------------- */

static PyObject *trainer_heads(PyObject *object, PyObject *unused) {
    (void)unused;
    return relpt_params_list(rp_trainer_heads(((trainer_object *)object)->trainer));
}

/* Index and shape of the named parameter; NULL with KeyError, or ValueError where `which` is not from `least` on. */
static const rp_param *find_state(const trainer_object *self, int which, int least, const char *name, int64_t *index) {
    *index = rp_trainer_find(self->trainer, name);
    if (*index < 0) return PyErr_Format(PyExc_KeyError, "the model and the heads have no parameter %s", name), NULL;
    if (which < least || which > RP_STATE_VALUE)
        return PyErr_Format(PyExc_ValueError, "which is %d; expected %d to %d", which, least, RP_STATE_VALUE), NULL;
    return rp_trainer_param(self->trainer, *index);
}

static PyObject *trainer_get(PyObject *object, PyObject *args) {
    trainer_object *self = (trainer_object *)object;
    const char *name;
    int which;
    int64_t index, shape[2];
    if (!PyArg_ParseTuple(args, "is:get", &which, &name)) return NULL;
    const rp_param *param = find_state(self, which, RP_STATE_GRADIENT, name, &index);
    if (param == NULL) return NULL;
    void *data;
    PyObject *array = relpt_array_new(RELPT_FLOAT32, relpt_param_shape(param, shape), shape, &data);
    if (array == NULL) return NULL;
    if (take_models(self, false) < 0) return Py_DECREF(array), NULL;
    rp_status status = rp_trainer_get(self->trainer, (rp_state)which, index, data);
    release_models(self);
    if (status == RP_OK) return array;
    Py_DECREF(array);
    return relpt_raise(relpt_state_of(object), status);
}

static PyObject *trainer_set(PyObject *object, PyObject *args) {
    trainer_object *self = (trainer_object *)object;
    const char *name;
    int which;
    PyObject *array;
    int64_t index, shape[2];
    if (!PyArg_ParseTuple(args, "isO:set", &which, &name, &array)) return NULL;
    const rp_param *param = find_state(self, which, RP_STATE_MOMENT1, name, &index);
    if (param == NULL) return NULL;
    const float *data = relpt_array_data(array, name, RELPT_FLOAT32, relpt_param_shape(param, shape), shape);
    if (data == NULL || take_models(self, true) < 0) return NULL;
    rp_status status = rp_trainer_set(self->trainer, (rp_state)which, index, data);
    release_models(self);
    if (status != RP_OK) return relpt_raise(relpt_state_of(object), status);
    Py_RETURN_NONE;
}

/* -- the type -------------------------------------------------------------------------------------------- */

static PyMethodDef trainer_methods[] = {
    {"step", trainer_step, METH_VARARGS, "step(samplers, step): one update; a dict of the step's figures."},
    {"gradients", trainer_gradients, METH_VARARGS, "gradients(samplers, step): the same without the update."},
    {"heads", trainer_heads, METH_NOARGS, "Names and shapes of the objectives' own parameters."},
    {"get", trainer_get, METH_VARARGS,
     "get(which, name): 0 gradient, 1 first, 2 second moment, 3 value of a parameter."},
    {"set", trainer_set, METH_VARARGS, "set(which, name, array): writes a moment (1, 2) or a value (3)."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot trainer_slots[] = {
    {Py_tp_doc, (void *)"Training of Models by a sum of objectives: gradients, moments, heads and workspace."},
    {Py_tp_new, RELPT_SLOT(trainer_new)},
    {Py_tp_dealloc, RELPT_SLOT(trainer_dealloc)},
    {Py_tp_methods, trainer_methods},
    {0, NULL},
};
static PyType_Spec trainer_spec = {
    .name = "relpt._core.Trainer",
    .basicsize = sizeof(trainer_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = trainer_slots,
};

static PyMethodDef functions[] = {
    {"trainer_bytes", RELPT_KEYWORDS(py_trainer_bytes), METH_VARARGS | METH_KEYWORDS,
     "trainer_bytes(**options of Trainer): the bytes that a Trainer of these options takes."},
    {NULL, NULL, 0, NULL},
};

int relpt_add_trainer(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &trainer_spec, NULL);
    int result = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return result < 0 ? -1 : PyModule_AddFunctions(module, functions);
}
