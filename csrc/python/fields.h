/* Values out of the dicts that describe a part of a run: {"kind": "contrastive", "weight": 1.0, …}. */
#ifndef RELPT_FIELDS_H
#define RELPT_FIELDS_H

#include "module.h"

#include <stdbool.h>
#include <stddef.h>

/* dict[name] into *out; -1 with ValueError (there is none) or TypeError, which name it. */
int relpt_field_integer(PyObject *dict, const char *name, int64_t *out);
int relpt_field_number(PyObject *dict, const char *name, double *out);
int relpt_field_flag(PyObject *dict, const char *name, bool *out);

/* The text is cut to `size` bytes, its end among them: ValueError when it is longer. */
int relpt_field_text(PyObject *dict, const char *name, char *out, size_t size);

/* The place of the text dict[name] among `choices` (NULL ends them); ValueError names them. */
int relpt_field_choice(PyObject *dict, const char *name, const char *const *choices, int *out);

/* A new reference to dict[name]; NULL with ValueError. */
PyObject *relpt_field(PyObject *dict, const char *name);

#endif
