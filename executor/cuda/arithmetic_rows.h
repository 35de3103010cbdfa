/* Packs and rows, for one type of tensor: included once for each with `store` (float, or uint16_t
 * for bf16), NAME, load and save defined. See arithmetic.h. */

/* ---- packs --------------------------------------------------------------------------------- */

/* Neighbouring elements that a thread takes at a time: 16 bytes, the most that a device reads at
 * once, where they begin at a multiple of 16 and all are there. */
#define MANY (16 / (int)sizeof(store))

typedef struct NAME(pack) {
    float v[MANY];
} NAME(pack);

/* A pack as it lies in memory. */
typedef union NAME(raw) {
    store part[MANY];
#ifdef __CUDACC__
    uint4 whole;
#endif
} NAME(raw);

/* The elements from x on, of which `left` are there; 0 for the others. aligned: x is a multiple of
 * 16 bytes. */
PP_DEVICE NAME(raw) NAME(load_raw)(const store *x, int64_t left, bool aligned) {
    NAME(raw) r;
#ifdef __CUDACC__
    if (aligned && left >= MANY) {
        r.whole = *(const uint4 *)x;
        return r;
    }
#endif
    (void)aligned;
    UNROLL for (int k = 0; k < MANY; k++) r.part[k] = k < left ? x[k] : (store)0;
    return r;
}

PP_DEVICE NAME(pack) NAME(unpack)(NAME(raw) r) {
    NAME(pack) p;
    UNROLL for (int k = 0; k < MANY; k++) p.v[k] = load(r.part + k);
    return p;
}

