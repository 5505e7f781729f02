// value = (quantised - zero point) * scale, both of the value's channel. One work item makes one value; neighbours lie
// in one channel, so a compiler makes vectors of them.
__kernel void dequantise(__global const char *restrict quantised, __global const float *restrict scale,
                         __global const char *restrict zero, __global float *restrict value,
                         const int plane)
{
    const size_t channel = get_global_id(1);
    const size_t at =
        (get_global_id(2) * get_global_size(1) + channel) * (size_t)plane + get_global_id(0);
    value[at] = (float)((int)quantised[at] - (int)zero[channel]) * scale[channel];
}
