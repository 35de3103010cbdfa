/* Rows, for one type of tensor: included once for each with `store` (float, or uint16_t for bf16),
 * NAME, load and save defined. See arithmetic.h. */

/* `for` each element of the row that is this lane's. */
#define EACH(i, end) for (int64_t i = l.index; i < (end); i += l.count)

PP_DEVICE void NAME(norm_forward_row)(lanes l, int64_t dim, bool centred, const store *x,
                                      store *normal, float *rstd) {
    float sum = 0, squares = 0;
    if (centred) {
        EACH(i, dim) sum += load(x + i);
        sum = lanes_sum(l, sum);
    }
    float mean = sum / (float)dim;
    EACH(i, dim) {
        float off = load(x + i) - mean;
        squares += off * off;
    }
    float scale = 1.0f / sqrtf(lanes_sum(l, squares) / (float)dim + 1e-5f);
    EACH(i, dim) save(normal + i, (load(x + i) - mean) * scale);
    if (l.index == 0) *rstd = scale;
}

PP_DEVICE void NAME(norm_input_row)(lanes l, int64_t dim, bool centred, const store *dy,
                                    const store *scale, const store *normal, float rstd,
                                    const store *residual, store *dx, bool accumulate) {
    float sum = 0, sum_normal = 0;
    EACH(i, dim) {
        float g = load(dy + i) * load(scale + i);
        sum += g;
        sum_normal += g * load(normal + i);
    }
    float mean = centred ? lanes_sum(l, sum) / (float)dim : 0;
    float mean_normal = lanes_sum(l, sum_normal) / (float)dim;
    EACH(i, dim) {
        float g = load(dy + i) * load(scale + i);
        float out = (g - mean - load(normal + i) * mean_normal) * rstd;
        if (residual) out += load(residual + i);
        if (accumulate) out += load(dx + i);
        save(dx + i, out);
    }
}

/* e^(x - max) in place, their sum, and -log softmax[target] (0 where the target is below 0, which
 * leaves the row alone). */
PP_DEVICE void NAME(logits_forward_row)(lanes l, int64_t classes, int32_t target, store *x,
                                        float *row_sum, float *loss) {
    if (target < 0) {
        if (l.index == 0) *loss = 0;
        return;
    }
    float max = -INFINITY, sum = 0;
    float logit = load(x + target);
    EACH(i, classes) max = fmaxf(max, load(x + i));
    max = lanes_max(l, max);
    EACH(i, classes) {
        float e = expf(load(x + i) - max);
        sum += e;
        save(x + i, e);
    }
    sum = lanes_sum(l, sum);
    if (l.index != 0) return;
    *row_sum = sum;
    *loss = logf(sum) - (logit - max);
}

PP_DEVICE void NAME(logits_input_row)(lanes l, int64_t classes, int32_t target, float scale,
                                      store *x, float row_sum) {
    EACH(i, classes) {
        float p = target < 0 ? 0 : load(x + i) * (scale / row_sum);
        save(x + i, i == target ? p - scale : p);
    }
}

PP_DEVICE void NAME(class_loss_forward_row)(lanes l, int64_t classes, int32_t target,
                                            const store *x, float *row_log_sum, float *loss) {
    if (target < 0) {
        if (l.index == 0) *loss = 0;
        return;
    }
    float max = -INFINITY, sum = 0;
    EACH(i, classes) max = fmaxf(max, load(x + i));
    max = lanes_max(l, max);
    EACH(i, classes) sum += expf(load(x + i) - max);
    sum = lanes_sum(l, sum);
    if (l.index != 0) return;
    *row_log_sum = max + logf(sum);
    *loss = logf(sum) - (load(x + target) - max);
}

PP_DEVICE void NAME(class_loss_input_row)(lanes l, int64_t classes, int32_t target, float scale,
                                          const store *x, float row_log_sum, store *dx,
                                          bool accumulate) {
    EACH(i, classes) {
        float out = target < 0 ? 0 : scale * expf(load(x + i) - row_log_sum);
        if (i == target) out -= scale;
        save(dx + i, accumulate ? load(dx + i) + out : out);
    }
}

PP_DEVICE void NAME(softmax_row)(lanes l, int64_t sequence, int64_t reach, store *x) {
    float max = -INFINITY, sum = 0;
    EACH(i, reach) max = fmaxf(max, load(x + i));
    max = lanes_max(l, max);
    EACH(i, reach) sum += expf(load(x + i) - max);
    sum = lanes_sum(l, sum);
    EACH(i, sequence) save(x + i, i < reach ? expf(load(x + i) - max) / sum : 0);
}

PP_DEVICE void NAME(softmax_input_row)(lanes l, int64_t sequence, const store *p, store *d) {
    float sum = 0;
    EACH(i, sequence) sum += load(p + i) * load(d + i);
    sum = lanes_sum(l, sum);
    EACH(i, sequence) save(d + i, load(p + i) * (load(d + i) - sum));
}

/* One pair of features, half a head apart, turned by an angle (layers/rotary.c). */
PP_DEVICE void NAME(rotate_pair)(store *a, store *b, float cosine, float sine) {
    float x = load(a), y = load(b);
    save(a, x * cosine - y * sine);
    save(b, x * sine + y * cosine);
}

/* What this lane adds to the sum of squares of a part. (The square of a float is exact in double, so
 * that fused multiplication changes nothing.) */
PP_DEVICE double NAME(lane_squares)(lanes l, int64_t count, const store *x) {
    double sum = 0;
    EACH(i, count) {
        double value = (double)load(x + i);
        sum += value * value;
    }
    return sum;
}

#undef EACH
