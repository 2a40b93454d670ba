/* Arrays and numbers between Python and the core. array.c is the only file that includes NumPy. */
#ifndef RELPT_ARRAY_H
#define RELPT_ARRAY_H

#include "module.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum relpt_dtype { RELPT_UINT8, RELPT_INT32, RELPT_INT64, RELPT_FLOAT32, RELPT_FLOAT64 } relpt_dtype;

/* Loads NumPy's table of functions; -1 with an exception. */
int relpt_array_import(void);

/* The data of an array that must be C-contiguous, aligned, in the machine's byte order, and of this dtype and shape. In
 * `dims` -1 leaves a size free and is replaced by what was found. NULL with TypeError (no array) or ValueError, which
 * name the argument: "spans: expected a C-contiguous int32 array of shape (n, 4), got float64 (3, 2)". The array owns
 * the data. */
const void *relpt_array_data(PyObject *object, const char *name, relpt_dtype dtype, int ndim, int64_t *dims);

/* The same, and the array must be writeable. */
void *relpt_array_output(PyObject *object, const char *name, relpt_dtype dtype, int ndim, int64_t *dims);

/* A new array; its values are not set. *data leads into it. */
PyObject *relpt_array_new(relpt_dtype dtype, int ndim, const int64_t *dims, void **data);

/* A new array with a copy of `source`. */
PyObject *relpt_array_copy(relpt_dtype dtype, int ndim, const int64_t *dims, const void *source);

/* Numbers by name: ValueError or TypeError name the argument; 0, or -1 with an exception. */
int relpt_parse_u64(PyObject *object, const char *name, uint64_t *out);
int relpt_parse_i32(PyObject *object, const char *name, int32_t *out);
int relpt_parse_doubles(PyObject *object, const char *name, double *out, int64_t count);

#endif
