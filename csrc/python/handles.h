/* Models, encoding runs and trainers in Python. */
#ifndef RELPT_HANDLES_H
#define RELPT_HANDLES_H

#include "module.h"

/* Adds the model types to the module; -1 with an exception. */
int relpt_add_model_types(PyObject *module);

#endif
