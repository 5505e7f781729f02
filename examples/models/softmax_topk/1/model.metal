// model.cl in Metal's language. Arguments are the configuration's, in their order.
#include <metal_stdlib>
using namespace metal;

static int keep(device float *scores, device int *places, int count, int k, float score, int place)
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

kernel void topk_of_chunk(device const float *logits [[buffer(0)]], device float *largest [[buffer(1)]],
                          device float *sum [[buffer(2)]], device float *score [[buffer(3)]],
                          device int *place [[buffer(4)]], constant int &length [[buffer(5)]],
                          constant int &chunk [[buffer(6)]], constant int &k [[buffer(7)]],
                          uint2 at [[thread_position_in_grid]], uint2 grid [[threads_per_grid]])
{
    const ulong list = at.y * (ulong)grid.x + at.x;
    const int first = (int)at.x * chunk;
    const int last = min(first + chunk, (int)length);
    device const float *row = logits + at.y * (ulong)length;
    device float *scores = score + list * (ulong)k;
    device int *places = place + list * (ulong)k;
    float most = -INFINITY, total = 0.0f;
    int count = 0;
    for (int i = first; i < last; i++) {
        most = max(most, row[i]);
        count = keep(scores, places, count, k, row[i], i);
    }
    for (int i = first; i < last; i++) {
        total += row[i] > -INFINITY ? exp(row[i] - most) : 0.0f;
    }
    for (int i = count; i < k; i++) {
        places[i] = -1;
    }
    largest[list] = most;
    sum[list] = total;
}

kernel void topk_of_row(device const float *largest [[buffer(0)]], device const float *sum [[buffer(1)]],
                        device const float *score [[buffer(2)]], device const int *place [[buffer(3)]],
                        device float *best [[buffer(4)]], device float *probability [[buffer(5)]],
                        device int *index [[buffer(6)]], constant int &chunks [[buffer(7)]],
                        constant int &k [[buffer(8)]], uint row [[thread_position_in_grid]])
{
    const ulong first = row * (ulong)chunks;
    device float *scores = best + row * (ulong)k;
    device int *places = index + row * (ulong)k;
    float most = -INFINITY, total = 0.0f;
    int count = 0;
    for (int c = 0; c < chunks; c++) {
        most = max(most, largest[first + (ulong)c]);
    }
    for (int c = 0; c < chunks; c++) {
        const ulong list = first + (ulong)c;
        total += largest[list] > -INFINITY ? sum[list] * exp(largest[list] - most) : 0.0f;
        for (int i = 0; i < k && place[list * (ulong)k + (ulong)i] >= 0; i++) {
            count = keep(scores, places, count, k, score[list * (ulong)k + (ulong)i],
                         place[list * (ulong)k + (ulong)i]);
        }
    }
    for (int i = 0; i < k; i++) {
        const bool there = i < count;
        probability[row * (ulong)k + (ulong)i] = there ? exp(scores[i] - most) / total : 0.0f;
        places[i] = there ? places[i] : -1;
    }
}
