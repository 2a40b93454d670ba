/* relpt._core: sets up the extension module (multi-phase, PEP 489), its state, exceptions and types. */
#include "module.h"

#include "array.h"
#include "data.h"
#include "errors.h"
#include "evaluation.h"
#include "graphs.h"
#include "handles.h"
#include "sampling.h"
#include "training.h"

static int module_exec(PyObject *module) {
    if (relpt_array_import() < 0) return -1;
    if (relpt_add_exceptions(module) < 0) return -1;
    if (relpt_add_data(module) < 0) return -1;
    if (relpt_add_graphs(module) < 0) return -1;
    if (relpt_add_evaluation(module) < 0) return -1;
    if (relpt_add_sampler(module) < 0) return -1;
    if (relpt_add_model_types(module) < 0) return -1;
    return relpt_add_trainer(module);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    relpt_state *state = relpt_module_state(module);
    if (state == NULL) return 0;
    Py_VISIT(state->format_error);
    Py_VISIT(state->cuda_error);
    Py_VISIT(state->corpus_type);
    Py_VISIT(state->sampler_type);
    Py_VISIT(state->model_type);
    Py_VISIT(state->graph_type);
    return 0;
}

static int module_clear(PyObject *module) {
    relpt_state *state = relpt_module_state(module);
    if (state == NULL) return 0;
    Py_CLEAR(state->format_error);
    Py_CLEAR(state->cuda_error);
    Py_CLEAR(state->corpus_type);
    Py_CLEAR(state->sampler_type);
    Py_CLEAR(state->model_type);
    Py_CLEAR(state->graph_type);
    return 0;
}

static void module_free(void *module) { module_clear(module); }

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, RELPT_SLOT(module_exec)}, {0, NULL}};

static PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "relpt._core",
    .m_doc = "The compiled core of relpt. Its names are internal; use those of the package relpt.",
    .m_size = sizeof(relpt_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&module_def); }
