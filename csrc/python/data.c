#include "data.h"

#include <limits.h>
#include <stdint.h>

#include "array.h"
#include "errors.h"

/* -- Corpus ---------------------------------------------------------------------------------------------- */

typedef struct corpus_object {
    PyObject_HEAD rp_corpus *corpus;
    PyObject *arrays; /* tuple of the arrays that the corpus borrows */
} corpus_object;

enum { IDS, OFFSETS, SPANS, RELATION, HEAD_ID, TAIL_ID, HEAD_TYPE, TAIL_TYPE, TYPE_IDS, TYPE_OFFSETS, TAGS };
enum { CORPUS_ARRAYS = TAGS + RP_TAGS };

static const char *const corpus_names[] = {"ids",       "offsets",   "spans",    "relation",     "head_id", "tail_id",
                                           "head_type", "tail_type", "type_ids", "type_offsets", "pos_tag", "ner_tag"};

/* Fills the core's arrays from the objects; -1 with an exception that names the array. */
static int corpus_arrays(PyObject *const objects[CORPUS_ARRAYS], rp_corpus_arrays *a) {
    const int32_t **columns[] = {&a->relation, &a->head_id, &a->tail_id, &a->head_type, &a->tail_type};
    int64_t n_ids = -1, ends = -1, n_type_ids = -1, type_ends = -1;
    if ((a->ids = relpt_array_data(objects[IDS], "ids", RELPT_INT32, 1, &n_ids)) == NULL) return -1;
    if ((a->offsets = relpt_array_data(objects[OFFSETS], "offsets", RELPT_INT64, 1, &ends)) == NULL) return -1;
    if ((a->type_ids = relpt_array_data(objects[TYPE_IDS], "type_ids", RELPT_INT32, 1, &n_type_ids)) == NULL) return -1;
    a->type_offsets = relpt_array_data(objects[TYPE_OFFSETS], "type_offsets", RELPT_INT64, 1, &type_ends);
    if (a->type_offsets == NULL) return -1;
    if (ends < 1 || type_ends < 1 || type_ends > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "%s has %lld elements; expected one more than there are %s",
                     ends < 1 ? "offsets" : "type_offsets", (long long)(ends < 1 ? ends : type_ends),
                     ends < 1 ? "sentences" : "types");
        return -1;
    }
    int64_t n = ends - 1, spans[2] = {n, 4};
    if ((a->spans = relpt_array_data(objects[SPANS], "spans", RELPT_INT32, 2, spans)) == NULL) return -1;
    for (int i = RELATION; i <= TAIL_TYPE; i++) {
        *columns[i - RELATION] = relpt_array_data(objects[i], corpus_names[i], RELPT_INT32, 1, &n);
        if (*columns[i - RELATION] == NULL) return -1;
    }
    for (int k = 0; k < RP_TAGS; k++) {
        if (objects[TAGS + k] == Py_None) continue;
        a->tags[k] = relpt_array_data(objects[TAGS + k], corpus_names[TAGS + k], RELPT_INT32, 1, &n_ids);
        if (a->tags[k] == NULL) return -1;
    }
    a->n = n;
    a->n_ids = n_ids;
    a->n_types = (int32_t)(type_ends - 1);
    a->n_type_ids = n_type_ids;
    return 0;
}

