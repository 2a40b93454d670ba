/* Trainers in Python. */
#ifndef RELPT_TRAINING_H
#define RELPT_TRAINING_H

#include "module.h"

/* Adds the type and its functions to the module; -1 with an exception. */
int relpt_add_trainer(PyObject *module);

#endif
