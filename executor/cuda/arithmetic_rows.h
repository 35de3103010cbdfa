/* Packs and rows, for one type of tensor: included once for each with `store` (float, or uint16_t
 * for bf16), NAME, load and save defined. See arithmetic.h. */

/* ---- packs --------------------------------------------------------------------------------- */

/* Neighbouring elements that a thread takes at a time: 16 bytes, the most that a device reads at
 * once, where they begin at a multiple of 16 and all are there. */
#define MANY (16 / (int)sizeof(store))

typedef struct NAME(pack) {
    float v[MANY];
} NAME(pack);

/* The elements from x on, of which `left` are there; 0 for the others. aligned: x is a multiple of
 * 16 bytes. */
PP_DEVICE NAME(pack) NAME(load_pack)(const store *x, int64_t left, bool aligned) {
    NAME(pack) p;
#ifdef __CUDACC__
    if (aligned && left >= MANY) {
        union {
            uint4 whole;
            store part[MANY];
        } raw;
        raw.whole = *(const uint4 *)x;
        UNROLL for (int k = 0; k < MANY; k++) p.v[k] = load(raw.part + k);
        return p;
    }
#endif
    (void)aligned;
    UNROLL for (int k = 0; k < MANY; k++) p.v[k] = k < left ? load(x + k) : 0;
    return p;
}

PP_DEVICE void NAME(save_pack)(store *x, int64_t left, bool aligned, NAME(pack) p) {
#ifdef __CUDACC__
    if (aligned && left >= MANY) {
        union {
            uint4 whole;
            store part[MANY];
        } raw;
        UNROLL for (int k = 0; k < MANY; k++) save(raw.part + k, p.v[k]);
        *(uint4 *)x = raw.whole;
        return;
    }
#endif
    (void)aligned;
    UNROLL for (int k = 0; k < MANY; k++) if (k < left) save(x + k, p.v[k]);
}

/* ---- rows ---------------------------------------------------------------------------------- */

/* `for` each pack of the row that is this lane's; i is its first element. */
#define PACKS(i, end)                                                                              \
    for (int64_t i = (int64_t)l.index * MANY; i < (end); i += (int64_t)l.count * MANY)
/* `for` each element of a pack that is there. */
#define EACH(k, left) UNROLL for (int k = 0; k < MANY; k++) if (k < (left))
#define TAKE(x, i, end) NAME(load_pack)((x) + (i), (end) - (i), aligned)
#define GIVE(x, i, end, p) NAME(save_pack)((x) + (i), (end) - (i), aligned, p)

PP_DEVICE void NAME(norm_forward_row)(lanes l, bool aligned, int64_t dim, bool centred,
                                      const store *x, store *normal, float *rstd) {
    float sum = 0, squares = 0;
    if (centred) {
        PACKS(i, dim) {
            NAME(pack) p = TAKE(x, i, dim);
            EACH(k, dim - i) sum += p.v[k];
        }
        sum = lanes_sum(l, sum);
    }
    float mean = sum / (float)dim;
    PACKS(i, dim) {
        NAME(pack) p = TAKE(x, i, dim);
        EACH(k, dim - i) squares += (p.v[k] - mean) * (p.v[k] - mean);
    }
    float scale = 1.0f / sqrtf(lanes_sum(l, squares) / (float)dim + 1e-5f);
    PACKS(i, dim) {
        NAME(pack) p = TAKE(x, i, dim);
        EACH(k, dim - i) p.v[k] = (p.v[k] - mean) * scale;
        GIVE(normal, i, dim, p);
    }
    if (l.index == 0) *rstd = scale;
}

PP_DEVICE void NAME(norm_input_row)(lanes l, bool aligned, int64_t dim, bool centred,
                                    const store *dy, const store *scale, const store *normal,
                                    float rstd, const store *residual, store *dx, bool accumulate) {
    float sum = 0, sum_normal = 0;
    PACKS(i, dim) {
        NAME(pack) d = TAKE(dy, i, dim), s = TAKE(scale, i, dim), n = TAKE(normal, i, dim);
        EACH(k, dim - i) {
            float g = d.v[k] * s.v[k];
            sum += g;
            sum_normal += g * n.v[k];
        }
    }
    float mean = centred ? lanes_sum(l, sum) / (float)dim : 0;
    float mean_normal = lanes_sum(l, sum_normal) / (float)dim;
    PACKS(i, dim) {
        NAME(pack) d = TAKE(dy, i, dim), s = TAKE(scale, i, dim), n = TAKE(normal, i, dim);
        EACH(k, dim - i) d.v[k] = (d.v[k] * s.v[k] - mean - n.v[k] * mean_normal) * rstd;
        if (residual) {
            NAME(pack) more = TAKE(residual, i, dim);
            EACH(k, dim - i) d.v[k] += more.v[k];
        }
        if (accumulate) {
            NAME(pack) more = TAKE(dx, i, dim);
            EACH(k, dim - i) d.v[k] += more.v[k];
        }
        GIVE(dx, i, dim, d);
    }
}

