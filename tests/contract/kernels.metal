// The contract suite's kernels in Metal's language; kernels.c has them in OpenCL C and C.
#include <metal_stdlib>
using namespace metal;

kernel void scale_add(device const float *x [[buffer(0)]], device float *y [[buffer(1)]],
                      constant float &a [[buffer(2)]], uint i [[thread_position_in_grid]])
{
    y[i] = a * x[i] + y[i];
}

kernel void copy_bytes(device const uchar *from [[buffer(0)]], device uchar *to [[buffer(1)]],
                       uint i [[thread_position_in_grid]])
{
    to[i] = from[i];
}

kernel void grid_index(device uint *out [[buffer(0)]], uint3 at [[thread_position_in_grid]],
                       uint3 size [[threads_per_grid]])
{
    uint i = (at.z * size.y + at.y) * size.x + at.x;
    out[i] += i;
}

kernel void slow(device uint *out [[buffer(0)]], constant uint &rounds [[buffer(1)]])
{
    uint x = rounds | 1u;
    for (uint i = 0; i < rounds; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
    }
    out[0] = x != 0u ? 1u : 2u;
}
