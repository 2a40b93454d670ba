/* relpt._cuda: the CUDA back end as an extension of its own, so that importing relpt loads nothing of CUDA. It hands
 * its table to relpt._core and says what GPU there is. */
#include "module.h"

#include <stdlib.h>

#include "cuda/cuda.h"
#include "relpt.h"

static PyObject *py_facts(PyObject *module, PyObject *unused) {
    rp_cuda_facts f;
    rp_status status;
    (void)module;
    (void)unused;
    Py_BEGIN_ALLOW_THREADS status = rp_cuda_look(&f);
    Py_END_ALLOW_THREADS if (status != RP_OK) return Py_BuildValue("{ss}", "problem", rp_message());
    return Py_BuildValue("{sOsss(ii)sisisLsLsssL}", "problem", Py_None, "name", f.name, "capability", f.major, f.minor,
                         "driver", f.driver, "runtime", f.runtime, "free", (long long)f.free, "total",
                         (long long)f.total, "cublaslt", f.cublaslt, "cublaslt_version", (long long)f.cublaslt_version);
}

static PyObject *py_search(PyObject *module, PyObject *args) {
    const char *paths;
    (void)module;
    if (!PyArg_ParseTuple(args, "s:search", &paths)) return NULL;
    rp_cuda_search(paths);
    Py_RETURN_NONE;
}

static PyObject *py_lists(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    rp_cuda_list_counts now = rp_cuda_count_lists();
    return Py_BuildValue("{sLsLsL}", "direct", (long long)now.direct, "graphs", (long long)now.graphs, "refused",
                         (long long)now.refused);
}

/* -- time on the GPU --------------------------------------------------------------------------------- */

static PyObject *raise_status(rp_status status) {
    PyErr_SetString(status == RP_STATUS_MEMORY ? PyExc_MemoryError : PyExc_RuntimeError, rp_message());
    return NULL;
}

static const char MARK[] = "relpt.cuda_mark";

static void free_mark(PyObject *capsule) { rp_cuda_unmark(PyCapsule_GetPointer(capsule, MARK)); }

static PyObject *py_mark(PyObject *module, PyObject *unused) {
    void *mark = NULL;
    (void)module;
    (void)unused;
    rp_status status = rp_cuda_mark(&mark);
    if (status != RP_OK) return raise_status(status);
    PyObject *capsule = PyCapsule_New(mark, MARK, free_mark);
    if (capsule == NULL) rp_cuda_unmark(mark);
    return capsule;
}

static PyObject *py_seconds(PyObject *module, PyObject *args) {
    PyObject *begin_capsule, *end_capsule;
    double seconds;
    rp_status status;
    (void)module;
    if (!PyArg_ParseTuple(args, "OO:seconds", &begin_capsule, &end_capsule)) return NULL;
    void *begin = PyCapsule_GetPointer(begin_capsule, MARK);
    void *end = begin == NULL ? NULL : PyCapsule_GetPointer(end_capsule, MARK);
    if (end == NULL) return NULL;
    Py_BEGIN_ALLOW_THREADS status = rp_cuda_seconds(&seconds, begin, end);
    Py_END_ALLOW_THREADS if (status != RP_OK) return raise_status(status);
    return PyFloat_FromDouble(seconds);
}

static PyObject *py_profile_begin(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    rp_status status = rp_cuda_profile_begin();
    if (status != RP_OK) return raise_status(status);
    Py_RETURN_NONE;
}

static PyObject *list_of(const rp_cuda_work *work, int64_t count) {
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (int64_t i = 0; list != NULL && i < count; i++) {
        PyObject *row = Py_BuildValue("(sdd)", work[i].name, work[i].seconds, work[i].operations);
        if (row == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, (Py_ssize_t)i, row);
    }
    return list;
}

static PyObject *py_profile_end(PyObject *module, PyObject *unused) {
    rp_cuda_work *work = NULL;
    int64_t count = 0;
    rp_status status;
    (void)module;
    (void)unused;
    Py_BEGIN_ALLOW_THREADS status = rp_cuda_profile_end(&work, &count);
    Py_END_ALLOW_THREADS if (status != RP_OK) return raise_status(status);
    PyObject *list = list_of(work, count);
    free(work);
    return list;
}

static PyMethodDef functions[] = {
    {"facts", py_facts, METH_NOARGS,
     "facts(): the GPU that \"cuda\" means, its memory in bytes, and where cuBLASLt was found; where it cannot be "
     "used, "
     "{\"problem\": why}."},
    {"search", py_search, METH_VARARGS, "search(\"a:b\"): files to try for cuBLASLt before the system's."},
    {"lists", py_lists, METH_NOARGS,
     "lists(): how many lists of operations were carried out one by one and as CUDA graphs, and how many could not be "
     "made graphs of."},
    {"mark", py_mark, METH_NOARGS, "mark(): a place on the GPU's time line, behind all that it was given so far."},
    {"seconds", py_seconds, METH_VARARGS,
     "seconds(begin, end): from one mark to another on the GPU's clock, when it has come to the end."},
    {"profile_begin", py_profile_begin, METH_NOARGS,
     "profile_begin(): what the GPU does from here on is noted, and no CUDA graph is launched."},
    {"profile_end", py_profile_end, METH_NOARGS,
     "profile_end(): (name, seconds, floating-point operations of a product or 0) of each thing that the GPU did since "
     "profile_begin, in order; what the host was late with counts to what it was late with."},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module) {
    PyObject *backend = PyCapsule_New((void *)rp_cuda_backend(), "relpt.backend", NULL);
    if (backend == NULL || PyModule_AddFunctions(module, functions) < 0) {
        Py_XDECREF(backend);
        return -1;
    }
    int result = PyModule_AddObjectRef(module, "backend", backend);
    Py_DECREF(backend);
    return result;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, RELPT_SLOT(module_exec)}, {0, NULL}};

static PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "relpt._cuda",
    .m_doc = "The CUDA back end of relpt. Its names are internal; use device=\"cuda\".",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__cuda(void);
PyMODINIT_FUNC PyInit__cuda(void) { return PyModuleDef_Init(&module_def); }