static PyObject *corpus_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"ids",       "offsets",   "spans",    "relation",     "head_id",     "tail_id",
                            "head_type", "tail_type", "type_ids", "type_offsets", "n_relations", "vocab_size",
                            "pos_tag",   "ner_tag",   "n_pos",    "n_ner",        NULL};
    PyObject *o[CORPUS_ARRAYS], *n_relations, *vocab_size, *n_tags[RP_TAGS] = {NULL};
    for (int k = 0; k < RP_TAGS; k++) o[TAGS + k] = Py_None;
    rp_corpus_arrays arrays = {0};
    if (PyTuple_Size(args) != 0) {
        PyErr_SetString(PyExc_TypeError, "Corpus takes keyword arguments only");
        return NULL;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOOOOOOO|OOOO:Corpus", names, &o[IDS], &o[OFFSETS], &o[SPANS],
                                     &o[RELATION], &o[HEAD_ID], &o[TAIL_ID], &o[HEAD_TYPE], &o[TAIL_TYPE], &o[TYPE_IDS],
                                     &o[TYPE_OFFSETS], &n_relations, &vocab_size, &o[TAGS], &o[TAGS + 1], &n_tags[0],
                                     &n_tags[1]))
        return NULL;
    for (int k = 0; k < RP_TAGS; k++)
        if (n_tags[k] != NULL && relpt_parse_i32(n_tags[k], k ? "n_ner" : "n_pos", &arrays.n_tags[k]) < 0) return NULL;
    if (relpt_parse_i32(n_relations, "n_relations", &arrays.n_relations) < 0) return NULL;
    if (relpt_parse_i32(vocab_size, "vocab_size", &arrays.vocab_size) < 0) return NULL;
    if (corpus_arrays(o, &arrays) < 0) return NULL;
    PyObject *keep =
        PyTuple_Pack(CORPUS_ARRAYS, o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7], o[8], o[9], o[10], o[11]);
    if (keep == NULL) return NULL;
    rp_corpus *corpus = NULL;
    rp_status status;
    Py_BEGIN_ALLOW_THREADS status = rp_corpus_new(&corpus, &arrays);
    Py_END_ALLOW_THREADS if (status != RP_OK) relpt_raise(PyType_GetModuleState(type), status);
    corpus_object *self = status == RP_OK ? (corpus_object *)PyType_GenericAlloc(type, 0) : NULL;
    if (self == NULL) {
        rp_corpus_free(corpus);
        Py_DECREF(keep);
        return NULL;
    }
    self->corpus = corpus;
    self->arrays = keep;
    return (PyObject *)self;
}

static void corpus_dealloc(PyObject *object) {
    corpus_object *self = (corpus_object *)object;
    PyObject_GC_UnTrack(object);
    rp_corpus_free(self->corpus);
    Py_XDECREF(self->arrays);
    relpt_free_object(object);
}

/* There is no tp_clear, as in a tuple: what the core borrows stays until the object goes. */
static int corpus_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((corpus_object *)object)->arrays);
    return 0;
}

static Py_ssize_t corpus_length(PyObject *object) { return (Py_ssize_t)((corpus_object *)object)->corpus->a.n; }

static PyObject *corpus_repr(PyObject *object) {
    const rp_corpus_arrays *a = &((corpus_object *)object)->corpus->a;
    return PyUnicode_FromFormat("<relpt._core.Corpus of %lld sentences, %lld word pieces, %d relations>",
                                (long long)a->n, (long long)a->n_ids, (int)a->n_relations);
}

PyDoc_STRVAR(corpus_doc,
             "Corpus(*, ids, offsets, spans, relation, head_id, tail_id, head_type, tail_type, type_ids, type_offsets, "
             "n_relations, vocab_size, pos_tag=None, ner_tag=None, n_pos=0, n_ner=0)\n--\n\n"
             "A tokenized corpus over flat arrays, which are checked once, kept, and must not be changed afterwards.");

static PyType_Slot corpus_slots[] = {
    {Py_tp_doc, (void *)corpus_doc},
    {Py_tp_new, RELPT_SLOT(corpus_new)},
    {Py_tp_dealloc, RELPT_SLOT(corpus_dealloc)},
    {Py_tp_traverse, RELPT_SLOT(corpus_traverse)},
    {Py_tp_repr, RELPT_SLOT(corpus_repr)},
    {Py_sq_length, RELPT_SLOT(corpus_length)},
    {0, NULL},
};

