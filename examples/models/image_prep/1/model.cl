// One work item makes one pixel of all three planes: bytes as they come (height x width x 3), floats as a network wants
// them (3 x height x width). Neighbouring work items write neighbouring floats. The divisions are by values that are
// the same for all work items, so a compiler takes them out of its loop; dividing each pixel is five times slower on a CPU.
__kernel void image_prep(__global const uchar *restrict image, __global float *restrict tensor,
                         const int height, const int width, const float mean_r, const float mean_g,
                         const float mean_b, const float std_r, const float std_g,
                         const float std_b)
{
    const size_t plane = (size_t)height * (size_t)width;
    const size_t pixel = get_global_id(1) * (size_t)width + get_global_id(0);
    const uchar3 rgb = vload3(pixel, image);
    const float scale_r = 1.0f / (255.0f * std_r);
    const float scale_g = 1.0f / (255.0f * std_g);
    const float scale_b = 1.0f / (255.0f * std_b);

    tensor[pixel] = (float)rgb.x * scale_r - mean_r / std_r;
    tensor[plane + pixel] = (float)rgb.y * scale_g - mean_g / std_g;
    tensor[2 * plane + pixel] = (float)rgb.z * scale_b - mean_b / std_b;
}
