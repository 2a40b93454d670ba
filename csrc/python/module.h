/* The extension module's state: what its types and functions look up. */
#ifndef RELPT_MODULE_H
#define RELPT_MODULE_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

typedef struct relpt_state {
    PyObject *format_error, *cuda_error; /* exception classes */
    PyObject *corpus_type, *sampler_type, *model_type, *graph_type;
} relpt_state;

/* The state behind an object of one of the module's types (none of them can be subclassed), or behind the module. */
static inline relpt_state *relpt_state_of(PyObject *self) { return PyType_GetModuleState(Py_TYPE(self)); }
static inline relpt_state *relpt_module_state(PyObject *module) { return PyModule_GetState(module); }

/* The end of a tp_dealloc: frees the object and drops its type's reference. */
static inline void relpt_free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    freefunc tp_free = __extension__(freefunc) PyType_GetSlot(type, Py_tp_free);
    tp_free(self);
    Py_DECREF(type);
}

/* A function as a slot's void pointer: ISO C has no such conversion, POSIX does. */
#define RELPT_SLOT(function) (__extension__(void *)(function))

/* A function with keyword arguments, as PyMethodDef wants it. */
#define RELPT_KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

#endif
