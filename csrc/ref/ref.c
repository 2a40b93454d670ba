#include "ref/ref.h"

#include "host.h"
#include "kept.h"

static const rp_ops table = {
    .name = "ref",
    .alloc = rp_host_alloc,
    .release = rp_host_release,
    .reserve = rp_host_reserve,
    .upload = rp_host_upload,
    .download = rp_host_download,
    .zero = rp_host_zero,
    .keep_weights = rp_kept_weights,
    .linear_forward = rp_ref_linear_forward,
    .linear_backward = rp_ref_linear_backward,
    .embed_forward = rp_ref_embed_forward,
    .embed_backward = rp_ref_embed_backward,
    .dropout_forward = rp_ref_dropout_forward,
    .add_forward = rp_ref_add_forward,
    .layernorm_forward = rp_ref_layernorm_forward,
    .layernorm_backward = rp_ref_layernorm_backward,
    .gelu_forward = rp_ref_gelu_forward,
    .gelu_backward = rp_ref_gelu_backward,
    .attention_forward = rp_ref_attention_forward,
    .attention_backward = rp_ref_attention_backward,
    .rows_gather = rp_ref_rows_gather,
    .rows_scatter_add = rp_ref_rows_scatter_add,
    .mean_forward = rp_ref_mean_forward,
    .mean_backward = rp_ref_mean_backward,
    .normalize_forward = rp_ref_normalize_forward,
    .normalize_backward = rp_ref_normalize_backward,
    .rows_dot_forward = rp_ref_rows_dot_forward,
    .rows_dot_backward = rp_ref_rows_dot_backward,
    .activation_forward = rp_ref_activation_forward,
    .activation_backward = rp_ref_activation_backward,
    .window_forward = rp_ref_window_forward,
    .window_backward = rp_ref_window_backward,
    .segment_max_forward = rp_ref_segment_max_forward,
    .segment_max_backward = rp_ref_segment_max_backward,
    .softmax_xent = rp_ref_softmax_xent,
    .sum_squares = rp_ref_sum_squares,
    .adamw_update = rp_ref_adamw_update,
    .sgd_update = rp_ref_sgd_update,
};

const rp_ops *rp_ref_table(void) { return &table; }
