#include "array.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* NumPy's API is a table of void pointers, which every macro of it converts to functions: ISO C objects, POSIX does
 * not. */
#pragma GCC diagnostic ignored "-Wpedantic"
#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#include <numpy/arrayobject.h>

#define MAX_NDIM 4

static const struct {
    int number;
    const char *name;
} dtypes[] = {
    [RELPT_UINT8] = {NPY_UINT8, "uint8"},       [RELPT_INT32] = {NPY_INT32, "int32"},
    [RELPT_INT64] = {NPY_INT64, "int64"},       [RELPT_FLOAT32] = {NPY_FLOAT32, "float32"},
    [RELPT_FLOAT64] = {NPY_FLOAT64, "float64"},
};

int relpt_array_import(void) {
    import_array1(-1);
    return 0;
}

/* "(n, 4)": free sizes are called n, m, k, l. A shape of one size ends with a comma, as Python writes it. */
static void shape_text(char *out, size_t size, int ndim, const int64_t *dims) {
    size_t used = (size_t)snprintf(out, size, "(");
    int free_sizes = 0;
    for (int i = 0; i < ndim && used < size; i++) {
        const char *comma = i + 1 < ndim ? ", " : ndim == 1 ? "," : "";
        if (dims[i] < 0)
            used += (size_t)snprintf(out + used, size - used, "%c%s", "nmkl"[free_sizes++ % 4], comma);
        else
            used += (size_t)snprintf(out + used, size - used, "%" PRId64 "%s", dims[i], comma);
    }
    if (used < size) snprintf(out + used, size - used, ")");
}

static bool has_shape(PyArrayObject *array, int ndim, const int64_t *dims) {
    if (PyArray_NDIM(array) != ndim) return false;
    for (int i = 0; i < ndim; i++)
        if (dims[i] >= 0 && PyArray_DIM(array, i) != dims[i]) return false;
    return true;
}

/* Raises the ValueError of an array that is not as expected. */
static void *refuse(PyArrayObject *array, const char *name, relpt_dtype dtype, int ndim, const int64_t *dims,
                    const char *fault) {
    char shape[128];
    shape_text(shape, sizeof shape, ndim, dims);
    PyObject *found = PyObject_GetAttrString((PyObject *)array, "shape");
    if (found != NULL)
        PyErr_Format(PyExc_ValueError, "%s: expected a C-contiguous %s array of shape %s, got %S %S%s", name,
                     dtypes[dtype].name, shape, (PyObject *)PyArray_DESCR(array), found, fault);
    Py_XDECREF(found);
    return NULL;
}

static void *checked_data(PyObject *object, const char *name, relpt_dtype dtype, int ndim, int64_t *dims,
                          bool writeable) {
    if (!PyArray_Check(object)) {
        char shape[128];
        shape_text(shape, sizeof shape, ndim, dims);
        PyObject *type = PyObject_GetAttrString((PyObject *)Py_TYPE(object), "__name__");
        if (type != NULL)
            PyErr_Format(PyExc_TypeError, "%s: expected a C-contiguous %s array of shape %s, got an object of type %S",
                         name, dtypes[dtype].name, shape, type);
        Py_XDECREF(type);
        return NULL;
    }
    PyArrayObject *array = (PyArrayObject *)object;
    if (!PyArray_EquivTypenums(PyArray_TYPE(array), dtypes[dtype].number) || !has_shape(array, ndim, dims) ||
        PyArray_ISBYTESWAPPED(array))
        return refuse(array, name, dtype, ndim, dims, "");
    if (!PyArray_IS_C_CONTIGUOUS(array)) return refuse(array, name, dtype, ndim, dims, ", which is not C-contiguous");
    if (!PyArray_ISALIGNED(array)) return refuse(array, name, dtype, ndim, dims, ", which is not aligned");
    if (writeable && !PyArray_ISWRITEABLE(array)) return refuse(array, name, dtype, ndim, dims, ", which is read-only");
    for (int i = 0; i < ndim; i++) dims[i] = PyArray_DIM(array, i);
    static int64_t nothing; /* an empty array may lead nowhere, and NULL means an exception here */
    return PyArray_SIZE(array) > 0 ? PyArray_DATA(array) : &nothing;
}

const void *relpt_array_data(PyObject *object, const char *name, relpt_dtype dtype, int ndim, int64_t *dims) {
    return checked_data(object, name, dtype, ndim, dims, false);
}

void *relpt_array_output(PyObject *object, const char *name, relpt_dtype dtype, int ndim, int64_t *dims) {
    return checked_data(object, name, dtype, ndim, dims, true);
}

PyObject *relpt_array_new(relpt_dtype dtype, int ndim, const int64_t *dims, void **data) {
    npy_intp shape[MAX_NDIM];
    for (int i = 0; i < ndim && i < MAX_NDIM; i++) shape[i] = (npy_intp)dims[i];
    PyObject *array = PyArray_SimpleNew(ndim, shape, dtypes[dtype].number);
    if (array != NULL) *data = PyArray_DATA((PyArrayObject *)array);
    return array;
}

PyObject *relpt_array_copy(relpt_dtype dtype, int ndim, const int64_t *dims, const void *source) {
    void *data;
    PyObject *array = relpt_array_new(dtype, ndim, dims, &data);
    if (array != NULL && PyArray_NBYTES((PyArrayObject *)array) > 0)
        memcpy(data, source, (size_t)PyArray_NBYTES((PyArrayObject *)array));
    return array;
}

int relpt_parse_u64(PyObject *object, const char *name, uint64_t *out) {
    PyObject *number = PyNumber_Index(object);
    if (number == NULL) return -1;
    unsigned long long value = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s is %S; expected 0 .. 2**64 - 1", name, number);
    }
    Py_DECREF(number);
    *out = value;
    return PyErr_Occurred() ? -1 : 0;
}

int relpt_parse_i32(PyObject *object, const char *name, int32_t *out) {
    PyObject *number = PyNumber_Index(object);
    if (number == NULL) return -1;
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow != 0 || value < INT32_MIN || value > INT32_MAX)
        PyErr_Format(PyExc_ValueError, "%s is %S; expected a 32-bit integer", name, number);
    Py_DECREF(number);
    *out = (int32_t)value;
    return PyErr_Occurred() ? -1 : 0;
}

int relpt_parse_doubles(PyObject *object, const char *name, double *out, int64_t count) {
    Py_ssize_t size = PySequence_Size(object);
    if (size < 0) return -1;
    if (size != count) {
        PyErr_Format(PyExc_ValueError, "%s has %zd numbers; expected %lld", name, size, (long long)count);
        return -1;
    }
    for (int64_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(object, (Py_ssize_t)i);
        if (item == NULL) return -1;
        out[i] = PyFloat_AsDouble(item);
        Py_DECREF(item);
        if (PyErr_Occurred()) return -1;
    }
    return 0;
}