PP_DEVICE NAME(pack) NAME(load_pack)(const store *x, int64_t left, bool aligned) {
    return NAME(unpack)(NAME(load_raw)(x, left, aligned));
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

#define RAW(x, i, end) NAME(load_raw)((x) + (i), (end) - (i), aligned)

/* `for` each stretch of KEPT packs of this lane, and each pack of it. All packs of a stretch are
 * asked for before the first is looked at, so that their ways from memory overlap; and a row of one
 * stretch stays with its lanes for the passes to come. A longer one is read anew. */
#define STRETCHES(start, end)                                                                      \
    for (int64_t start = (int64_t)l.index * MANY; start < (end);                                   \
         start += (int64_t)KEPT * l.count * MANY)
#define PACKS_KEPT(j, i, start, end)                                                               \
    UNROLL for (int j = 0; j < KEPT; j++) for (int64_t i = (start) + (int64_t)j * l.count * MANY;  \
                                               i < (end); i = (end))

PP_DEVICE bool NAME(is_kept)(lanes l, int64_t count) {
    return count <= (int64_t)KEPT * l.count * MANY;
}

/* y = scale · normal + shift; shift may be NULL. */
PP_DEVICE void NAME(norm_forward_row)(lanes l, bool aligned, int64_t dim, bool centred,
                                      const store *x, const store *scale, const store *shift,
                                      store *normal, float *rstd, store *y) {
    const bool kept = NAME(is_kept)(l, dim);
    NAME(raw) row[KEPT];
    float sum = 0, squares = 0;
    STRETCHES(start, dim) {
        PACKS_KEPT(j, i, start, dim) row[j] = RAW(x, i, dim);
        PACKS_KEPT(j, i, start, dim) {
            NAME(pack) p = NAME(unpack)(row[j]);
            EACH(k, dim - i) sum += p.v[k];
        }
    }
    float mean = centred ? lanes_sum(l, sum) / (float)dim : 0;
    STRETCHES(start, dim) {
        if (!kept) PACKS_KEPT(j, i, start, dim) row[j] = RAW(x, i, dim);
        PACKS_KEPT(j, i, start, dim) {
            NAME(pack) p = NAME(unpack)(row[j]);
            EACH(k, dim - i) squares += (p.v[k] - mean) * (p.v[k] - mean);
        }
    }
    float inverse = 1.0f / sqrtf(lanes_sum(l, squares) / (float)dim + 1e-5f);
    STRETCHES(start, dim) {
        if (!kept) PACKS_KEPT(j, i, start, dim) row[j] = RAW(x, i, dim);
        PACKS_KEPT(j, i, start, dim) {
            NAME(pack) p = NAME(unpack)(row[j]), s = TAKE(scale, i, dim);
            EACH(k, dim - i) p.v[k] = (p.v[k] - mean) * inverse;
            GIVE(normal, i, dim, p);
            EACH(k, dim - i) p.v[k] *= s.v[k];
            if (shift) {
                NAME(pack) more = TAKE(shift, i, dim);
                EACH(k, dim - i) p.v[k] += more.v[k];
            }
            GIVE(y, i, dim, p);
        }
    }
    if (l.index == 0) *rstd = inverse;
}

PP_DEVICE void NAME(norm_input_row)(lanes l, bool aligned, int64_t dim, bool centred,
                                    const store *dy, const store *scale, const store *normal,
                                    float rstd, const store *residual, store *dx, bool accumulate) {
    const bool kept = NAME(is_kept)(l, dim);
    NAME(raw) row[KEPT], row_normal[KEPT];
    float sum = 0, sum_normal = 0;
    STRETCHES(start, dim) {
        PACKS_KEPT(j, i, start, dim) {
            row[j] = RAW(dy, i, dim);
            row_normal[j] = RAW(normal, i, dim);
        }
        PACKS_KEPT(j, i, start, dim) {
            NAME(pack) d = NAME(unpack)(row[j]), n = NAME(unpack)(row_normal[j]);
            NAME(pack) s = TAKE(scale, i, dim);
            EACH(k, dim - i) {
                float g = d.v[k] * s.v[k];
                sum += g;
                sum_normal += g * n.v[k];
            }
        }
    }
    float mean = centred ? lanes_sum(l, sum) / (float)dim : 0;
    float mean_normal = lanes_sum(l, sum_normal) / (float)dim;
    STRETCHES(start, dim) {
        if (!kept) PACKS_KEPT(j, i, start, dim) {
                row[j] = RAW(dy, i, dim);
                row_normal[j] = RAW(normal, i, dim);
            }
        PACKS_KEPT(j, i, start, dim) {
            NAME(pack) d = NAME(unpack)(row[j]), n = NAME(unpack)(row_normal[j]);
            NAME(pack) s = TAKE(scale, i, dim);
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
}

/* The largest of a row, and Σ e^(x - largest), to all lanes, in one pass: a lane whose largest
 * grows scales what it has summed. */
PP_DEVICE void NAME(row_softmax)(lanes l, bool aligned, int64_t count, const store *x, float *max,
                                 float *sum) {
    float largest = -INFINITY, total = 0;
    NAME(raw) row[KEPT];
    STRETCHES(start, count) {
        PACKS_KEPT(j, i, start, count) row[j] = RAW(x, i, count);
        PACKS_KEPT(j, i, start, count) {
            NAME(pack) p = NAME(unpack)(row[j]);
            float before = largest;
            EACH(k, count - i) largest = fmaxf(largest, p.v[k]);
            if (largest > before) total *= expf(before - largest);
            EACH(k, count - i) total += expf(p.v[k] - largest);
        }
    }
    *max = lanes_max(l, largest);
    *sum = lanes_sum(l, total > 0 ? total * expf(largest - *max) : 0);
}

/* log Σ e^x, and -log softmax[target] (0 where the target is below 0, which leaves the row alone).
 */
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

/* dx may be x. */
PP_DEVICE void NAME(class_loss_input_row)(lanes l, bool aligned, int64_t classes, int32_t target,
                                          float scale, const store *x, float row_log_sum, store *dx,
                                          bool accumulate) {
    NAME(raw) row[KEPT];
    STRETCHES(start, classes) {
        PACKS_KEPT(j, i, start, classes) row[j] = RAW(x, i, classes);
        PACKS_KEPT(j, i, start, classes) {
            NAME(pack) p = NAME(unpack)(row[j]);
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
#undef STRETCHES
#undef RAW
#undef PACKS_KEPT
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
