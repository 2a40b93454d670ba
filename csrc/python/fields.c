#include "fields.h"

#include <string.h>

PyObject *relpt_field(PyObject *dict, const char *name) {
    PyObject *item = PyMapping_GetItemString(dict, name);
    if (item == NULL && PyErr_ExceptionMatches(PyExc_KeyError))
        PyErr_Format(PyExc_ValueError, "there is no \"%s\" in %R", name, dict);
    return item;
}

int relpt_field_integer(PyObject *dict, const char *name, int64_t *out) {
    PyObject *item = relpt_field(dict, name);
    if (item == NULL) return -1;
    if (!PyLong_Check(item))
        PyErr_Format(PyExc_TypeError, "%s is %R; expected a whole number", name, item);
    else
        *out = PyLong_AsLongLong(item);
    Py_DECREF(item);
    return PyErr_Occurred() ? -1 : 0;
}

int relpt_field_number(PyObject *dict, const char *name, double *out) {
    PyObject *item = relpt_field(dict, name);
    if (item == NULL) return -1;
    *out = PyFloat_AsDouble(item);
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError, "%s is %R; expected a number", name, item);
    Py_DECREF(item);
    return PyErr_Occurred() ? -1 : 0;
}

int relpt_field_flag(PyObject *dict, const char *name, bool *out) {
    PyObject *item = relpt_field(dict, name);
    if (item == NULL) return -1;
    int truth = PyObject_IsTrue(item);
    Py_DECREF(item);
    *out = truth > 0;
    return truth < 0 ? -1 : 0;
}

int relpt_field_text(PyObject *dict, const char *name, char *out, size_t size) {
    PyObject *item = relpt_field(dict, name);
    Py_ssize_t length;
    if (item == NULL) return -1;
    const char *text = PyUnicode_AsUTF8AndSize(item, &length);
    if (text != NULL && (size_t)length >= size)
        PyErr_Format(PyExc_ValueError, "%s is %R; expected at most %zd bytes", name, item, (Py_ssize_t)size - 1);
    else if (text != NULL)
        memcpy(out, text, (size_t)length + 1);
    Py_DECREF(item);
    return PyErr_Occurred() ? -1 : 0;
}

int relpt_field_choice(PyObject *dict, const char *name, const char *const *choices, int *out) {
    PyObject *item = relpt_field(dict, name);
    if (item == NULL) return -1;
    const char *text = PyUnicode_AsUTF8AndSize(item, NULL);
    *out = -1;
    for (int i = 0; text != NULL && choices[i] != NULL; i++)
        if (strcmp(text, choices[i]) == 0) *out = i;
    if (text != NULL && *out < 0) PyErr_Format(PyExc_ValueError, "%s is %R, which there is not", name, item);
    Py_DECREF(item);
    return PyErr_Occurred() ? -1 : 0;
}