static PyType_Spec corpus_spec = {
    .name = "relpt._core.Corpus",
    .basicsize = sizeof(corpus_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = corpus_slots,
};

bool relpt_is_of_type(PyObject *object, PyObject *type, const char *name) {
    if (Py_TYPE(object) == (PyTypeObject *)type) return true;
    PyErr_Format(PyExc_TypeError, "%s: expected a %R, got %R", name, type, (PyObject *)Py_TYPE(object));
    return false;
}

const rp_corpus *relpt_corpus_of(const relpt_state *state, PyObject *object, const char *name) {
    return relpt_is_of_type(object, state->corpus_type, name) ? ((corpus_object *)object)->corpus : NULL;
}

/* -- tokens and batches ---------------------------------------------------------------------------------- */

static int parse_token(PyObject *dict, const char *name, int32_t *out) {
    PyObject *item = PyMapping_GetItemString(dict, name);
    if (item == NULL) {
        if (PyErr_ExceptionMatches(PyExc_KeyError))
            PyErr_Format(PyExc_ValueError,
                         "tokens: there is no \"%s\"; expected the ids cls, sep, mask, head_start, head_end, "
                         "tail_start, tail_end, blank, subject, object and the flags special",
                         name);
        return -1;
    }
    int result = relpt_parse_i32(item, name, out);
    Py_DECREF(item);
    return result;
}

/* A flag, false where the dict has none; -1 with an exception. */
static int parse_flag(PyObject *dict, const char *name, bool *out) {
    int32_t flag = 0;
    if (PyMapping_HasKeyString(dict, name) && parse_token(dict, name, &flag) < 0) return -1;
    *out = flag != 0;
    return 0;
}

/* The dict's item, a reference to which goes to the list `kept` so that it can be borrowed from; NULL with an
 * exception, or without one where the dict has none. */
static PyObject *parse_kept(PyObject *dict, const char *name, PyObject *kept) {
    if (!PyMapping_HasKeyString(dict, name)) return NULL;
    PyObject *item = PyMapping_GetItemString(dict, name);
    if (item == NULL) return NULL;
    int failed = PyList_Append(kept, item);
    Py_DECREF(item);
    return failed ? NULL : item;
}

/* A borrowed int32 array of *size elements; NULL and 0 where the dict has none, -1 with an exception. */
static const int32_t *parse_pieces(PyObject *dict, const char *name, int64_t *size, PyObject *kept) {
    PyObject *item = parse_kept(dict, name, kept);
    const int32_t *data = NULL;
    *size = item == NULL && !PyErr_Occurred() ? 0 : -1;
    if (item != NULL && (data = relpt_array_data(item, name, RELPT_INT32, 1, size)) == NULL) *size = -1;
    if (*size <= INT32_MAX) return data;
    PyErr_Format(PyExc_ValueError, "%s has %lld elements; expected at most %d", name, (long long)*size, INT32_MAX);
    *size = -1;
    return NULL;
}

/* What the dict may have: the order, the prompt, the typed markers and rows of a graph; -1 with an exception. */
static int parse_form(PyObject *dict, rp_tokens *out, PyObject *kept) {
    int64_t prompt, pieces, offsets, entities;
    if (parse_flag(dict, "text_order", &out->text_order) < 0) return -1;
    out->prompt = parse_pieces(dict, "prompt", &prompt, kept);
    if (prompt < 0) return -1;
    out->graph_row = parse_pieces(dict, "graph_row", &entities, kept);
    if (entities < 0) return -1;
    out->n_entities = (int32_t)entities;
    out->marker_ids = parse_pieces(dict, "marker_ids", &pieces, kept);
    if (pieces < 0) return -1;
    out->marker_offsets = parse_pieces(dict, "marker_offsets", &offsets, kept);
    if (offsets < 0) return -1;
    out->prompt_length = (int32_t)prompt;
    out->n_types = (int32_t)(offsets / 4);
    if (offsets == 0 || (offsets % 4 == 1 && out->marker_offsets[offsets - 1] == pieces)) return 0;
    PyErr_Format(PyExc_ValueError,
                 "marker_offsets has %lld elements; expected four for each type and one more, the %lld marker_ids",
                 (long long)offsets, (long long)pieces);
    return -1;
}

static int parse_special(PyObject *dict, rp_tokens *out, PyObject *kept) {
    PyObject *special = parse_kept(dict, "special", kept);
    int64_t size = -1;
    if (special == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError,
                            "tokens: there is no \"special\"; expected a uint8 array of vocab_size flags");
        return -1;
    }
    if ((out->special = relpt_array_data(special, "special", RELPT_UINT8, 1, &size)) == NULL) return -1;
    if (size > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "special has %lld flags; expected at most %d", (long long)size, INT32_MAX);
        return -1;
    }
    out->vocab_size = (int32_t)size;
    return 0;
}

/* Behind parse_special, which says how many there are. */
static int parse_continues(PyObject *dict, rp_tokens *out, PyObject *kept) {
    int64_t size = out->vocab_size;
    PyObject *item = parse_kept(dict, "continues", kept);
    if (item == NULL) return PyErr_Occurred() ? -1 : 0;
    out->continues = relpt_array_data(item, "continues", RELPT_UINT8, 1, &size);
    return out->continues == NULL ? -1 : 0;
}

