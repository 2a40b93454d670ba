#include "sampling.h"

#include <limits.h>
#include <stdbool.h>

#include "array.h"
#include "data.h"
#include "errors.h"
#include "fields.h"

typedef struct sampler_object {
    PyObject_HEAD rp_sampler *sampler;
    PyObject *corpus[2], *tokens[2]; /* what the sampler borrows: the run's, the target's or NULL */
    int busy;                        /* read and written with the GIL held */
} sampler_object;

static int parse_source(PyObject *dict, rp_source_options *o) {
    static const char *const kinds[] = {
        "relations", "entities", "instances", "episodes",
        "bags",      "target",   NULL}; /* rp_source_kind, and instances of the target */
    int kind;
    if (relpt_field_choice(dict, "kind", kinds, &kind) < 0) return -1;
    o->target = kind == RP_SOURCE_KINDS;
    o->kind = o->target ? RP_SOURCE_INSTANCES : (rp_source_kind)kind;
    if (relpt_field_integer(dict, "count", &o->count) < 0) return -1;
    if (o->kind == RP_SOURCE_RELATIONS) {
        if (relpt_field_number(dict, "relation_exponent", &o->relation_exponent) < 0) return -1;
        if (relpt_field_flag(dict, "distinct_relations", &o->distinct_relations) < 0) return -1;
        return relpt_field_integer(dict, "pairs_per_relation", &o->pairs_per_relation);
    }
    if (o->target) return 0;
    if (o->kind == RP_SOURCE_INSTANCES) return relpt_field_flag(dict, "whole_epochs", &o->whole_epochs);
    if (o->kind == RP_SOURCE_EPISODES) {
        if (relpt_field_integer(dict, "n_way", &o->n_way) < 0) return -1;
        if (relpt_field_integer(dict, "k_shot", &o->k_shot) < 0) return -1;
        return relpt_field_integer(dict, "n_query", &o->n_query);
    }
    if (o->kind == RP_SOURCE_BAGS) return relpt_field_integer(dict, "bag_size", &o->bag_size);
    if (relpt_field_number(dict, "positive_share", &o->positive_share) < 0) return -1;
    return relpt_field_number(dict, "hard_share", &o->hard_share);
}

static int parse_sources(PyObject *list, rp_sampler_options *o) {
    Py_ssize_t size = PySequence_Size(list);
    if (size < 0) return -1;
    if (size > RP_SOURCES) {
        PyErr_Format(PyExc_ValueError, "%zd sources; expected at most %d", size, RP_SOURCES);
        return -1;
    }
    o->sources = size;
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *dict = PySequence_GetItem(list, i);
        int result = dict == NULL ? -1 : parse_source(dict, &o->source[i]);
        Py_XDECREF(dict);
        if (result < 0) return -1;
    }
    return 0;
}

/* None: no spans. */
static int parse_spans(PyObject *dict, rp_span_masking *o) {
    if (dict == NULL || dict == Py_None) return 0;
    if (relpt_field_number(dict, "mention_probability", &o->mention_probability) < 0) return -1;
    if (relpt_field_number(dict, "relation_probability", &o->relation_probability) < 0) return -1;
    if (relpt_field_number(dict, "length_p", &o->length_p) < 0) return -1;
    return relpt_field_integer(dict, "longest", &o->longest);
}

/* What Python gives, borrowed: corpus and tokens of the run's text, and of the target's or NULL. */
typedef struct given {
    PyObject *corpus[2], *tokens[2];
} given;

