#include "errors.h"

#include <string.h>

static PyObject *exception_of(const relpt_state *state, rp_status status) {
    switch (status) {
    case RP_STATUS_VALUE:
        return PyExc_ValueError;
    case RP_STATUS_STATE:
        return PyExc_RuntimeError;
    case RP_STATUS_MEMORY:
        return PyExc_MemoryError;
    case RP_STATUS_IO:
        return PyExc_OSError;
    case RP_STATUS_FORMAT:
        return state->format_error;
    case RP_STATUS_NUMERIC:
        return PyExc_FloatingPointError;
    case RP_STATUS_CUDA:
        return state->cuda_error;
    default:
        return PyExc_SystemError;
    }
}

PyObject *relpt_raise(const relpt_state *state, rp_status status) {
    if (status == RP_STATUS_INTERRUPT && PyErr_Occurred()) return NULL;
    PyErr_SetString(exception_of(state, status), rp_message());
    return NULL;
}

static int add_exception(PyObject *module, PyObject **out, const char *name, const char *doc, PyObject *base) {
    *out = PyErr_NewExceptionWithDoc(name, doc, base, NULL);
    if (*out == NULL) return -1;
    return PyModule_AddObjectRef(module, strchr(name, '.') + 1, *out);
}

int relpt_add_exceptions(PyObject *module) {
    relpt_state *state = relpt_module_state(module);
    if (add_exception(module, &state->format_error, "relpt.FormatError", "A file or record breaks its own format.",
                      PyExc_ValueError) < 0)
        return -1;
    return add_exception(module, &state->cuda_error, "relpt.CudaError", "The CUDA back end failed, or is not there.",
                         PyExc_RuntimeError);
}