int relpt_tokens_parse(PyObject *dict, rp_tokens *out, PyObject **keep) {
    const struct {
        const char *name;
        int32_t *id;
        bool fixed;
    } named[] = {{"cls", &out->cls, true},           {"sep", &out->sep, true},
                 {"mask", &out->mask, false},        {"head_start", &out->head_start, true},
                 {"head_end", &out->head_end, true}, {"tail_start", &out->tail_start, true},
                 {"tail_end", &out->tail_end, true}, {"blank", &out->blank, false},
                 {"subject", &out->subject, false},  {"object", &out->object, false}};
    *out = (rp_tokens){0};
    if (parse_flag(dict, "bare", &out->bare) < 0) return -1;
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++)
        if (!(out->bare && named[i].fixed) && parse_token(dict, named[i].name, named[i].id) < 0) return -1;
    PyObject *kept = PyList_New(0);
    if (kept == NULL) return -1;
    if (parse_special(dict, out, kept) < 0 || parse_continues(dict, out, kept) < 0 || parse_form(dict, out, kept) < 0) {
        Py_DECREF(kept);
        return -1;
    }
    *keep = kept;
    return 0;
}

/* dict[name] = value; takes over the reference to `value`, which may be NULL with an exception. */
static int put(PyObject *dict, const char *name, PyObject *value) {
    if (value == NULL) return -1;
    int result = PyDict_SetItemString(dict, name, value);
    Py_DECREF(value);
    return result;
}

PyObject *relpt_batch_dict(const rp_batch *b) {
    const struct {
        const char *name;
        const int32_t *data;
        int64_t count;
    } arrays[] = {{"ids", b->ids, b->T},
                  {"pos", b->pos, b->T},
                  {"sequence", b->sequence, b->T},
                  {"cu_seqlens", b->cu_seqlens, (int64_t)b->S + 1},
                  {"sample", b->sample, b->S},
                  {"head", b->head, b->S},
                  {"tail", b->tail, b->S},
                  {"relation", b->relation, b->S},
                  {"pair", b->pair, b->S},
                  {"head_first", b->head_first, b->S},
                  {"tail_first", b->tail_first, b->S},
                  {"head_entity", b->entity[0], b->S},
                  {"tail_entity", b->entity[1], b->S},
                  {"head_end", b->head_end, b->S},
                  {"tail_end", b->tail_end, b->S},
                  {"pos_tag", b->tags[RP_TAG_POS], b->T},
                  {"ner_tag", b->tags[RP_TAG_NER], b->T},
                  {"mlm_row", b->mlm_row, b->M},
                  {"mlm_label", b->mlm_label, b->M},
                  {"span_left", b->span_left, b->M},
                  {"span_right", b->span_right, b->M},
                  {"span_place", b->span_place, b->M},
                  {"prompt_row", b->prompt_row, b->S}};
    PyObject *dict = PyDict_New();
    if (dict == NULL) return NULL;
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        if (put(dict, arrays[i].name, relpt_array_copy(RELPT_INT32, 1, &arrays[i].count, arrays[i].data)) < 0)
            goto failed;
    const int64_t S = b->S;
    if (put(dict, "row", relpt_array_copy(RELPT_INT64, 1, &S, b->row)) < 0) goto failed;
    if (put(dict, "truncated", PyLong_FromLongLong(b->truncated)) < 0) goto failed;
    if (put(dict, "truncated_mentions", PyLong_FromLongLong(b->truncated_mentions)) < 0) goto failed;
    if (put(dict, "max_len", PyLong_FromLong(b->max_len)) < 0) goto failed;
    return dict;
failed:
    Py_DECREF(dict);
    return NULL;
}

/* What build_batch asks of the core. */
typedef struct build_task {
    const rp_corpus *corpus;
    rp_tokens tokens;
    const int64_t *rows;   /* (n) */
    const uint8_t *blanks; /* (n,2) or NULL */
    int64_t n, max_length;
    rp_input input;
} build_task;

static rp_status build_batch(const build_task *t, rp_batch **out) {
    rp_batch *batch;
    RP_TRY(rp_tokens_check(&t->tokens));
    RP_TRY(rp_batch_new(&batch, t->n, t->n * t->max_length));
    rp_status status = RP_OK;
    for (int64_t i = 0; i < t->n && status == RP_OK; i++) {
        rp_sample sample = {.row = t->rows[i], .input = t->input};
        if (t->blanks != NULL) {
            sample.blank_head = t->blanks[2 * i] != 0;
            sample.blank_tail = t->blanks[2 * i + 1] != 0;
        }
        status = rp_batch_add(batch, t->corpus, &t->tokens, &sample, t->max_length, (int32_t)i);
    }
    if (status == RP_OK)
        *out = batch;
    else
        rp_batch_free(batch);
    return status;
}

