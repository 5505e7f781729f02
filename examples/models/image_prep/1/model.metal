// model.cl in Metal's language: one thread makes one pixel of all three planes. Arguments are the configuration's, in
// their order.
#include <metal_stdlib>
using namespace metal;

kernel void image_prep(device const packed_uchar3 *image [[buffer(0)]], device float *tensor [[buffer(1)]],
                       constant int &height [[buffer(2)]], constant int &width [[buffer(3)]],
                       constant float &mean_r [[buffer(4)]], constant float &mean_g [[buffer(5)]],
                       constant float &mean_b [[buffer(6)]], constant float &std_r [[buffer(7)]],
                       constant float &std_g [[buffer(8)]], constant float &std_b [[buffer(9)]],
                       uint2 at [[thread_position_in_grid]])
{
    const ulong plane = (ulong)height * (ulong)width;
    const ulong pixel = at.y * (ulong)width + at.x;
    const packed_uchar3 rgb = image[pixel];
    const float scale_r = 1.0f / (255.0f * std_r);
    const float scale_g = 1.0f / (255.0f * std_g);
    const float scale_b = 1.0f / (255.0f * std_b);

    tensor[pixel] = (float)rgb.x * scale_r - mean_r / std_r;
    tensor[plane + pixel] = (float)rgb.y * scale_g - mean_g / std_g;
    tensor[2 * plane + pixel] = (float)rgb.z * scale_b - mean_b / std_b;
}
