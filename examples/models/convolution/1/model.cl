// A direct convolution: one work item makes one pixel of eight of the feature planes, so that each value of the image
// that it reads is used eight times. Filters lie as (plane, y, x, feature): the eight factors of a value side by side.
__kernel void convolve(__global const float *restrict image, __global const float *restrict filters,
                       __global const float *restrict bias, __global float *restrict features,
                       const int planes, const int feature_count, const int height, const int width)
{
    const int x = (int)get_global_id(0), y = (int)get_global_id(1);
    const size_t groups = (size_t)feature_count / 8;
    const size_t batch = get_global_id(2) / groups, group = get_global_id(2) % groups;
    const size_t plane = (size_t)height * (size_t)width;
    float8 sum = vload8(group, bias);
    for (int p = 0; p < planes; p++) {
        __global const float *from = image + (batch * (size_t)planes + (size_t)p) * plane;
        for (int dy = 0; dy < 3; dy++) {
            const int row = y + dy - 1;
            if (row < 0 || row >= height) {
                continue;
            }
            for (int dx = 0; dx < 3; dx++) {
                const int column = x + dx - 1;
                const size_t tap = (size_t)((p * 3 + dy) * 3 + dx);
                if (column >= 0 && column < width) {
                    sum += from[(size_t)row * (size_t)width + (size_t)column] *
                           vload8(tap * groups + group, filters);
                }
            }
        }
    }
    sum = fmax(sum, 0.0f);
    __global float *to = features + (batch * (size_t)feature_count + group * 8) * plane +
                         (size_t)y * (size_t)width + (size_t)x;
    to[0] = sum.s0;
    to[plane] = sum.s1;
    to[2 * plane] = sum.s2;
    to[3 * plane] = sum.s3;
    to[4 * plane] = sum.s4;
    to[5 * plane] = sum.s5;
    to[6 * plane] = sum.s6;
    to[7 * plane] = sum.s7;
}