static int parse_rows(build_task *t, PyObject *rows, PyObject *blanks) {
    int64_t shape[2] = {-1, 2};
    if ((t->rows = relpt_array_data(rows, "rows", RELPT_INT64, 1, &shape[0])) == NULL) return -1;
    t->n = shape[0];
    if (t->n > INT32_MAX || t->max_length < 1 || t->max_length > RP_BATCH_MAX_LENGTH) {
        PyErr_Format(PyExc_ValueError, "%lld rows of max_length %lld; expected at most %d rows, max_length %d .. %d",
                     (long long)t->n, (long long)t->max_length, INT32_MAX, RP_BATCH_MIN_LENGTH, RP_BATCH_MAX_LENGTH);
        return -1;
    }
    if (blanks == Py_None) return 0;
    t->blanks = relpt_array_data(blanks, "blanks", RELPT_UINT8, 2, shape);
    return t->blanks == NULL ? -1 : 0;
}

static PyObject *py_build_batch(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"corpus", "tokens", "rows", "input", "max_length", "blanks", NULL};
    const relpt_state *state = relpt_module_state(module);
    PyObject *corpus, *tokens, *rows, *blanks = Py_None, *kept;
    build_task task = {0};
    long long max_length;
    int input;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOiL|O:build_batch", names, &corpus, &tokens, &rows, &input,
                                     &max_length, &blanks))
        return NULL;
    task.max_length = max_length;
    task.input = (rp_input)input;
    if ((task.corpus = relpt_corpus_of(state, corpus, "corpus")) == NULL || parse_rows(&task, rows, blanks) < 0)
        return NULL;
    if (relpt_tokens_parse(tokens, &task.tokens, &kept) < 0) return NULL;
    rp_batch *batch = NULL;
    rp_status status;
    Py_BEGIN_ALLOW_THREADS status = build_batch(&task, &batch);
    Py_END_ALLOW_THREADS PyObject *result = status == RP_OK ? relpt_batch_dict(batch) : relpt_raise(state, status);
    rp_batch_free(batch);
    Py_DECREF(kept);
    return result;
}

/* ---- projection
 * ---------------------------------------------------------------------------------------------------------- */

static PyObject *py_fit_projection(PyObject *module, PyObject *args) {
    PyObject *vectors, *labels;
    long long classes;
    double shrinkage;
    if (!PyArg_ParseTuple(args, "OOLd:fit_projection", &vectors, &labels, &classes, &shrinkage)) return NULL;
    int64_t shape[2] = {-1, -1};
    const float *table = relpt_array_data(vectors, "vectors", RELPT_FLOAT32, 2, shape);
    if (table == NULL) return NULL;
    const int32_t *label = relpt_array_data(labels, "labels", RELPT_INT32, 1, &shape[0]);
    if (label == NULL) return NULL;
    int64_t square[2] = {shape[1], shape[1]};
    void *weight, *bias;
    PyObject *matrix = relpt_array_new(RELPT_FLOAT32, 2, square, &weight);
    if (matrix == NULL) return NULL;
    PyObject *offset = relpt_array_new(RELPT_FLOAT32, 1, square, &bias);
    if (offset == NULL) {
        Py_DECREF(matrix);
        return NULL;
    }
    rp_status status;
    Py_BEGIN_ALLOW_THREADS status =
        rp_projection_fit(weight, bias, table, label, shape[0], classes, shape[1], shrinkage);
    Py_END_ALLOW_THREADS if (status == RP_OK) return Py_BuildValue("NN", matrix, offset);
    Py_DECREF(matrix);
    Py_DECREF(offset);
    return relpt_raise(relpt_module_state(module), status);
}

