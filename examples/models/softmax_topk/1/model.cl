// Softmax and the k largest without sorting and without a barrier: each work item of the first kernel looks through one
// chunk of a row, each of the second joins the chunks of one row. Exponents are taken of differences to the largest
// score, so they are at most 1 and nothing overflows.

// Puts a candidate into a list of at most k, the largest first; of equals the earlier one stays in front.
static int keep(__global float *scores, __global int *places, int count, const int k,
                const float score, const int place)
{
    if (k == 0 || (count == k && !(score > scores[k - 1]))) {
        return count;
    }
    int at = count < k ? count : k - 1;
    while (at > 0 && score > scores[at - 1]) {
        scores[at] = scores[at - 1];
        places[at] = places[at - 1];
        at--;
    }
    scores[at] = score;
    places[at] = place;
    return count < k ? count + 1 : k;
}

__kernel void topk_of_chunk(__global const float *restrict logits, __global float *restrict largest,
                            __global float *restrict sum, __global float *restrict score,
                            __global int *restrict place, const int length, const int chunk,
                            const int k)
{
    const size_t list = get_global_id(1) * get_global_size(0) + get_global_id(0);
    const int first = (int)get_global_id(0) * chunk;
    const int last = min(first + chunk, length);
    __global const float *row = logits + get_global_id(1) * (size_t)length;
    __global float *scores = score + list * (size_t)k;
    __global int *places = place + list * (size_t)k;
    float most = -INFINITY, total = 0.0f;
    int count = 0;
    for (int i = first; i < last; i++) {
        most = fmax(most, row[i]);
        count = keep(scores, places, count, k, row[i], i);
    }
    for (int i = first; i < last; i++) {
        /* Of a row of masks (-inf) nothing is added. */
        total += row[i] > -INFINITY ? exp(row[i] - most) : 0.0f;
    }
    for (int i = count; i < k; i++) {
        places[i] = -1;
    }
    largest[list] = most;
    sum[list] = total;
}

__kernel void topk_of_row(__global const float *restrict largest, __global const float *restrict sum,
                          __global const float *restrict score, __global const int *restrict place,
                          __global float *restrict best, __global float *restrict probability,
                          __global int *restrict index, const int chunks, const int k)
{
    const size_t row = get_global_id(0);
    const size_t first = row * (size_t)chunks;
    __global float *scores = best + row * (size_t)k;
    __global int *places = index + row * (size_t)k;
    float most = -INFINITY, total = 0.0f;
    int count = 0;
    for (int c = 0; c < chunks; c++) {
        most = fmax(most, largest[first + (size_t)c]);
    }
    for (int c = 0; c < chunks; c++) {
        const size_t list = first + (size_t)c;
        total += largest[list] > -INFINITY ? sum[list] * exp(largest[list] - most) : 0.0f;
        for (int i = 0; i < k && place[list * (size_t)k + (size_t)i] >= 0; i++) {
            count = keep(scores, places, count, k, score[list * (size_t)k + (size_t)i],
                         place[list * (size_t)k + (size_t)i]);
        }
    }
    for (int i = 0; i < k; i++) {
        const bool there = i < count;
        probability[row * (size_t)k + (size_t)i] = there ? exp(scores[i] - most) / total : 0.0f;
        places[i] = there ? places[i] : -1;
    }
}
