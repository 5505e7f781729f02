// model.cl in Metal's language. Arguments are the configuration's, in their order.
#include <metal_stdlib>
using namespace metal;

kernel void resize_rows(device const packed_uchar3 *image [[buffer(0)]], device float *rows [[buffer(1)]],
                        constant int &width [[buffer(2)]], constant int &out_width [[buffer(3)]],
                        uint2 at [[thread_position_in_grid]])
{
    const float scale = (float)width / (float)out_width;
    const float reach = max(scale, 1.0f);
    const float centre = ((float)at.x + 0.5f) * scale;
    const int first = max((int)(centre - reach + 0.5f), 0);
    const int last = min((int)(centre + reach + 0.5f), width);
    float red = 0.0f, green = 0.0f, blue = 0.0f, weights = 0.0f;
    for (int x = first; x < last; x++) {
        const float weight = max(1.0f - fabs((float)x + 0.5f - centre) / reach, 0.0f);
        const packed_uchar3 rgb = image[at.y * (ulong)width + (ulong)x];
        red += weight * (float)rgb.x;
        green += weight * (float)rgb.y;
        blue += weight * (float)rgb.z;
        weights += weight;
    }
    device float *out = rows + (at.y * (ulong)out_width + at.x) * 3;
    out[0] = red / weights;
    out[1] = green / weights;
    out[2] = blue / weights;
}

kernel void resize_columns(device const float *rows [[buffer(0)]], device float *tensor [[buffer(1)]],
                           constant int &height [[buffer(2)]], constant int &out_height [[buffer(3)]],
                           constant int &out_width [[buffer(4)]], constant float &mean_r [[buffer(5)]],
                           constant float &mean_g [[buffer(6)]], constant float &mean_b [[buffer(7)]],
                           constant float &std_r [[buffer(8)]], constant float &std_g [[buffer(9)]],
                           constant float &std_b [[buffer(10)]], uint3 at [[thread_position_in_grid]])
{
    const float scale = (float)height / (float)out_height;
    const float reach = max(scale, 1.0f);
    const float centre = ((float)at.y + 0.5f) * scale;
    const int first = max((int)(centre - reach + 0.5f), 0);
    const int last = min((int)(centre + reach + 0.5f), height);
    float red = 0.0f, green = 0.0f, blue = 0.0f, weights = 0.0f;
    for (int row = first; row < last; row++) {
        const float weight = max(1.0f - fabs((float)row + 0.5f - centre) / reach, 0.0f);
        const ulong pixel = (at.z * (ulong)height + (ulong)row) * (ulong)out_width + at.x;
        red += weight * rows[pixel * 3];
        green += weight * rows[pixel * 3 + 1];
        blue += weight * rows[pixel * 3 + 2];
        weights += weight;
    }
    const ulong plane = (ulong)out_height * (ulong)out_width;
    device float *out = tensor + at.z * 3 * plane + at.y * (ulong)out_width + at.x;
    const float full = 255.0f * weights;
    out[0] = (red / full - mean_r) / std_r;
    out[plane] = (green / full - mean_g) / std_g;
    out[2 * plane] = (blue / full - mean_b) / std_b;
}