static PyObject *py_project(PyObject *module, PyObject *args) {
    PyObject *vectors, *weight, *bias;
    long long num_threads;
    if (!PyArg_ParseTuple(args, "OOOL:project", &vectors, &weight, &bias, &num_threads)) return NULL;
    int64_t shape[2] = {-1, -1};
    const float *table = relpt_array_data(vectors, "vectors", RELPT_FLOAT32, 2, shape);
    if (table == NULL) return NULL;
    int64_t square[2] = {shape[1], shape[1]};
    const float *matrix = relpt_array_data(weight, "weight", RELPT_FLOAT32, 2, square);
    if (matrix == NULL) return NULL;
    const float *offset = relpt_array_data(bias, "bias", RELPT_FLOAT32, 1, square);
    if (offset == NULL) return NULL;
    void *out;
    PyObject *result = relpt_array_new(RELPT_FLOAT32, 2, shape, &out);
    if (result == NULL) return NULL;
    const relpt_state *state = relpt_module_state(module);
    rp_status status = rp_threads_begin(num_threads);
    Py_BEGIN_ALLOW_THREADS if (status == RP_OK) status =
        rp_projection_apply(out, table, matrix, offset, shape[0], shape[1], num_threads);
    Py_END_ALLOW_THREADS if (status == RP_OK) return result;
    Py_DECREF(result);
    return relpt_raise(state, status);
}

static PyObject *py_logits(PyObject *module, PyObject *args) {
    PyObject *vectors, *weight, *bias;
    long long num_threads;
    if (!PyArg_ParseTuple(args, "OOOL:logits", &vectors, &weight, &bias, &num_threads)) return NULL;
    int64_t shape[2] = {-1, -1};
    const float *table = relpt_array_data(vectors, "vectors", RELPT_FLOAT32, 2, shape);
    if (table == NULL) return NULL;
    int64_t head[2] = {-1, shape[1]};
    const float *matrix = relpt_array_data(weight, "weight", RELPT_FLOAT32, 2, head);
    if (matrix == NULL) return NULL;
    const float *offset = relpt_array_data(bias, "bias", RELPT_FLOAT32, 1, head);
    if (offset == NULL) return NULL;
    const int64_t out_shape[2] = {shape[0], head[0]};
    void *out;
    PyObject *result = relpt_array_new(RELPT_FLOAT32, 2, out_shape, &out);
    if (result == NULL) return NULL;
    const relpt_state *state = relpt_module_state(module);
    rp_status status = rp_threads_begin(num_threads);
    Py_BEGIN_ALLOW_THREADS if (status == RP_OK) status =
        rp_projection_logits(out, table, matrix, offset, shape[0], shape[1], head[0], num_threads);
    Py_END_ALLOW_THREADS if (status == RP_OK) return result;
    Py_DECREF(result);
    return relpt_raise(state, status);
}

/* ---- the module
 * ---------------------------------------------------------------------------------------------------------- */

static PyObject *py_default_threads(PyObject *module, PyObject *ignored) {
    (void)module, (void)ignored;
    return PyLong_FromLongLong(rp_threads_default());
}

PyDoc_STRVAR(build_batch_doc,
             "build_batch(corpus, tokens, rows, input, max_length, blanks=None)\n--\n\n"
             "The batch of these corpus rows in one input setting; blanks: uint8 (n, 2), head and tail.");
PyDoc_STRVAR(fit_projection_doc,
             "fit_projection(vectors, labels, n_classes, shrinkage, /)\n--\n\n"
             "The affine map that evens out what varies inside relations: float32 weight (dim, dim), bias (dim).");
PyDoc_STRVAR(project_doc, "project(vectors, weight, bias, num_threads, /)\n--\n\n"
                          "weight x + bias of each vector's direction x, float32 (n, dim).");
PyDoc_STRVAR(logits_doc, "logits(vectors, weight, bias, num_threads, /)\n--\n\n"
                         "weight x + bias of each vector x itself, float32 (n, classes).");
PyDoc_STRVAR(default_threads_doc, "default_threads()\n--\n\nThe number of threads used when none is given.");

static PyMethodDef data_functions[] = {
    {"build_batch", RELPT_KEYWORDS(py_build_batch), METH_VARARGS | METH_KEYWORDS, build_batch_doc},
    {"fit_projection", py_fit_projection, METH_VARARGS, fit_projection_doc},
    {"project", py_project, METH_VARARGS, project_doc},
    {"logits", py_logits, METH_VARARGS, logits_doc},
    {"default_threads", py_default_threads, METH_NOARGS, default_threads_doc},
    {NULL, NULL, 0, NULL},
};

static int add_type(PyObject *module, PyType_Spec *spec, PyObject **out) {
    *out = PyType_FromModuleAndSpec(module, spec, NULL);
    return *out == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)*out);
}

int relpt_add_data(PyObject *module) {
    relpt_state *state = relpt_module_state(module);
    if (add_type(module, &corpus_spec, &state->corpus_type) < 0) return -1;
    return PyModule_AddFunctions(module, data_functions);
}
