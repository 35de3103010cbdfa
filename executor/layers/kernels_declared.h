/* The kernels that layers are made of, for one real type; included by real.h once for each. Files
 * of layers/ that describe an op call nothing else, so whoever brings these kernels runs every op:
 * the CPU here, the cuda plugin in executor/cuda/cuda_kernels.c.
 *
 * Matrices are row-major and packed. A linear layer is y = x A^T + b with A [out, in]. Names: x, y
 * input and output, dx, dy their gradients, `normal` the rows (x - mean) · rstd of a norm. Where
 * there is `accumulate`, dx is added to, else written. Gradients of parameters are added to. In
 * bf16, statistics of rows (rstd, row_sum, row_log_sum) are fp32 (core/layer_tensors.c). */

/* rows.c */
void copy_or_add(int64_t count, const real *x, real *y, bool add);
void fill_rows(int64_t rows, int64_t columns, const real *row, real *y);
void column_sums(int64_t rows, int64_t columns, const real *x, real *sums); /* adds */
/* y = x with dropout site `site` of this call applied, divided by 1 - p; y may be x. */
void drop(const pp_layer_call *call, uint64_t site, int64_t columns, const real *x, real *y);

void drop_add(const pp_layer_call *call, uint64_t site, int64_t columns, const real *x,
              real *y); /* y += */
/* The same for `count` elements of one sample from `first` on (a multiple of 4), leaving 1 in the
 * mask where x was kept and 0 where it was dropped; and with such a mask, whatever drew it. */
void drop_keep(const pp_layer_call *call, int64_t sample, uint64_t site, int64_t first,
               int64_t count, const real *x, real *y, uint8_t *mask);
/* All rows of dim features in place. */
void drop_rows(const pp_layer_call *call, uint64_t site, real *x, uint8_t *mask);
void drop_masked(const pp_layer_call *call, int64_t count, const uint8_t *mask, const real *x,
                 real *y);

/* matmul.c */
void linear_forward(int64_t rows, int64_t in, int64_t out, const real *x, const real *weight,
                    const real *bias, real *y);
/* y likewise, with a bias, and activated = gelu(y); NULL: not wanted. */
void linear_gelu(int64_t rows, int64_t in, int64_t out, const real *x, const real *weight,
                 const real *bias, real *y, real *activated);
void linear_add(int64_t rows, int64_t in, int64_t out, const real *x, const real *weight,
                real *y); /* y += */
/* y = residual + a linear layer; y may be residual. */
void linear_join(int64_t rows, int64_t in, int64_t out, const real *x, const real *weight,
                 const real *bias, const real *residual, real *y);
void linear_input(int64_t rows, int64_t in, int64_t out, const real *dy, const real *weight,
                  real *dx, bool accumulate);
/* From dy to the gradient of what gelu was applied to before the layer. */
void linear_gelu_input(int64_t rows, int64_t in, int64_t out, const real *dy, const real *weight,
                       const real *before, real *dx);
void linear_weight(int64_t rows, int64_t in, int64_t out, const real *x, const real *dy,
                   real *weight_gradient, real *bias_gradient);

/* norm.c */
real row_sum_squares(int64_t dim, const real *x);
/* y as norm_apply makes it; y may be x. */
void norm_forward(int64_t rows, int64_t dim, const real *x, const real *scale, const real *shift,
                  real *normal, real *rstd, real *y);
void norm_apply(int64_t rows, int64_t dim, const real *normal, const real *scale, const real *shift,
                real *y);
/* dx = [dx +] [residual +] gradient of the norm's input. residual may be NULL. */
void norm_input(int64_t rows, int64_t dim, const real *dy, const real *scale, const real *normal,
                const real *rstd, const real *residual, real *dx, bool accumulate);
void norm_weight(int64_t rows, int64_t dim, const real *dy, const real *normal,
                 real *scale_gradient, real *shift_gradient);

/* rms.c : likewise, with `normal` = x · rstd. */
void rms_forward(int64_t rows, int64_t dim, const real *x, const real *scale, real *normal,
                 real *rstd, real *y);
void rms_apply(int64_t rows, int64_t dim, const real *normal, const real *scale, real *y);
void rms_input(int64_t rows, int64_t dim, const real *dy, const real *scale, const real *normal,
               const real *rstd, const real *residual, real *dx, bool accumulate);