/* The options from keywords; -1 with an exception. */
static int sampler_options(PyObject *args, PyObject *kwargs, rp_sampler_options *o, given *g) {
    static char *names[] = {"corpus",        "tokens",          "sources",      "seed",     "max_length",
                            "p_blank",       "mlm_probability", "input_weight", "prefetch", "role_blanks",
                            "graph_dropout", "target",          "spans",        NULL};
    PyObject *sources = NULL, *seed = NULL, *input_weight = NULL, *spans = NULL;
    long long max_length = LLONG_MIN; /* not given */
    int prefetch = 1, role_blanks = 0;
    *o = (rp_sampler_options){.p_blank = 0.7, .mlm_probability = 0.15, .input_weight = {1}};
    *g = (given){{NULL}, {NULL}};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$OOLddOppd(OO)O:Sampler", names, &g->corpus[0], &g->tokens[0],
                                     &sources, &seed, &max_length, &o->p_blank, &o->mlm_probability, &input_weight,
                                     &prefetch, &role_blanks, &o->graph_dropout, &g->corpus[1], &g->tokens[1], &spans))
        return -1;
    if (sources == NULL || seed == NULL || max_length == LLONG_MIN) {
        PyErr_SetString(PyExc_TypeError, "Sampler() needs the keywords sources, seed and max_length");
        return -1;
    }
    o->max_length = max_length;
    o->prefetch = prefetch;
    o->role_blanks = role_blanks;
    if (parse_sources(sources, o) < 0 || parse_spans(spans, &o->spans) < 0) return -1;
    if (input_weight != NULL && relpt_parse_doubles(input_weight, "input_weight", o->input_weight, 5) < 0) return -1;
    return relpt_parse_u64(seed, "seed", &o->seed);
}

/* The sampler of what is given; kept: new references to what its tokens borrow. NULL with an exception. */
static rp_sampler *make_sampler(const relpt_state *state, const rp_sampler_options *options, const given *g,
                                PyObject *kept[2]) {
    rp_text text[2] = {{NULL, NULL}, {NULL, NULL}};
    rp_tokens ids[2];
    for (int i = 0; i < 2 && g->corpus[i] != NULL; i++) {
        text[i] = (rp_text){relpt_corpus_of(state, g->corpus[i], i == 0 ? "corpus" : "target[0]"), &ids[i]};
        if (text[i].corpus == NULL || relpt_tokens_parse(g->tokens[i], &ids[i], &kept[i]) < 0) return NULL;
    }
    rp_sampler *sampler = NULL;
    const rp_text *target = text[1].corpus == NULL ? NULL : &text[1];
    rp_status status;
    Py_BEGIN_ALLOW_THREADS status = rp_sampler_new(&sampler, text[0].corpus, &ids[0], target, options);
    Py_END_ALLOW_THREADS if (status != RP_OK) relpt_raise(state, status);
    return sampler;
}

static PyObject *sampler_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    rp_sampler_options options;
    given g;
    PyObject *kept[2] = {NULL, NULL};
    if (sampler_options(args, kwargs, &options, &g) < 0) return NULL;
    rp_sampler *sampler = make_sampler(PyType_GetModuleState(type), &options, &g, kept);
    sampler_object *self = sampler != NULL ? (sampler_object *)PyType_GenericAlloc(type, 0) : NULL;
    if (self == NULL) {
        rp_sampler_free(sampler);
        for (int i = 0; i < 2; i++) Py_XDECREF(kept[i]);
        return NULL;
    }
    self->sampler = sampler;
    for (int i = 0; i < 2; i++) {
        self->corpus[i] = Py_XNewRef(g.corpus[i]);
        self->tokens[i] = kept[i];
    }
    return (PyObject *)self;
}

static void sampler_dealloc(PyObject *object) {
    sampler_object *self = (sampler_object *)object;
    PyObject_GC_UnTrack(object);
    rp_sampler_free(self->sampler); /* before what it borrows */
    for (int i = 0; i < 2; i++) {
        Py_XDECREF(self->tokens[i]);
        Py_XDECREF(self->corpus[i]);
    }
    relpt_free_object(object);
}

/* No tp_clear: see corpus_traverse. */
static int sampler_traverse(PyObject *object, visitproc visit, void *arg) {
    sampler_object *self = (sampler_object *)object;
    Py_VISIT(Py_TYPE(object));
    for (int i = 0; i < 2; i++) {
        Py_VISIT(self->corpus[i]);
        Py_VISIT(self->tokens[i]);
    }
    return 0;
}

rp_sampler *relpt_sampler_of(const relpt_state *state, PyObject *object, const char *name) {
    return relpt_is_of_type(object, state->sampler_type, name) ? ((sampler_object *)object)->sampler : NULL;
}

int relpt_sampler_lock(PyObject *sampler) {
    sampler_object *self = (sampler_object *)sampler;
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "busy: another thread is using this Sampler; give each thread its own");
        return -1;
    }
    self->busy = 1;
    return 0;
}

