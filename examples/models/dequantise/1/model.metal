// model.cl in Metal's language. Arguments are the configuration's, in their order.
#include <metal_stdlib>
using namespace metal;

kernel void dequantise(device const char *quantised [[buffer(0)]], device const float *scale [[buffer(1)]],
                       device const char *zero [[buffer(2)]], device float *value [[buffer(3)]],
                       constant int &plane [[buffer(4)]], uint3 at [[thread_position_in_grid]],
                       uint3 grid [[threads_per_grid]])
{
    const ulong place = (at.z * (ulong)grid.y + at.y) * (ulong)plane + at.x;
    value[place] = (float)((int)quantised[place] - (int)zero[at.y]) * scale[at.y];
}