void rms_weight(int64_t rows, int64_t dim, const real *dy, const real *normal,
                real *scale_gradient);

/* rotary.c : turns `heads` heads of `size` features at the front of rows of `stride`, by the angle
 * of each row's position, or back. */
void rotate(int64_t samples, int64_t sequence, int64_t heads, int64_t size, int64_t stride,
            double base, bool back, real *x);

/* activate.c */
void swiglu_forward(int64_t count, const real *gate, const real *up, real *y);
/* dy may be up_gradient. */
void swiglu_input(int64_t count, const real *gate, const real *up, const real *dy,
                  real *gate_gradient, real *up_gradient);
void relu_forward(int64_t count, const real *x, real *y);
void relu_input(int64_t count, const real *y, const real *dy, real *dx, bool accumulate);
void gelu_forward(int64_t count, const real *x, real *y);
/* dx may be dy unless it accumulates. */
void gelu_input(int64_t count, const real *x, const real *dy, real *dx, bool accumulate);

/* softmax.c */
real row_max(int64_t count, const real *x);
/* x becomes e^(x - max); returns their sum. */
real exp_row(int64_t count, real max, real *x);
void scale_row(int64_t count, real factor, real *x);

/* logits.c : a head's logits [rows, vocabulary], rows pp_layer_logits_stride apart; what is between
 * the rows is never read. normed [rows, dim], weight [vocabulary, dim], bias [vocabulary] or NULL.
 */
void logits_make(const pp_layer_call *call, const real *normed, const real *weight,
                 const real *bias, real *logits);
/* From the gradient of the logits: that of normed, and those of weight and bias added to. */
void logits_make_input(const pp_layer_call *call, const real *logits, const real *weight,
                       real *normed_gradient);
void logits_make_weight(const pp_layer_call *call, const real *normed, const real *logits,
                        real *weight_gradient, real *bias_gradient);
/* The logits against the call's targets. F stores the sum of -log softmax[target] and may turn the
 * rows and row_sum into whatever it likes, from which I makes the gradient of the logits. */
void logits_forward(const pp_layer_call *call, real *logits, real *row_sum);
void logits_input(const pp_layer_call *call, real *logits, const real *row_sum);

/* class_loss.c : the same for rows x [rows, dim] that must not change, log Σ exp of each kept. */
void class_loss_forward(const pp_layer_call *call, const real *x, real *row_log_sum);
void class_loss_input(const pp_layer_call *call, const real *x, const real *row_log_sum, real *dx,
                      bool accumulate);

/* gather.c : y = table[tokens]; y += table[row mod period]; gradients of the tables, added. */
void gather_tokens(int64_t rows, int64_t dim, const int32_t *tokens, const real *table, real *y);
void add_positions(int64_t rows, int64_t dim, int64_t period, const real *table, real *y);
void scatter_tokens(int64_t rows, int64_t dim, const int32_t *tokens, const real *dy,
                    real *gradient);
void scatter_positions(int64_t rows, int64_t dim, int64_t period, const real *dy, real *gradient);

/* attend.c : attention of `heads` heads of `size` features, of which each heads / kv_heads share
 * keys and values. Heads lie side by side in the rows of q [heads · size], k and v [kv_heads ·
 * size], which lie side by side in the rows of qkv. probabilities [samples · heads · sequence,
 * sequence]; score_gradient [sequence, sequence]: scratch. */
typedef struct attend_call {
    int64_t samples, sequence, heads, kv_heads, size;
    bool causal;               /* positions see those before them alone */
    const pp_layer_call *drop; /* the probabilities are dropped at `site` of this call, or NULL */
    uint64_t site;
    real *dropped; /* like probabilities; with drop */
    uint8_t *mask; /* likewise */
    const real *qkv;
    real *probabilities;
    real *attended;                /* F */
    const real *attended_gradient; /* I */
    real *qkv_gradient;            /* I */
    real *score_gradient;          /* I */
} attend_call;
void attend_forward(const attend_call *a);
void attend_again(const attend_call *a); /* probabilities alone, with the same bits */
void attend_input(const attend_call *a);

/* initialise.c : of every op, from the names of its parameters. */
void initialise_parameters(const pp_layer *layer, pp_random_key key, void *const *tensors);
