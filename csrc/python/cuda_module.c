/* relpt._cuda: the CUDA back end as an extension of its own, so that importing relpt loads nothing of CUDA. It hands
 * its table to relpt._core and says what GPU there is. */
#include "module.h"

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

static PyMethodDef functions[] = {
    {"facts", py_facts, METH_NOARGS,
     "facts(): the GPU that \"cuda\" means, its memory in bytes, and where cuBLASLt was found; where it cannot be "
     "used, "
     "{\"problem\": why}."},
    {"search", py_search, METH_VARARGS, "search(\"a:b\"): files to try for cuBLASLt before the system's."},
    {"lists", py_lists, METH_NOARGS,
     "lists(): how many lists of operations were carried out one by one and as CUDA graphs, and how many could not be "
     "made graphs of."},
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