void relpt_sampler_unlock(PyObject *sampler) { ((sampler_object *)sampler)->busy = 0; }

PyDoc_STRVAR(sampler_batch_doc, "batch($self, step, /)\n--\n\nThe batch of a step, as a dict of fresh arrays.");

static PyObject *sampler_batch(PyObject *object, PyObject *args) {
    rp_sampler *sampler = ((sampler_object *)object)->sampler;
    const rp_batch *batch;
    long long step;
    rp_status status;
    if (!PyArg_ParseTuple(args, "L:batch", &step) || relpt_sampler_lock(object) < 0) return NULL;
    Py_BEGIN_ALLOW_THREADS status = rp_sampler_batch(sampler, step, &batch);
    Py_END_ALLOW_THREADS PyObject *result =
        status == RP_OK ? relpt_batch_dict(batch) : relpt_raise(relpt_state_of(object), status);
    relpt_sampler_unlock(object);
    return result;
}

PyDoc_STRVAR(sampler_rows_doc, "rows($self, step, /)\n--\n\nThe corpus rows of a step's samples, int64.");

static PyObject *sampler_rows(PyObject *object, PyObject *args) {
    const rp_sampler *sampler = ((sampler_object *)object)->sampler; /* only read: no lock */
    int64_t count = 0;
    long long step;
    void *data;
    rp_status status;
    if (!PyArg_ParseTuple(args, "L:rows", &step)) return NULL;
    rp_draw *draws = PyMem_Calloc((size_t)rp_sampler_samples(sampler), sizeof *draws);
    if (draws == NULL) return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS status = rp_sampler_draws(sampler, step, draws, &count);
    Py_END_ALLOW_THREADS PyObject *rows =
        status == RP_OK ? relpt_array_new(RELPT_INT64, 1, &count, &data) : relpt_raise(relpt_state_of(object), status);
    for (int64_t i = 0; i < count && rows != NULL; i++) ((int64_t *)data)[i] = draws[i].row;
    PyMem_Free(draws);
    return rows;
}

PyDoc_STRVAR(sampler_counts_doc, "counts($self, /)\n--\n\nOf each source what can be drawn, and sentences left out.");

static PyObject *sampler_counts(PyObject *object, PyObject *ignored) {
    (void)ignored;
    const rp_sampler *sampler = ((sampler_object *)object)->sampler;
    PyObject *list = PyList_New(0);
    for (int64_t i = 0; i < rp_sampler_sources(sampler) && list != NULL; i++) {
        rp_source_counts counts;
        rp_sampler_counts(sampler, i, &counts);
        PyObject *item = Py_BuildValue("LL", (long long)counts.drawable, (long long)counts.left_out);
        if (item == NULL || PyList_Append(list, item) < 0) Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

static PyMethodDef sampler_methods[] = {
    {"batch", sampler_batch, METH_VARARGS, sampler_batch_doc},
    {"rows", sampler_rows, METH_VARARGS, sampler_rows_doc},
    {"counts", sampler_counts, METH_NOARGS, sampler_counts_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(sampler_doc, "Sampler(corpus, tokens, *, sources, seed, max_length, p_blank=0.7, mlm_probability=0.15, "
                          "input_weight=(1, 0, 0, 0, 0), prefetch=True, role_blanks=False, graph_dropout=0, "
                          "target=..., spans=None)\n--\n\n"
                          "Draws the samples of a step and builds its batch, the next one in a worker thread.");

static PyType_Slot sampler_slots[] = {
    {Py_tp_doc, (void *)sampler_doc},
    {Py_tp_new, RELPT_SLOT(sampler_new)},
    {Py_tp_dealloc, RELPT_SLOT(sampler_dealloc)},
    {Py_tp_traverse, RELPT_SLOT(sampler_traverse)},
    {Py_tp_methods, sampler_methods},
    {0, NULL},
};

static PyType_Spec sampler_spec = {
    .name = "relpt._core.Sampler",
    .basicsize = sizeof(sampler_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sampler_slots,
};

int relpt_add_sampler(PyObject *module) {
    relpt_state *state = relpt_module_state(module);
    state->sampler_type = PyType_FromModuleAndSpec(module, &sampler_spec, NULL);
    return state->sampler_type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)state->sampler_type);
}
