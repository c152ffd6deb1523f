/* One AdamW step on the rows [begin, end) of a table, each by its own step count, in one pass over the touched rows.
 *
 * REAL, float or double, is defined on the command line. A row's numbers depend on that row alone: not on the other
 * rows, the range or the processor, as long as products and sums are not contracted to one rounding.
 */

#include <stdint.h>
#include <tgmath.h>

enum { PATCH = 64 }; /* entries looked at in one go before asking whether one was not zero */

/* Whether an entry is other than zero; NaN and infinity are, -0.0 is not. */
static int is_touched(const REAL *gradient, int64_t columns) {
    for (int64_t start = 0; start < columns; start += PATCH) {
        const int64_t stop = start + PATCH < columns ? start + PATCH : columns;
        int found = 0;
        for (int64_t j = start; j < stop; j++) found |= gradient[j] != 0;
        if (found) return 1;
    }
    return 0;
}

void step_rows(REAL *weight, REAL *exp_avg, REAL *exp_avg_sq, float *step, const REAL *gradient,
               int64_t begin, int64_t end, int64_t columns,
               double lr, double beta1, double beta2, double eps, double weight_decay,
               int maximize, int all_touched, int decay_untouched, int fade_untouched) {
    const REAL rate = lr, shrink = 1 - lr * weight_decay, sign = maximize ? -1 : 1;
    const REAL blend = 1 - beta1, keep = beta2, gain = 1 - beta2;
    const double log1 = log(beta1), log2 = log(beta2); /* of zero: -infinity, and the corrections are 1 */
    REAL scale = 0, offset = 0;
    float counted = 0; /* what they were worked out for: the two logarithms take as long as a third of a short row */
    for (int64_t i = begin; i < end; i++) {
        const REAL *restrict g = gradient + i * columns;
        REAL *restrict w = weight + i * columns;
        REAL *restrict m = exp_avg + i * columns;
        REAL *restrict v = exp_avg_sq + i * columns;
        if (!all_touched && !is_touched(g, columns)) {
            if (decay_untouched)
                for (int64_t j = 0; j < columns; j++) w[j] *= shrink;
            if (fade_untouched)
                for (int64_t j = 0; j < columns; j++) {
                    m[j] -= blend * m[j];
                    v[j] *= keep;
                }
            continue;
        }
        step[i] += 1;
        if (step[i] != counted) {
            const double bias1 = -expm1(step[i] * log1), bias2 = -expm1(step[i] * log2);
            scale = bias1 / sqrt(bias2), offset = bias1 * eps;
            counted = step[i];
        }
        for (int64_t j = 0; j < columns; j++) {
            m[j] += blend * (sign * g[j] - m[j]);
            v[j] = v[j] * keep + gain * (g[j] * g[j]);
            w[j] = w[j] * shrink - rate * m[j] / (sqrt(v[j]) * scale + offset);
        }
    }
}
