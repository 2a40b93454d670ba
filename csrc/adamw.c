#include "adamw.h"

#include <float.h>
#include <math.h>

rp_status rp_adamw_check(const rp_adamw_options *o) {
    if (!(o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1))
        return rp_fail(RP_STATUS_VALUE, "adam betas are (%g, %g), expected 0 <= beta < 1", o->beta1, o->beta2);
    if (!(o->eps >= FLT_MIN && o->eps <= RP_RATE_MOST)) /* as a float it is neither 0 nor infinite */
        return rp_fail(RP_STATUS_VALUE, "adam eps is %g, expected above 0, %g at least and %g at most", o->eps,
                       (double)FLT_MIN, RP_RATE_MOST);
    if (!(o->weight_decay >= 0 && o->weight_decay <= RP_RATE_MOST))
        return rp_fail(RP_STATUS_VALUE, "weight_decay is %g, expected 0 or more, at most %g", o->weight_decay,
                       RP_RATE_MOST);
    if (!(o->max_grad_norm >= 0))
        return rp_fail(RP_STATUS_VALUE, "max_grad_norm is %g, expected 0 (no clipping) or more", o->max_grad_norm);
    return RP_OK;
}

rp_status rp_adamw_norm(rp_dev *dev, const rp_tensors *tensors, int count, double *norm) {
    double sum = 0, squares;
    for (int i = 0; i < count; i++) {
        RP_TRY(dev->ops->sum_squares(dev, &squares, tensors[i].grads, tensors[i].params->total));
        sum += squares;
    }
    *norm = sqrt(sum);
    if (isfinite(*norm)) return RP_OK;
    return rp_fail(RP_STATUS_NUMERIC,
                   "the gradients' norm is %g: this step is refused and the parameters are unchanged; lower "
                   "the learning rate or raise the temperature",
                   *norm);
}

rp_status rp_adamw_apply(rp_dev *dev, const rp_tensors *t, const rp_adamw_options *o, double lr, int64_t step,
                         double norm, bool mlm_head) {
    const rp_params *params = t->params;
    double clip = o->max_grad_norm > 0 && norm > o->max_grad_norm ? o->max_grad_norm / norm : 1.0;
    rp_adamw_step h = {
        .lr = (float)lr,
        .beta1 = (float)o->beta1,
        .beta2 = (float)o->beta2,
        .eps = (float)o->eps,
        .correction1 = (float)(1.0 - pow(o->beta1, (double)step)),
        .correction2 = (float)(1.0 - pow(o->beta2, (double)step)),
        .grad_scale = (float)clip,
    };
    for (int64_t i = 0, next; i < params->count; i = next) { /* neighbours of one kind go together */
        const rp_param *p = &params->table[i];
        int64_t n = p->count;
        for (next = i + 1; next < params->count; n += params->table[next++].count)
            if (params->table[next].decay != p->decay || params->table[next].mlm_head != p->mlm_head) break;
        if (p->mlm_head && !mlm_head) continue;
        h.weight_decay = p->decay ? (float)o->weight_decay : 0.0f;
        RP_TRY(dev->ops->adamw_update(dev, t->values + p->offset, t->moment1 + p->offset, t->moment2 + p->offset,
                                      t->grads + p->offset, &h, n));
    }
    return RP_OK;
}
