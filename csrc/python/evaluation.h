/* Few-shot episodes and their scores in Python. */
#ifndef RELPT_EVALUATION_H
#define RELPT_EVALUATION_H

#include "module.h"

/* Adds the functions to the module; -1 with an exception. */
int relpt_add_evaluation(PyObject *module);

#endif
