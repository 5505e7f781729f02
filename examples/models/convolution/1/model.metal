// model.cl in Metal's language. Arguments are the configuration's, in their order.
#include <metal_stdlib>
using namespace metal;

kernel void convolve(device const float *image [[buffer(0)]], device const float *filters [[buffer(1)]],
                     device const float *bias [[buffer(2)]], device float *features [[buffer(3)]],
                     constant int &planes [[buffer(4)]], constant int &feature_count [[buffer(5)]],
                     constant int &height [[buffer(6)]], constant int &width [[buffer(7)]],
                     uint3 at [[thread_position_in_grid]])
{
    const int x = (int)at.x, y = (int)at.y;
    const uint groups = (uint)feature_count / 8;
    const uint batch = at.z / groups, group = at.z % groups;
    const ulong plane = (ulong)height * (ulong)width;
    float sum[8];
    for (uint i = 0; i < 8; i++) {
        sum[i] = bias[group * 8 + i];
    }
    for (int p = 0; p < planes; p++) {
        device const float *from = image + (batch * (ulong)planes + (ulong)p) * plane;
        for (int dy = 0; dy < 3; dy++) {
            const int row = y + dy - 1;
            if (row < 0 || row >= height) {
                continue;
            }
            for (int dx = 0; dx < 3; dx++) {
                const int column = x + dx - 1;
                if (column < 0 || column >= width) {
                    continue;
                }
                const uint tap = (uint)((p * 3 + dy) * 3 + dx);
                device const float *factors = filters + (tap * groups + group) * 8;
                const float value = from[(ulong)row * (ulong)width + (ulong)column];
                for (uint i = 0; i < 8; i++) {
                    sum[i] += value * factors[i];
                }
            }
        }
    }
    device float *to = features + (batch * (ulong)feature_count + group * 8) * plane + (ulong)y * (ulong)width + (ulong)x;
    for (uint i = 0; i < 8; i++) {
        to[i * plane] = max(sum[i], 0.0f);
    }
}
