/* The core's C API, in the order of the pipeline: what csrc/python (and any other host) includes. No Python, no CUDA.
 *
 *   corpus -> sampler -> batch -> encoder -> relation vector -> loss -> gradients -> AdamW;  episodes -> few-shot
 * accuracy
 *
 * Handles are made by rp_<noun>_new and freed by rp_<noun>_free, which takes NULL. Every call that can fail returns an
 * rp_status; rp_message() is the text of the calling thread's last failure. */
#ifndef RELPT_H
#define RELPT_H

#include "status.h"  /* codes and messages */
#include "threads.h" /* how many threads; forks */

#include "batch.h"   /* input settings, window, blanks */
#include "corpus.h"  /* tokenized sentences */
#include "masking.h" /* masked words and spans */
#include "sampler.h" /* which sentences meet in a step; prefetch */

#include "encode.h"  /* sentences to vectors */
#include "join.h"    /* several networks side by side */
#include "model.h"   /* weights */
#include "ops.h"     /* devices and their operations */
#include "sgd.h"     /* the other optimiser */
#include "trainer.h" /* a step of training */

#include "episodes.h"   /* N-way K-shot draws */
#include "fewshot.h"    /* their scores */
#include "projection.h" /* vectors fitted to relations */

#include "graph.h"       /* triples */
#include "kge_trainer.h" /* embeddings of their entities and relations */
#include "link.h"        /* their link prediction */

#endif