/* The largest of a row, and Σ e^(x - largest), to all lanes. */
PP_DEVICE void NAME(row_softmax)(lanes l, bool aligned, int64_t count, const store *x, float *max,
                                 float *sum) {
    *max = -INFINITY, *sum = 0;
    PACKS(i, count) {
        NAME(pack) p = TAKE(x, i, count);
        EACH(k, count - i) *max = fmaxf(*max, p.v[k]);
    }
    *max = lanes_max(l, *max);
    PACKS(i, count) {
        NAME(pack) p = TAKE(x, i, count);
        EACH(k, count - i) *sum += expf(p.v[k] - *max);
    }
    *sum = lanes_sum(l, *sum);
}

/* e^(x - max) in place, their sum, and -log softmax[target] (0 where the target is below 0, which
 * leaves the row alone). */
PP_DEVICE void NAME(logits_forward_row)(lanes l, bool aligned, int64_t classes, int32_t target,
                                        store *x, float *row_sum, float *loss) {
    if (target < 0) {
        if (l.index == 0) *loss = 0;
        return;
    }
    float max = -INFINITY, sum = 0;
    float logit = load(x + target);
    PACKS(i, classes) {
        NAME(pack) p = TAKE(x, i, classes);
        EACH(k, classes - i) max = fmaxf(max, p.v[k]);
    }
    max = lanes_max(l, max);
    PACKS(i, classes) {
        NAME(pack) p = TAKE(x, i, classes);
        EACH(k, classes - i) {
            p.v[k] = expf(p.v[k] - max);
            sum += p.v[k];
        }
        GIVE(x, i, classes, p);
    }
    sum = lanes_sum(l, sum);
    if (l.index != 0) return;
    *row_sum = sum;
    *loss = logf(sum) - (logit - max);
}

PP_DEVICE void NAME(logits_input_row)(lanes l, bool aligned, int64_t classes, int32_t target,
                                      float scale, store *x, float row_sum) {
    PACKS(i, classes) {
        NAME(pack) p = TAKE(x, i, classes);
        EACH(k, classes - i) {
            p.v[k] = target < 0 ? 0 : p.v[k] * (scale / row_sum);
            if (i + k == target) p.v[k] -= scale;
        }
        GIVE(x, i, classes, p);
    }
}

PP_DEVICE void NAME(class_loss_forward_row)(lanes l, bool aligned, int64_t classes, int32_t target,
                                            const store *x, float *row_log_sum, float *loss) {
    if (target < 0) {
        if (l.index == 0) *loss = 0;
        return;
    }
    float max, sum;
    NAME(row_softmax)(l, aligned, classes, x, &max, &sum);
    if (l.index != 0) return;
    *row_log_sum = max + logf(sum);
    *loss = logf(sum) - (load(x + target) - max);
}

PP_DEVICE void NAME(class_loss_input_row)(lanes l, bool aligned, int64_t classes, int32_t target,
                                          float scale, const store *x, float row_log_sum, store *dx,
                                          bool accumulate) {
    PACKS(i, classes) {
        NAME(pack) p = TAKE(x, i, classes);
        EACH(k, classes - i) {
            p.v[k] = target < 0 ? 0 : scale * expf(p.v[k] - row_log_sum);
            if (i + k == target) p.v[k] -= scale;
        }
        if (accumulate) {
            NAME(pack) more = TAKE(dx, i, classes);
            EACH(k, classes - i) p.v[k] += more.v[k];
        }
        GIVE(dx, i, classes, p);
    }
}

PP_DEVICE void NAME(softmax_row)(lanes l, bool aligned, int64_t sequence, int64_t reach, store *x) {
    float max, sum;
    NAME(row_softmax)(l, aligned, reach, x, &max, &sum);
    PACKS(i, sequence) {
        NAME(pack) p = TAKE(x, i, sequence);
        EACH(k, sequence - i) p.v[k] = i + k < reach ? expf(p.v[k] - max) / sum : 0;
        GIVE(x, i, sequence, p);
    }
}

PP_DEVICE void NAME(softmax_input_row)(lanes l, bool aligned, int64_t sequence, const store *p,
                                       store *d) {
    float sum = 0;
    PACKS(i, sequence) {
        NAME(pack) a = TAKE(p, i, sequence), b = TAKE(d, i, sequence);
        EACH(k, sequence - i) sum += a.v[k] * b.v[k];
    }
    sum = lanes_sum(l, sum);
    PACKS(i, sequence) {
        NAME(pack) a = TAKE(p, i, sequence), b = TAKE(d, i, sequence);
        EACH(k, sequence - i) a.v[k] *= b.v[k] - sum;
        GIVE(d, i, sequence, a);
    }
}

#undef PACKS
#undef EACH
#undef TAKE
#undef GIVE

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
    for (int64_t i = l.index; i < count; i += l.count) {
        double value = (double)load(x + i);
        sum += value * value;
    }
    return sum;
}

#undef MANY
